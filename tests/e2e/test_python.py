# SPDX-License-Identifier: Apache-2.0
"""Python programs that know their own call paths, under every CPython that is to be had here, against what arrives.

The versions that were run are printed; for the others the test is skipped (see pythons.py).
"""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import unittest

from swprofd_test import SLOW, TESTS, SwprofdTest

sys.path.insert(0, str(TESTS))

import pythons  # noqa: E402

PROGRAM = TESTS / "e2e/programs/pytarget.py"
PERIOD_MS = 10 * SLOW
SECONDS = 0.7 * SLOW
AT_ONCE = min(4, len(os.sched_getaffinity(0)))     # interpreters
# The path within the program, from the case's function on, as far as it is not a library's.
PATHS = {
    "wait": ["wait", "leaf_wait"],
    "burn": ["burn", "leaf_burn"],
    "nested": ["nested", "by_sort", "key", "by_map", "mapped", "by_sub", "replace", "__call__", "leaf_wait|leaf_burn"],
    "construct": ["construct", "__init__", "leaf_burn"],
    "generate": ["generate", "inner_generator", "innermost_generator", "leaf_burn"],
    "coroutines": ["coroutines", "outer_coroutine", "inner_coroutine", "leaf_burn"],
}
FRAME = re.compile(r"(.*)\.([^.]+): (\d+)")


def marks():
    """function → the lines at which the program says that it may be met."""
    lines = {}
    for number, line in enumerate(PROGRAM.read_text().splitlines(), 1):
        if "# at " in line:
            lines.setdefault(line.split("# at ")[1], set()).add(number)
    return lines


PYTHONS, MISSING = pythons.find()
MARKS = marks()
print("interpreters:", *PYTHONS, "- not here:", *(MISSING or ["none"]), flush=True)


