# SPDX-License-Identifier: Apache-2.0
"""What the configuration can change about stacks."""

import unittest

from swprofd_test import SwprofdTest
from test_truth import PERIOD_MS, function


class Stacks(SwprofdTest):
    """One run of the diagram's program: [(its line, its snapshots)]."""

    program_name = "diagram"

    def profile(self):
        self.peer.create_task("diagram", "/diagram", period=PERIOD_MS, count=2)
        lines = self.program(self.program_name, "diagram", "one", 2).finish()
        runs = [(t, self.settled_snapshots(t["segment"])) for t in lines]
        lost = self.lost()
        for t, got in runs:
            self.assert_contiguous(got)
            self.assertGreaterEqual(len(got), int(t["A"] / PERIOD_MS) - 1 - lost)
        return [s["stack"] for _, got in runs for s in got]


class FramePointers(Stacks):
    program_name = "diagram-fp"
    daemon_config = "capture:\n  unwind: fp\n  kernel_frames: true\n"

    def test_fp_and_kernel_frames(self):
        stacks = self.profile()
        # Libraries are built without: a stack from the midst of one may end there.
        whole = [s for s in stacks if "__libc_start_call_main" in s[0]]
        self.assertGreaterEqual(len(whole), len(stacks) - 4, {s[0] for s in stacks})
        for s in whole:
            names = [function(f) for f in s if not f.startswith("[kernel]")]
            self.assertEqual(names[1:4], ["main", "A", "B"], s)
        self.assertTrue(any(s[-1].startswith("[kernel].") for s in stacks))


class Functions(Stacks):
    daemon_config = "symbols:\n  lines: false\nprofile:\n  max_depth: 6\n"

    def test_no_lines_and_a_cut(self):
        for s in self.profile():
            self.assertEqual(len(s), 6, s)
            self.assertEqual(s[-1], "[cut]")
            self.assertTrue(s[0].endswith("._start"), s)
            self.assertIn("diagram.c.main", s)


if __name__ == "__main__":
    unittest.main()
