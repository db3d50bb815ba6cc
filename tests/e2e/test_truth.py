# SPDX-License-Identifier: Apache-2.0
"""What programs know of their own call paths and times, against what arrives at the OAP."""

import unittest

from swprofd_test import SLOW, SwprofdTest, tree_durations

PERIOD_MS = 10 * SLOW
# By how much samples may be late. A lost one would be missed by a whole period; where time is not real it is counted.
LATE_PERIODS = 0.5 if SLOW == 1 else 2


def function(signature):
    """file.c.function:line → function"""
    return signature.rsplit(":", 1)[0].rsplit(".", 1)[-1]


class Truth(SwprofdTest):
    def node(self, nodes, name):
        """Total duration of the nodes of a function, over the lines of it that were seen."""
        found = [e for signature, elements in nodes.items() for e in elements if function(signature) == name]
        self.assertTrue(found, f"{name} is in none of {sorted(nodes)}")
        return found

    def is_ptrace(self):
        return self.daemon.status()["capture"]["backend"] == "ptrace"

    def test_two_threads(self):
        """CPU-bound and blocked in recv: ≥ 99 % of what was due, complete stacks, no hole, nothing outside."""
        self.peer.create_task("threads", "/threads", period=PERIOD_MS, count=9)
        program = self.program("two-threads", "threads", "one", 5000 if SLOW == 1 else 8000)
        truth = {line["name"]: line for line in program.finish()}
        for t in truth.values():
            self.settled_snapshots(t["segment"])
        lost = self.lost()
        for name, leaf, inside in (("cpu", "burn", "work"), ("recv", "recv", "wait_for_peer")):
            with self.subTest(thread=name):
                t = truth[name]
                got = self.settled_snapshots(t["segment"])
                due = int((t["end"] - t["start"]) / PERIOD_MS)
                # Where time is not real samples come late; a thread in want of a CPU stops only when it gets one.
                allowed = lost if SLOW > 1 or self.is_ptrace() else 0
                self.assertGreaterEqual(len(got), due * 0.99 - allowed)
                self.assertLessEqual(len(got), due + 4)  # and where a wait began and ended
                self.assert_contiguous(got)
                self.assertGreaterEqual(got[0]["time"], int(t["start"]))
                self.assertLessEqual(got[-1]["time"], t["stop"])
                for s in got:
                    root, text = s["stack"][0], " ".join(s["stack"])
                    self.assertRegex(root, r"clone|start_thread", f"incomplete: {s['stack']}")
                    self.assertIn("segment", text, s["stack"])
                with_work = sum(inside in " ".join(s["stack"]) for s in got)
                # At either end the thread is on its way there and may wait: for a page, for a CPU.
                self.assertGreaterEqual(with_work, len(got) - 4)

    def test_diagram(self):
        """The blog's diagram A: C 40 ms and D 60 ms under B under A, over 54 runs in 6 processes."""
        processes, runs = (6, 9) if SLOW == 1 else (2, 3)
        programs = []
        for i in range(processes):
            self.peer.create_task(f"diagram-{i}", "/diagram", period=PERIOD_MS, count=runs)
            programs.append(self.program("diagram", f"diagram-{i}", "one", runs))
        lines = [line for p in programs for line in p.finish()]
        self.assertEqual(len(lines), processes * runs)
        for t in lines:
            self.settled_snapshots(t["segment"])
        lost = self.lost()
        errors = {name: [] for name in "ABCD"}
        for t in lines:
            got = self.settled_snapshots(t["segment"])
            self.assert_contiguous(got)
            nodes = tree_durations(self.peer, t["segment"], int(t["start"]), int(t["stop"]) + 1)
            for name, periods in (("A", 10), ("B", 10), ("C", 4), ("D", 6)):
                found = self.node(nodes, name)
                duration = sum(e["duration"] for e in found)
                # A node for each line that calls: B has two, and each lacks up to one period. On a busy machine
                # a sample may be late by some milliseconds; a lost one would be missed by a whole period.
                # ptrace is not told when a thread came and went: there the other end lacks some, too.
                missing = len(found) + lost + LATE_PERIODS + self.is_ptrace()
                self.assertGreaterEqual(duration, (periods - missing) * PERIOD_MS, (name, t))
                self.assertLessEqual(duration, t[name] + 2, (name, t))
                errors[name].append(duration - t[name])
            paths = {tuple(function(f) for f in s["stack"]) for s in got}
            for path in paths:
                self.assertIn("main", path)
                if "C" in path:
                    self.assertEqual(path[path.index("main"):][:4], ("main", "A", "B", "C"))
        # Waits are seen from their begin to their end, not just from one sample to another: without that, D would
        # lack a whole period each time. On a busy machine some are missed.
        if self.is_ptrace():
            return  # which is not told when a thread came and went
        for name, all_errors in errors.items():
            self.assertGreater(max(all_errors), -PERIOD_MS / 5, (name, all_errors))


if __name__ == "__main__":
    unittest.main()
