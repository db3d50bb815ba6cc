# SPDX-License-Identifier: Apache-2.0
"""The client's tests with each Python that is here."""

import os
import pathlib
import subprocess
import sys
import unittest

import interpreters

TESTS = [pathlib.Path(__file__).with_name(f"test_{name}.py") for name in ("client", "carriers")]
INTERPRETERS = interpreters.find()


class Versions(unittest.TestCase):
    pass


def add(version, program):
    def test(self):
        if not program:
            self.skipTest(interpreters.why_not(version))
        for file in TESTS:
            done = subprocess.run([program, "-X", "dev", file], env=os.environ, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
            self.assertEqual(done.returncode, 0, done.stdout)

    setattr(Versions, f"test_{version[0]}_{version[1]:02}", test)


for found in INTERPRETERS.items():
    add(*found)

if __name__ == "__main__":
    print("interpreters:", ", ".join(filter(None, INTERPRETERS.values())), file=sys.stderr)
    unittest.main(verbosity=2)
