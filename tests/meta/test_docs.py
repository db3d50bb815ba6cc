#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Manual pages, shipped configuration and symbol lists tell of what is there, and of nothing else.
Environment: SWPROFD_BUILD."""

import os
import pathlib
import re
import subprocess
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SWPROFD_BUILD", ROOT / "build-release"))
MAN = ROOT / "packaging" / "man"
CONFIG = ROOT / "config" / "swprofd.yaml"


def keys_of(value, prefix=""):
    for key, below in value.items():
        if isinstance(below, dict):
            yield from keys_of(below, f"{prefix}{key}.")
        else:
            yield prefix + key


def flat(value, prefix=""):
    """{"section.key": value}"""
    found = {}
    for key, below in value.items():
        if isinstance(below, dict):
            found |= flat(below, f"{prefix}{key}.")
        else:
            found[prefix + key] = below
    return found


def canonical(config):
    """What the daemon understands. The environment must not change it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SW_")}
    result = subprocess.run([BUILD / "daemon" / "swprofd", f"--config={config}", "--check-config"],
                            check=True, text=True, env=env, stdout=subprocess.PIPE)
    return flat(yaml.safe_load(result.stdout))


class TestConfig(unittest.TestCase):
    def test_shipped_names_each_key(self):
        self.assertEqual(sorted(flat(yaml.safe_load(CONFIG.read_text()))),
                         sorted(canonical(CONFIG)))

    def test_shipped_has_the_defaults(self):
        self.assertEqual(canonical(CONFIG), canonical("/dev/null"))

    def test_manual_has_each_key(self):
        page = (MAN / "swprofd.yaml.5").read_text().replace("\\-", "-")
        described = re.findall(r"^\.TP\n\.B[RI]? \"?([a-z_.]+)\b", page, re.M)
        self.assertEqual(sorted(described), sorted(canonical(CONFIG)))


class TestLibrary(unittest.TestCase):
    def symbols(self):
        """Those that the version script names."""
        script = re.sub(r"/\*.*?\*/", "", (ROOT / "lib" / "libswprof.sym").read_text(), flags=re.S)
        return sorted(re.findall(r"^\s*(swprof_\w+);", script, re.M))

    def test_exports(self):
        out = subprocess.run(["nm", "-D", "--defined-only", BUILD / "lib" / "libswprof.so"],
                             check=True, text=True, stdout=subprocess.PIPE).stdout
        found = re.findall(r"^\S+ [TDBRW] ([^\s@]+)", out, re.M)
        self.assertEqual(sorted(s for s in found if not re.match(r"__(asan|odr_asan)", s)),
                         self.symbols())

    def test_header(self):
        header = (ROOT / "lib" / "include" / "swprof.h").read_text()
        header = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
        self.assertEqual(sorted(set(re.findall(r"\b(swprof_\w+)\(", header))), self.symbols())

    def test_manual_has_each_function(self):
        page = (MAN / "libswprof.3").read_text()
        self.assertEqual([s for s in self.symbols() if not re.search(rf"\b{s}\b", page)], [])


class TestPages(unittest.TestCase):
    def test_no_warning(self):
        for page in sorted(MAN.glob("*.[1-8]")):
            with self.subTest(page=page.name):
                result = subprocess.run(
                    ["man", "--warnings", "-E", "UTF-8", "-l", page], text=True, capture_output=True,
                    env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"})
                self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_example_of_the_protocol(self):
        """It compiles; the end-to-end tests run it."""
        page = (MAN / "swprofd-protocol.7").read_text()
        example = re.search(r"^\.EX\n(.*?)^\.EE", page, re.M | re.S)[1]
        compile(example, "swprofd-protocol.7", "exec")


if __name__ == "__main__":
    unittest.main()
