# SPDX-License-Identifier: Apache-2.0
"""What programs know of their own call paths and times, against what arrives at the OAP."""

import unittest

from swprofd_test import SwprofdTest, tree_durations

PERIOD_MS = 10


def function(signature):
    """file.c.function:line → function"""
    return signature.rsplit(":", 1)[0].rsplit(".", 1)[-1]


class Truth(SwprofdTest):
    def node(self, nodes, name):
        """Total duration of the nodes of a function, over the lines of it that were seen."""
        found = [e for signature, elements in nodes.items() for e in elements if function(signature) == name]
        self.assertTrue(found, f"{name} is in none of {sorted(nodes)}")
        return found

    def test_two_threads(self):
        """CPU-bound and blocked in recv: ≥ 99 % of what was due, complete stacks, no hole, nothing outside."""
        self.peer.create_task("threads", "/threads", period=PERIOD_MS, count=9)
        program = self.program("two-threads", "threads", "one", 5000)
        truth = {line["name"]: line for line in program.finish()}
        # A thread needs a CPU to stop for ptrace: while it has none, its samples are lost, and counted so.
        ptrace = self.daemon.status()["capture"]["backend"] == "ptrace"
        unstable = self.daemon.counters()["samples_unstable"] if ptrace else 0
        for name, leaf, inside in (("cpu", "burn", "work"), ("recv", "recv", "wait_for_peer")):
            with self.subTest(thread=name):
                t = truth[name]
                got = self.settled_snapshots(t["segment"])
                due = int((t["end"] - t["start"]) / PERIOD_MS)
                self.assertGreaterEqual(len(got), due * 0.99 - unstable)
                self.assertLessEqual(len(got), due + 2)
                self.assert_contiguous(got)
                self.assertGreaterEqual(got[0]["time"], int(t["start"]))
                self.assertLessEqual(got[-1]["time"], t["stop"])
                for s in got:
                    root, text = s["stack"][0], " ".join(s["stack"])
                    self.assertRegex(root, r"clone|start_thread", f"incomplete: {s['stack']}")
                    self.assertIn("segment", text, s["stack"])
                with_work = sum(inside in " ".join(s["stack"]) for s in got)
                self.assertGreaterEqual(with_work, len(got) - 2)

    def test_diagram(self):
        """The blog's diagram A: C 40 ms and D 60 ms under B under A, over 54 runs in 6 processes."""
        runs = 9
        programs = []
        for i in range(6):
            self.peer.create_task(f"diagram-{i}", "/diagram", period=PERIOD_MS, count=runs)
            programs.append(self.program("diagram", f"diagram-{i}", "one", runs))
        lines = [line for p in programs for line in p.finish()]
        self.assertEqual(len(lines), 6 * runs)
        for t in lines:
            got = self.settled_snapshots(t["segment"])
            self.assert_contiguous(got)
            nodes = tree_durations(self.peer, t["segment"], int(t["start"]), int(t["stop"]) + 1)
            for name, asked in (("A", 100), ("B", 100), ("C", 40), ("D", 60)):
                found = self.node(nodes, name)
                duration = sum(e["duration"] for e in found)
                # A node for each line that calls: B has two, and each lacks up to one period. On a busy machine
                # a sample may be late by some milliseconds; a lost one would be missed by a whole period.
                self.assertGreaterEqual(duration, asked - PERIOD_MS * len(found) - PERIOD_MS / 2, (name, t))
                self.assertLessEqual(duration, t[name] + 1, (name, t))
            paths = {tuple(function(f) for f in s["stack"]) for s in got}
            for path in paths:
                self.assertIn("main", path)
                if "C" in path:
                    self.assertEqual(path[path.index("main"):][:4], ("main", "A", "B", "C"))


if __name__ == "__main__":
    unittest.main()
