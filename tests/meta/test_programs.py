#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What both programs say of themselves, on the right stream, with the right exit status; and that the
manual pages and the completion know it all. Environment: SWPROFD_BUILD."""

import functools
import os
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SWPROFD_BUILD", ROOT / "build-release"))
MAN = ROOT / "packaging" / "man"
PAGES = {"swprofd": "swprofd.8", "swprofctl": "swprofctl.1"}
COMPLETION = ROOT / "packaging" / "completions" / "swprofctl.bash"


def run(program, *arguments):
    env = {**os.environ, "SWPROFD_CONTROL": "/nonexistent"}     # no daemon of this host
    return subprocess.run([BUILD / "daemon" / program, *arguments], text=True, timeout=30, env=env,
                          stdin=subprocess.DEVNULL, capture_output=True)


def help_text(program):
    return run(program, "--help").stdout


def long_options(text):
    return sorted(set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text)))


def verbs():
    """swprofctl's, from its help: the indented words of the section on verbs."""
    section = re.search(r"^(?:Verbs|Commands):\n(.*?)(?:\n\n|\Z)", help_text("swprofctl"), re.M | re.S)
    return re.findall(r"^ +([a-z][a-z-]*)", section[1], re.M) if section else []


def plain(roff):
    """A page's text, near enough to find words in."""
    return re.sub(r"\\f.|\\(?=-)", "", roff.replace("\\-", "-"))


def each_program(test):
    @functools.wraps(test)
    def run_each(self):
        for program in PAGES:
            with self.subTest(program=program):
                test(self, program)
    return run_each


class TestPrograms(unittest.TestCase):
    @each_program
    def test_help(self, program):
        result = run(program, "--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("Usage: " + program, result.stdout)
        self.assertEqual([line for line in result.stdout.splitlines() if len(line) > 80], [])
        self.assertEqual(run(program, "-h").stdout, result.stdout)

    @each_program
    def test_version(self, program):
        version = re.search(r"^ *version: '([^']+)'", (ROOT / "meson.build").read_text(), re.M)[1]
        result = run(program, "--version")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, rf"^{program} {re.escape(version)}\b")

    @each_program
    def test_unknown_option(self, program):
        for wrong in (["--no-such-option"], ["no-such-verb"], ["--socket" if program == "swprofctl"
                                                               else "--config"]):
            result = run(program, *wrong)
            self.assertEqual((result.returncode, result.stdout), (2, ""), wrong)
            self.assertNotEqual(result.stderr, "")

    @each_program
    def test_manual_has_each_option(self, program):
        options = long_options(help_text(program))
        self.assertIn("help", options)
        page = long_options(plain((MAN / PAGES[program]).read_text()))
        self.assertEqual([o for o in options if o not in page], [])

    @each_program
    def test_each_option_of_the_synopsis_exists(self, program):
        options = long_options(help_text(program))
        page = (MAN / PAGES[program]).read_text()
        section = re.search(r"^\.SH OPTIONS\n(.*?)^\.SH", page, re.M | re.S)
        self.assertIsNotNone(section)
        self.assertEqual([o for o in long_options(plain(section[1])) if o not in options], [])

    def test_verbs(self):
        self.assertIn("status", verbs())
        page = plain((MAN / PAGES["swprofctl"]).read_text())
        completion = COMPLETION.read_text()
        for verb in verbs():
            with self.subTest(verb=verb):
                self.assertRegex(page, rf"(?m)^\.(?:B|BR|BI|TP)\b.*\b{verb}\b|^\.It .*\b{verb}\b")
                self.assertRegex(completion, rf"\b{verb}\b")

    def test_completion_has_each_option(self):
        completion = long_options(COMPLETION.read_text())
        self.assertEqual([o for o in long_options(help_text("swprofctl")) if o not in completion], [])


if __name__ == "__main__":
    unittest.main()
