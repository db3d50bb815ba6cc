# SPDX-License-Identifier: Apache-2.0
"""The daemon and the backend end and come back amid a task: nothing is sent twice, in sequence all the same.

SWPROFD_TEST_KILLS: how many times the daemon is killed (100 for the full test).
"""

import os
import random
import time
import unittest

from swprofd_test import SwprofdTest, wait_until

OPERATION = "/life"
PERIOD_MS = 10
KILLS = int(os.environ.get("SWPROFD_TEST_KILLS", "8"))


class Restart(SwprofdTest):
    def span(self, service, instance="one"):
        """A program with a span that lasts until its input ends."""
        program = self.program("idle", service, instance, OPERATION, "span")
        program.line()
        return program, program.line()["segment"]

    def assert_once(self):
        """No (task, segment, sequence) twice, none missing."""
        found = {}
        for s in self.peer.recorded()["snapshots"]:
            found.setdefault((s["taskId"], s["segmentId"]), []).append(s)
        for snapshots in found.values():
            self.assert_contiguous(snapshots)
        return found

    def test_killed(self):
        """At random moments: the task is resumed, and its segment goes on where it was."""
        self.peer.create_task("killed", OPERATION, period=PERIOD_MS, duration=15)
        program, segment = self.span("killed")
        self.snapshots(segment, wait=lambda s: len(s) > 5)
        for _ in range(KILLS):
            time.sleep(random.uniform(0, 1.5))
            self.daemon.kill()
            self.daemon.start()
            [task] = self.daemon.status()["tasks"]
            self.assertEqual(task["state"], "running")
        n = len(self.snapshots(segment))
        print(self.daemon.status()["tasks"], self.daemon.counters()["segments_resumed"], n)
        self.snapshots(segment, wait=lambda s: len(s) > n + 5)
        program.finish()
        self.settled_snapshots(segment)
        self.assert_once()


if __name__ == "__main__":
    unittest.main()
