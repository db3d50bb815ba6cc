#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The shape of the source tree: heads, lengths, format, and nothing in it of the machine that it was
written on."""

import pathlib
import re
import shutil
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAX_LINES = {"tests": 1000}     # cases in a row read well; else 600
C_FOLDERS = ("bpf", "daemon", "lib", "packaging", "tests")
LICENSES = {"bpf": "GPL-2.0-only OR BSD-2-Clause"}     # else Apache-2.0
TEXT = {".build", ".bash", ".c", ".cc", ".css", ".h", ".html", ".in", ".js", ".md", ".proto", ".py", ".sh", ".sym", ".sysusers",
        ".txt", ".yaml", ".1", ".3", ".5", ".7", ".8", ""}
NO_HEAD = {"LICENSE", "README.md", ".gitignore", ".clang-format"}
# The hosts that a text may name: of the projects that it speaks of.
HOSTS = {"www.apache.org", "skywalking.apache.org", "github.com", "json.schemastore.org", "www.kernel.org",
         "www.speedscope.app"}
MACHINE = re.compile(r"(?<![\w.}])/(?:work|root|home|Users|mnt|opt)/[\w.]")
REGISTRY = re.compile(r"\b(?:mirror|registry|proxy|artifactory|nexus)\.[\w-]+\.\w+|\.inter" r"nal\b")
URL = re.compile(r"https?://([\w.-]+)")


def files():
    """Those of the repository and the new ones, without what is ignored."""
    try:
        out = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], check=True,
                             text=True, stdout=subprocess.PIPE).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        out = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*")
               if not p.relative_to(ROOT).parts[0].startswith(("build", ".git"))]
    for name in out:
        path = ROOT / name
        if path.is_file() and "corpus" not in path.parts and path.suffix in TEXT:
            yield name, path


def text_files():
    for name, path in files():
        try:
            yield name, path.read_text()
        except UnicodeDecodeError:
            continue


def sources():
    return [(name, path) for name, path in files()
            if name.split("/")[0] in C_FOLDERS and path.suffix in (".c", ".h", ".cc")]


class TestTree(unittest.TestCase):
    def test_heads(self):
        bad = []
        for name, text in text_files():
            # A table in a manual page must be announced in the page's first line.
            head = "\n".join(text.splitlines()[:3])
            wanted = {"Apache-2.0", LICENSES.get(name.split("/")[0], "Apache-2.0")}
            found = re.search(r"SPDX-License-Identifier: ([\w.() -]+?)(?: \*/)?$", head, re.M)
            if pathlib.Path(name).name not in NO_HEAD and (not found or found[1].strip() not in wanted):
                bad.append(name)
        self.assertEqual(bad, [])

    def test_length(self):
        long = [(name, n) for name, path in sources()
                if (n := len(path.read_text().splitlines())) > MAX_LINES.get(name.split("/")[0], 600)]
        self.assertEqual(long, [])

    def test_format(self):
        tool = shutil.which("clang-format-14")
        if not tool:
            self.skipTest("clang-format-14 is not installed")
        paths = [path for _, path in sources()]
        result = subprocess.run([tool, "--dry-run", "-Werror", *paths], text=True, capture_output=True)
        self.assertEqual(result.returncode, 0, result.stderr[-3000:])

    def test_shell(self):
        tool = shutil.which("shellcheck")
        if not tool:
            self.skipTest("shellcheck is not installed")
        scripts = [name for name, text in text_files()
                   if re.match(r"#!.*\b(?:ba)?sh\b", text) or name.endswith((".sh", ".bash"))]
        result = subprocess.run([tool, "-x", *scripts], text=True, capture_output=True, cwd=ROOT)
        self.assertEqual(result.returncode, 0, result.stdout[-3000:])

    def test_nothing_of_the_machine(self):
        found = []
        for name, text in text_files():
            for number, line in enumerate(text.splitlines(), 1):
                hosts = [h for h in URL.findall(line)
                         if h not in HOSTS and not re.match(r"127\.|localhost$|[\w.-]*\.invalid$", h)]
                if hosts or MACHINE.search(line) or REGISTRY.search(line):
                    found.append(f"{name}:{number}: {line.strip()[:100]}")
        self.assertEqual(found, [])

    def test_no_notes_to_self(self):
        note = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b(?!X)")
        found = [name for name, text in text_files() if name != "tests/meta/test_tree.py"
                 and note.search(text)]
        self.assertEqual(found, [])


if __name__ == "__main__":
    unittest.main()
