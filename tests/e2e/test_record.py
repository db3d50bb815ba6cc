# SPDX-License-Identifier: Apache-2.0
"""swprofd --record. Environment: SWPROFD_BUILD."""

import ctypes
import os
import pathlib
import stat
import struct
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(os.environ.get("SWPROFD_BUILD", pathlib.Path(__file__).parents[2] / "build-release"))
IMAGE, MODULE, MAP, CAPTURE = 1, 2, 3, 4
SECRET = "a-secret-of-the-program"
SLEEP = "print(flush=True); input()"
SPIN = "print(flush=True)\nwhile True: pass"


def parse(data):
    """{type: [body]}"""
    assert data[:12] == b"SWPREC\r\n" + struct.pack("<I", 1), data[:12]
    at, records = 12, {IMAGE: [], MODULE: [], MAP: [], CAPTURE: []}
    while at < len(data):
        kind, size = struct.unpack_from("<IQ", data, at)
        records[kind].append(data[at + 12:at + 12 + size])
        at += 12 + size
    assert at == len(data)
    return records


@unittest.skipIf(os.geteuid() != 0, "needs root, to read the stack of another process")
class TestRecord(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.directory / "recording"

    def start(self, code):
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, env={"SECRET": SECRET})
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        process.stdout.readline()
        return process.pid

    def record(self, *arguments):
        return subprocess.run([BUILD / "daemon" / "swprofd", f"--record={self.path}", *arguments], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=60, umask=0)

    def check(self, pid, *arguments, count=1):
        result = self.record(f"--pid={pid}", *arguments)
        self.assertEqual((result.returncode, result.stdout), (0, ""), result.stderr)
        self.assertIn("secrets and all", result.stderr)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        records = parse(self.path.read_bytes())
        self.assertEqual(len(records[CAPTURE]), count)
        self.assertEqual(len(records[MAP]), 1)
        self.assertTrue(all(i[24:28] == b"\x7fELF" for i in records[IMAGE]))
        self.assertTrue(any(b"python3" in m for m in records[MODULE]))
        self.assertIn(b"[stack]", records[MAP][0])
        for capture in records[CAPTURE]:
            self.assertIn(SECRET.encode(), capture)
        return records

    def test_sleeping(self):
        records = self.check(self.start(SLEEP), "--count=3", "--interval=1", count=3)
        self.assertEqual([struct.unpack_from("<q", c, 8)[0] for c in records[CAPTURE]], [0] * 3)     # read

    def test_running(self):
        self.check(self.start(SPIN), "--count=5", count=5)

    def test_iterator(self):
        self.check(self.start(SLEEP), "--capture=bpf-iter")

    def test_another_tracer(self):
        pid = self.start(SLEEP)
        libc = ctypes.CDLL(None, use_errno=True)
        # PTRACE_SEIZE
        if libc.ptrace(ctypes.c_long(0x4206), ctypes.c_long(pid), ctypes.c_void_p(), ctypes.c_void_p()) != 0:
            self.skipTest(f"ptrace: {os.strerror(ctypes.get_errno())}")
        result = self.record(f"--pid={pid}", "--capture=ptrace")
        self.assertEqual(result.returncode, 1)
        self.assertIn("it has another tracer", result.stderr)
        self.assertFalse(self.path.exists())

    def test_file_exists(self):
        self.path.write_text("dear")
        result = self.record(f"--pid={os.getpid()}")
        self.assertEqual(result.returncode, 1)
        self.assertIn("File exists", result.stderr)
        self.assertEqual(self.path.read_text(), "dear")

    def test_no_such_thread(self):
        for arguments in (["--pid=1", f"--tid={os.getpid()}"], [f"--pid={2**22}"]):
            result = self.record(*arguments)
            self.assertEqual(result.returncode, 1)
            self.assertIn("has no thread", result.stderr)
            self.assertFalse(self.path.exists())


class TestUsage(unittest.TestCase):
    def test_wrong(self):
        for arguments in (["--record=x"], ["--pid=1"], ["--count=2"], ["--record=x", "--pid=one"],
                          ["--record=x", "--pid=0"], ["--record=x", "--pid=1", "--count=1001"],
                          ["--record=x", "--pid=1", "--interval=-1"], ["--record=x", "--pid=1", "--tid=1x"],
                          ["--record=x", "--pid=1", "--capture=nonsense"]):
            with self.subTest(arguments=arguments):
                result = subprocess.run([BUILD / "daemon" / "swprofd", *arguments], text=True, timeout=60,
                                        capture_output=True)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertNotEqual(result.stderr, "")


if __name__ == "__main__":
    unittest.main()
