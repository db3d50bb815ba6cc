# SPDX-License-Identifier: Apache-2.0
"""Line tables that real interpreters wrote: each instruction's line, as they tell it and as the daemon does."""

import pathlib
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PROBE = sys.argv.pop()
sys.path.insert(0, str(HERE.parents[1]))

import pythons  # noqa: E402


class Lines(unittest.TestCase):
    def test_lines(self):
        found, missing = pythons.find()
        print("interpreters:", *found, "- not here:", *(missing or ["none"]), flush=True)
        if not found:
            self.skipTest("no CPython 3.8 to 3.14 here")
        for name, python in found.items():
            with self.subTest(python=name):
                dump = subprocess.run([python, HERE / "dump-lines.py"], capture_output=True, text=True, check=True)
                cases = [line.split("\t") for line in dump.stdout.splitlines()]
                self.assertGreater(len(cases), 200)
                told = subprocess.run([PROBE], input="".join(c[0] + "\n" for c in cases), capture_output=True,
                                      text=True, check=True).stdout.splitlines()
                self.assertEqual(len(told), len(cases))
                for (case, expected), line in zip(cases, told):
                    self.assertEqual(line.split(), expected.split(), case)


if __name__ == "__main__":
    unittest.main()
