# SPDX-License-Identifier: Apache-2.0
"""What threads wait for, and where their time goes, against what they know themselves."""

import json
import re
import unittest

from swprofd_test import SwprofdTest, tree_durations, wait_until

PERIOD_MS = 10


class Waits(SwprofdTest):
    daemon_config = "stacks:\n  blocked_on: true\n"

    def logged_times(self, segment):
        """on CPU, waiting for one, blocked: milliseconds, as the daemon logs them of a segment that is over."""
        text = wait_until(lambda: re.search(rf"segment {segment} of .*", self.daemon.log_file.read_text()), 15,
                          "the segment's line in the log")[0]
        found = re.search(r"([0-9.]+) on CPU, ([0-9.]+) waiting for one, ([0-9.]+) blocked", text)
        return [float(x) for x in found.groups()]

    def test_waits(self):
        self.peer.create_task("waits", "/waits", period=PERIOD_MS, count=9)
        truth = {t["name"]: t for t in self.program("waits", "waits", "one").finish()}
        leaves = {"sleep": r"\[clock_nanosleep\]", "futex": r"\[futex_wait\]", "poll": r"\[poll\]",
                  "read": rf"\[read fd {truth['read']['fd']}\]", "page": r"\[page fault\]"}
        lost = self.lost()
        for name, t in truth.items():
            with self.subTest(wait=name):
                function = f"in_{name}"
                got = self.settled_snapshots(t["segment"])
                self.assert_contiguous(got)
                inside = [s["stack"] for s in got if any(f".{function}:" in f for f in s["stack"])]
                self.assertTrue(inside, got)
                if name in leaves:
                    # It may have been met on its way there, or while it waited for a CPU.
                    met = [s for s in inside if re.fullmatch(leaves[name], s[-1])]
                    self.assertGreaterEqual(len(met), len(inside) - 3, inside)
                elif name == "queue":
                    self.assertIn("[run queue]", {s[-1] for s in inside})
                duration = sum(e["duration"] for signature, elements in tree_durations(
                    self.peer, t["segment"], int(t["start"]), int(t["stop"]) + 1).items()
                    for e in elements if f".{function}:" in signature)
                if name in leaves:
                    self.assertLessEqual(duration, t["took"] + 2)
                    self.assertGreaterEqual(duration, t["took"] - PERIOD_MS - 1)
                on_cpu, run_queue, blocked = self.logged_times(t["segment"])
                total = t["stop"] - t["start"]
                # On a busy machine its last word comes late: as a late sample, or when the next request has begun.
                delta = PERIOD_MS * (2 + lost)
                self.assertAlmostEqual(on_cpu, t["on_cpu"], delta=delta)
                self.assertAlmostEqual(run_queue, t["run_queue"], delta=delta)
                self.assertAlmostEqual(blocked, total - t["on_cpu"] - t["run_queue"], delta=delta)

    def test_slots(self):
        """What the status says of a thread that waits."""
        self.peer.create_task("idle", "/idle", period=PERIOD_MS, count=1)
        program = self.program("idle", "idle", "one", "/idle", "span")

        def waited():
            return [s for s in self.daemon.status()["slots"] if int(s["blocked_ns"]) > 50e6]
        [slot] = wait_until(waited, 15, "a slot whose thread is blocked")
        self.assertLess(int(slot["on_cpu_ns"]), int(slot["blocked_ns"]))
        self.check_top(slot)
        program.finish()

    def check_top(self, slot):
        """What it does is in `top`, once there are samples: of a thread that sleeps, some 100 ms come together."""
        def shown():
            done = self.daemon.ctl("--json", "top", "--interval=300ms")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            top = json.loads(done.stdout)
            return top if int(top["samples"]) > 0 else None
        top = wait_until(shown, 30, "samples in top")
        [shown] = top["slots"]
        self.assertEqual((shown["segment"], shown["endpoint"]), (slot["segment"], "/idle"))
        self.assertTrue(any(shown["stack"][0].startswith(f["function"]) for f in top["functions"]), top)
        self.assertTrue(any(f["function"].endswith(".wait_for_end") and f["kind"] == "native"
                            for f in top["functions"]), top)
        self.assertEqual(sum(f["self_us"] for f in top["functions"]), top["sampled_us"])
        self.assertEqual(max(f["total_us"] for f in top["functions"]), top["sampled_us"])
        done = self.daemon.ctl("top", "--interval=300ms", "--iterations=2")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(re.findall(r"(?m)^1 slot, \d+ samples?, ", done.stdout)), 2, done.stdout)
        self.assertNotIn("\x1b", done.stdout)


if __name__ == "__main__":
    unittest.main()
