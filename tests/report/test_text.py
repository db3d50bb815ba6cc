#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `swprofctl segments` and `report` show to people, also on a small terminal. Environment: SWPROFCTL."""

import fcntl
import json
import os
import pathlib
import pty
import re
import struct
import subprocess
import termios
import unittest

import profiles
from profile_case import Case, SWPROFCTL

GOLDEN = pathlib.Path(__file__).parent / "golden"
ESCAPES = re.compile(r"\x1b\[\d*m")


def on_terminal(columns, *arguments, **environment):
    """What appears on a terminal so wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | environment
    process = subprocess.Popen([SWPROFCTL, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=theirs, env=env)
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:     # how a terminal ends
            break
        if not part:
            break
        text += part
    os.close(ours)
    if process.wait() != 0:
        raise AssertionError(f"exit status {process.returncode}")
    return text.decode().replace("\r\n", "\n")


class TestText(Case):
    maxDiff = None

    def golden(self, name, text):
        """With GOLDEN_WRITE=1 the text becomes the golden one."""
        path = GOLDEN / (name if name.endswith(".json") else f"{name}.out")
        if os.environ.get("GOLDEN_WRITE"):
            path.write_text(text)
        self.assertEqual(text, path.read_text())

    def test_report(self):
        b = profiles.demo()
        self.golden("report", self.show(b, "report").decode())
        self.golden("report-depth", self.show(b, "report", "--depth=4", "--min=10").decode())
        self.golden("report-segment", self.show(b, "report", "2a9c77e0.41.170000", "--min=20").decode())

    def test_json(self):
        b = profiles.Builder()
        b.frame("/srv/a.py.f:7", function="f", file="/srv/a.py", line=7)
        b.segment("s", [(0, 0, ("/srv/a.py.f:7", "[poll]"), 2), (1, 12500, ("/srv/a.py.f:7", "[poll]"), 2)],
                  duration_ns=20000000, blocked_ns=20000000, losses={"torn": 3})
        for verb in ("report", "segments"):
            text = self.show(b, verb, "--json").decode()
            self.assertEqual(list(json.loads(text))[0], "version")
            self.golden(f"{verb}.json", text)

    def test_segments(self):
        b = profiles.demo()
        b.segment("unknown-times", [(0, 0, "a")], task="t2")
        os.environ["TZ"] = "UTC"
        self.addCleanup(os.environ.pop, "TZ")
        self.golden("segments", self.show(b, "segments").decode())
        self.assertEqual(self.show(b, "segments", "t2").count(b"\n"), 2)

    def test_widths(self):
        path = self.write(profiles.demo())
        for columns in (20, 40, 80, 132):
            text = on_terminal(columns, "report", "-i", path, NO_COLOR="1")
            lines = text.splitlines()[1:]       # the summary may wrap
            self.assertEqual([line for line in lines if len(line) > columns and "hidden" not in line], [])
            self.golden(f"report-{columns}", text)

    def test_colour(self):
        path = self.write(profiles.demo())
        coloured = on_terminal(80, "report", "-i", path)
        plain = on_terminal(80, "report", "-i", path, NO_COLOR="1")
        self.assertIn("\x1b[31m", coloured)
        self.assertEqual(ESCAPES.sub("", coloured), plain)
        self.assertNotIn("\x1b", plain)
        self.assertNotIn(b"\x1b", self.show(profiles.demo(), "report"))

    def test_names_are_text(self):
        b = profiles.Builder(host="\x1b[2J")
        b.segment("s\x1b[31m", [(0, 0, ("\x1b]0;title\x07f\n", "g\u009b2J"))], endpoint="/\x1b[H", thread="\r")
        for verb in ("report", "segments"):
            text = self.show(b, verb, "--min=0").decode()
            self.assertEqual(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), [])
        self.assertIn("\\x1b]0;title\\x07f\\x0a", self.show(b, "report").decode())

    def test_not_utf8(self):
        b = profiles.Builder()
        b.segment("s", [(0, 0, ("ab\u20ac",))])
        path = self.write(b.message.SerializeToString().replace("\u20ac".encode(), b"\xe2\x82c"))
        self.assertIn("ab??c", on_terminal(80, "report", "-i", path))
        self.assertIn("ab??c", on_terminal(80, "report", "--json", "-i", path))

    def test_large(self):
        """A tree of many siblings, and one that is as deep as may be."""
        b = profiles.Builder()
        b.segment("s", [(i, i * 10000, ("top", f"f{i}")) for i in range(3000)])
        b.segment("t", [(0, 0, tuple(f"d{i}" for i in range(4096))), (1, 9000, tuple(f"d{i}" for i in range(2000)))])
        self.assertEqual(self.show(b, "report", "--min=0").count(b"\n"), 2 + 3001 + 4096)
        self.assertIn(b"more are hidden", self.show(b, "report", "--min=1"))

    def test_usage(self):
        path = self.write(profiles.demo())
        for wrong in (["--min=x"], ["--min=101"], ["--min=-1"], ["--depth=0"], ["--depth=x"], ["one", "two"]):
            self.fails(2, "report", "-i", path, *wrong)
        for verb in ("report", "segments"):
            self.assertIn("not running", self.fails(3, verb, f"--socket={self.dir}/none"))


if __name__ == "__main__":
    unittest.main()
