# SPDX-License-Identifier: Apache-2.0
"""The diagram's program against a real OAP: SWPROFD_REAL_OAP=HOST:GRPCPORT,HTTPPORT. Skips without."""

import os
import sys
import unittest

from swprofd_test import SwprofdTest, wait_until
from test_truth import PERIOD_MS, function

from peer.client import Client, profiled_windows

ADDRESS = os.environ.get("SWPROFD_REAL_OAP")


class RealOap(SwprofdTest):
    def start_oap(self):
        grpc, http = ADDRESS.rsplit(",", 1)
        self.peer = Client(f"{grpc.rsplit(':', 1)[0]}:{http}")
        self.peer.grpc_address = grpc

    def test_diagram(self):
        service = f"diagram-{os.getpid()}"
        task = self.peer.create_task(service, "/diagram", period=PERIOD_MS, count=5)
        truth = {t["segment"]: t for t in self.program("diagram", service, "one", 5).finish()}
        # What was sent is readable after the server's persistence period, 25 s on a default one.
        windows = wait_until(lambda: (w := profiled_windows(self.peer.segments(task))) and len(w) == 5 and w, 60,
                             "the task's segments to be listed")
        self.assertEqual(set(windows), set(truth))
        for segment, (start, end, _) in windows.items():
            t = truth[segment]
            trees = self.peer.analyze(segment, start, end)["trees"]
            self.assertEqual(len(trees), 1)
            for name in "ABCD":
                found = [e for e in trees[0]["elements"] if function(e["codeSignature"]) == name]
                self.assertTrue(found, (name, trees))
                self.assertLessEqual(abs(sum(e["duration"] for e in found) - t[name]), 2 * PERIOD_MS, (name, t))
        kinds = [log["operationType"] for log in self.peer.logs(task)]
        self.assertEqual(kinds.count("NOTIFIED"), 1)
        finished = wait_until(lambda: [log for log in self.peer.logs(task)
                                       if log["operationType"] == "EXECUTION_FINISHED"], 120, "the task's end")
        self.assertEqual(len(finished), 1)


if __name__ == "__main__":
    if not ADDRESS:
        print("skipped: SWPROFD_REAL_OAP=HOST:GRPCPORT,HTTPPORT names no real OAP")
        sys.exit(77)
    unittest.main()
