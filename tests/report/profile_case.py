# SPDX-License-Identifier: Apache-2.0
"""Runs swprofctl on profiles. Environment: SWPROFCTL."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import profiles

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build-release"
SWPROFCTL = os.environ.get("SWPROFCTL", str(BUILD / "daemon" / "swprofctl"))


def run(*arguments, **more):
    return subprocess.run([SWPROFCTL, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=120, **more)


class Case(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)

    def write(self, profile):
        """A Builder's, a message's, or bytes. Return: the path."""
        if isinstance(profile, profiles.Builder):
            profile = profile.message
        path = self.dir / "profile"
        path.write_bytes(profile if isinstance(profile, bytes) else profile.SerializeToString())
        return path

    def show(self, profile, verb, *arguments):
        """Its output, as bytes."""
        result = run(verb, f"--input={self.write(profile)}", *arguments)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return result.stdout

    def report(self, profile, *arguments):
        return json.loads(self.show(profile, "report", "--json", *arguments))

    def fails(self, status, *arguments):
        """Its one line of complaint."""
        result = run(*arguments)
        self.assertEqual((result.returncode, result.stdout), (status, b""))
        self.assertEqual(result.stderr.count(b"\n"), 1, result.stderr)
        return result.stderr.decode()
