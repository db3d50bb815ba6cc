#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The rules of layers.py hold, and are noticed to be broken. Environment: SWPROFD_BUILD."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import layers

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SWPROFD_BUILD", ROOT / "build-release"))
SANITIZERS = re.compile(r"^lib(asan|ubsan|lsan|tsan)\.so")


class TestTree(unittest.TestCase):
    def test_no_violation(self):
        self.assertEqual(layers.violations(ROOT), [])


class TestRules(unittest.TestCase):
    """Each rule on a tree of one file."""

    def violations(self, path, include):
        with tempfile.TemporaryDirectory() as root:
            file = pathlib.Path(root, path)
            file.parent.mkdir(parents=True)
            file.write_text(f"/* a file */\n#include {include}\n")
            return layers.violations(root)

    def test_broken(self):
        for path, include in [
                ("daemon/util/x.c", '"core/core.h"'),
                ("daemon/core/x.h", '"oap/session.h"'),
                ("daemon/client/x.c", '"oap/session.h"'),
                ("daemon/capture/x.c", '"unwind/unwind.h"'),
                ("daemon/unwind/x.c", '"capture/capture.h"'),
                ("daemon/oap/x.c", '"manager/manager.h"'),
                ("daemon/ctl/x.c", '"core/config.h"'),
                ("daemon/swprofctl.c", '"manager/manager.h"'),
                ("daemon/oap/session.c", "<grpc/grpc.h>"),
                ("daemon/oap/rpc.c", '"skywalking.pb-c.h"'),
                ("daemon/core/x.c", '"span.pb-c.h"'),
                ("daemon/manager/x.c", "<bpf/libbpf.h>"),
                ("daemon/manager/x.c", '"capture.skel.h"'),
                ("daemon/unwind/unwind.c", "<elfutils/libdw.h>"),
                ("daemon/core/core.c", "<yaml.h>"),
                ("daemon/control/x.c", "<json-c/json.h>"),
                ("daemon/core/x.c", "<systemd/sd-event.h>"),
                ("daemon/core/x.c", "<curl/curl.h>"),
                ("daemon/other/x.c", "<stdio.h>"),
                ("daemon/util/x.c", '"../core/core.h"'),
                ("lib/src/x.c", '"util/log.h"'),
                ("lib/src/x.c", "<systemd/sd-daemon.h>"),
        ]:
            with self.subTest(path=path, include=include):
                found = self.violations(path, include)
                self.assertEqual(len(found), 1, found)
                self.assertTrue(found[0].startswith(path), found)

    def test_kept(self):
        for path, include in [
                ("daemon/core/x.c", '"util/log.h"'),
                ("daemon/capture/x.c", '"unwind/types.h"'),
                ("daemon/manager/x.c", '"oap/session.h"'),
                ("daemon/swprofd.c", '"manager/manager.h"'),
                ("daemon/oap/rpc.c", "<grpc/grpc.h>"),
                ("daemon/client/x.c", "<sys/socket.h>"),
        ]:
            with self.subTest(path=path, include=include):
                self.assertEqual(self.violations(path, include), [])


class TestBinaries(unittest.TestCase):
    """What the programs need to run: the apps and people's tools must not drag the daemon's libraries in."""

    def needed(self, path):
        out = subprocess.run(["readelf", "-d", BUILD / path], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
        names = re.findall(r"\(NEEDED\).*\[(.*)\]", out)
        return {n for n in names if not SANITIZERS.match(n)}

    def test_lib_needs_libc_only(self):
        self.assertLessEqual(self.needed("lib/libswprof.so"), {"libc.so.6", "ld-linux-x86-64.so.2"})

    def test_swprofctl_is_light(self):
        heavy = re.compile("grpc|bpf|dw|elf|yaml|protobuf\\.so|stdc")
        self.assertEqual([n for n in self.needed("daemon/swprofctl") if heavy.search(n)], [])


if __name__ == "__main__":
    unittest.main()