class Python(SwprofdTest):
    def setUp(self):
        super().setUp()
        if not PYTHONS:
            self.skipTest("no CPython 3.8 to 3.14 here")

    def run_case(self, name, case, seconds, threads):
        """Return: the segments of the case."""
        service = f"{name}-{case}"
        self.peer.create_task(service, f"/{service}", period=PERIOD_MS, count=9)
        done = subprocess.run([PYTHONS[name], PROGRAM, service, case, str(seconds), str(threads)],
                              env=dict(os.environ, SWPROFD_SOCKET=self.daemon.span_socket), capture_output=True,
                              text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line)["segment"] for line in done.stdout.splitlines()]

    def each(self, case, check, mismatches=0, seconds=SECONDS, threads=0, names=tuple(PYTHONS)):
        """mismatches: the part of the samples of which the frames of Python may not fit the native stack."""
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            runs = {name: pool.submit(self.run_case, name, case, seconds, threads) for name in names}
        for name, run in runs.items():
            with self.subTest(python=name):
                for segment in run.result():
                    snapshots = self.settled_snapshots(segment)
                    self.assert_contiguous(snapshots)
                    check(snapshots)
        c = self.daemon.counters()
        self.assertLessEqual(c["stacks_python_mismatch"], c["samples_due"] * mismatches)
        return c

    def own_path(self, stack):
        """[(function, line)] of the program's own frames, behind those that every case has."""
        frames = [FRAME.fullmatch(s) for s in stack]
        path = [(f[2], int(f[3])) for f in frames if f and f[1] == str(PROGRAM)]
        self.assertEqual([name for name, _ in path[:3]], ["<module>", "main", "run"], stack)
        return path[3:]

    def check_path(self, case, snapshots):
        complete = 0
        for s in snapshots:
            path = self.own_path(s["stack"])
            self.assertLessEqual(len(path), len(PATHS[case]), s["stack"])
            for expected, (name, _) in zip(PATHS[case], path):
                self.assertRegex(name, f"^({expected})$", s["stack"])
            # The innermost one may be just beginning or ending.
            for name, line in path[:-1]:
                if name in MARKS:
                    self.assertIn(line, MARKS[name], s["stack"])
            complete += len(path) == len(PATHS[case])
        self.assertGreater(len(snapshots), 10)
        self.assertGreaterEqual(complete, len(snapshots) * 0.8)

    def test_paths(self):
        for case in PATHS:
            with self.subTest(case=case):
                self.each(case, lambda snapshots: self.check_path(case, snapshots))

    def test_leaf(self):
        """The C function that waits is shown, the interpreter's own are not."""
        self.each("wait", lambda snapshots: self.assertGreater(
            sum(bool(re.search("nanosleep|select", s["stack"][-1])) for s in snapshots), len(snapshots) * 0.8))
        self.each("burn", lambda snapshots: self.assertGreater(
            sum("leaf_burn" in s["stack"][-1] for s in snapshots), len(snapshots) * 0.8))

    def test_deep(self):
        """Deeper than the stack's copy where each function has native frames, and than what is reported."""
        def check(snapshots):
            whole = 0
            for s in snapshots:
                path = [name for name, _ in self.own_path([f for f in s["stack"] if f != "[cut]"])]
                self.assertEqual(path, ["deep"] * len(path))   # less deep while it begins
                whole += len(path) == 495 and s["stack"][-1] == "[cut]"
            self.assertGreaterEqual(whole, len(snapshots) * 0.8)
        self.each("deep", check, seconds=2 * SECONDS)

    def test_threads(self):
        """Each thread has its own functions."""
        def check(snapshots):
            for s in snapshots:
                self.assertIn("run", [f[2] for f in map(FRAME.fullmatch, s["stack"]) if f])
                self.assertIn("threading.py", s["stack"][0])
        self.each("nested", check, threads=4)

    def test_interpreter(self):
        """Two interpreters on one thread: both their functions, the inner one's further in."""
        def check(snapshots):
            inside = begun = 0
            for s in snapshots:
                names = [f[2] for f in map(FRAME.fullmatch, s["stack"]) if f]
                if "interpreter" not in names:   # it begins, or ends
                    continue
                at = names.index("interpreter")
                if names[at + 1:at + 3] == ["<module>", "in_other"]:
                    inside += 1
                begun += inside > 0
            self.assertGreater(inside, max(10, begun * 0.5))
        # A state that is new is found by the capture that misses it. Of 3.14 the loop may be part of its callers, and
        # nothing tells then that one is missing.
        self.each("interpreter", check, mismatches=0.05, seconds=2 * SECONDS,
                  names=[n for n in PYTHONS if not n.startswith("3.14")])

    def test_codes(self):
        """Functions that are gone in a moment never lend their name to others, at whatever address these are."""
        seen = []

        def check(snapshots):
            newest = 0
            for s in snapshots:
                for f in filter(None, map(FRAME.fullmatch, s["stack"])):
                    number = re.fullmatch(r"<h(\d{6})>", f[1])
                    if not number:
                        continue
                    n = int(number[1])
                    expected = {f"f{n:06d}": (3,), f"g{n:06d}": (6, 7, 8), "<module>": (2, 6)}
                    self.assertIn(f[2], expected, s["stack"])
                    line = int(f[3])
                    # A module that is just entered is at line 0 since 3.11, at 1 before.
                    if f[2] != "<module>" or line > 1:
                        self.assertIn(line - n % 1000, expected[f[2]], s["stack"])
                    self.assertGreaterEqual(n, newest, "one that is gone")
                    newest = n
                    seen.append(n)
        self.each("codes", check, threads=3, seconds=2 * SECONDS)
        self.assertGreater(len(seen), 100)

    @unittest.skipIf(not MISSING, "all versions are here")
    def test_missing(self):
        self.skipTest("not here: " + ", ".join(MISSING))


class Mixed(Python):
    daemon_config = "python: {stacks: mixed}"

    def test_order(self):
        """Native functions stand where they were called."""
        def check(snapshots):
            whole = 0
            for s in snapshots:
                text = "\n".join(s["stack"])
                whole += bool(re.search(r"(?s)_start.*Py_RunMain.*by_sort: \d+\n.*\.key: \d+\n.*by_map: ", text))
                self.assertNotIn("EvalFrameDefault", text)
            self.assertGreater(whole, len(snapshots) * 0.8)
        self.each("nested", check)


for inherited in ("leaf", "deep", "threads", "codes", "missing"):
    setattr(Mixed, f"test_{inherited}", None)

if __name__ == "__main__":
    unittest.main()
