# SPDX-License-Identifier: Apache-2.0
"""The target does not notice: no interrupted call, and no more context switches than without profiling.

CPU time is a benchmark's business: it is printed, not judged.
"""

import unittest

from swprofd_test import SwprofdTest

SLEEPS = 100


class Perturbation(SwprofdTest):
    def test_counters(self):
        self.peer.create_task("busy", "/busy", period=10, count=9)
        for profiled in (0, 1):
            for _ in range(3):
                [t] = self.program("busy", "busy", "one", profiled, SLEEPS, 1000).finish()
                print("profiled" if profiled else "alone", t)
                self.assertEqual(t["eintr"] + t["eintr_epoll"], 0)
                # One switch for each of the three sleeping calls of a round; a lock or two in libc may add some.
                self.assertLessEqual(abs(t["voluntary"] - 3 * SLEEPS), 5)
        self.assertGreater(self.daemon.counters()["samples_captured"], 300)


if __name__ == "__main__":
    unittest.main()
