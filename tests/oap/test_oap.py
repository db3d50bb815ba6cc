# SPDX-License-Identifier: Apache-2.0
"""The daemon with a real OAP: a task made by GraphQL, what a program knows of itself, and the OAP's analysis.

    test_oap.py h2|postgresql
"""

import base64
import pathlib
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from certificates import Authority  # noqa: E402
from real_oap import Missing, RealOap  # noqa: E402
from swprofd_test import SLOW, SwprofdTest, wait_until  # noqa: E402
from test_truth import PERIOD_MS, function  # noqa: E402

from peer.client import OapError, profiled_windows  # noqa: E402

SERVICE = "diagram"
N_RUNS = 5
RUN_MS = 100 * SLOW     # what a run sleeps
# Of the task's minute. A server hands a task out within 10 s, and the programs take a second.
ELAPSED_S = 20
TOKEN = "token-of-the-test"
TRACE = """query ($traceId: ID!) {
  queryTrace(traceId: $traceId) { spans { segmentId refs { parentSegmentId parentSpanId type } } } }"""
STORAGE = "h2"


class OapTest(SwprofdTest):
    """With all that an OAP can ask of a connection."""

    def start_oap(self):
        authority = Authority(self.folder / "authority")
        certificate, key = authority.certificate("server")
        self.peer = RealOap(self.folder / "oap", storage=STORAGE, token=TOKEN, tls=(certificate, key, authority.ca))
        begin = time.monotonic()
        self.peer.start()
        self.addCleanup(self.peer.stop)
        print(f"OAP {self.peer.version()} with {STORAGE} started in {time.monotonic() - begin:.0f} s", file=sys.stderr)
        certificate, key = authority.certificate("client")
        token = self.folder / "token"
        token.write_text(TOKEN)
        self.daemon_config = (f"oap:\n  tls: true\n  ca_file: {authority.ca}\n  certificate_file: {certificate}\n"
                              f"  key_file: {key}\n  authentication: file:{token}\n")

    def logs(self, task, operation):
        return [log for log in self.peer.logs(task) if log["operationType"] == operation]

    def test_diagram(self):
        task = self.peer.create_task(SERVICE, "/diagram", period=PERIOD_MS, count=N_RUNS,
                                     start=int((time.time() - ELAPSED_S) * 1000))
        caller = ["trace-of-the-caller", "its-segment", "caller", "caller-1", "/call", "10.0.0.1:80"]
        sw8 = [base64.b64encode(text.encode()).decode() for text in caller]
        sw8.insert(2, "3")
        runs = self.program("diagram", SERVICE, "one", N_RUNS, "-".join(["1", *sw8])).finish()
        truth = {t["segment"]: {**t, "run": i} for i, t in enumerate(runs)}
        self.assertEqual(len(truth), N_RUNS)

        def windows():
            try:
                found = profiled_windows(self.peer.segments(task))
            except OapError:    # one with PostgreSQL stumbles over a list that is empty
                return None
            return found if len(found) == N_RUNS else None
        windows = wait_until(windows, 60, "the task's segments to be listed")
        self.assertEqual(set(windows), set(truth))
        lost = self.lost()
        for segment, (start, end, trace) in windows.items():
            t = truth[segment]
            self.assertEqual(trace["endpointNames"], ["/diagram"])
            self.assertEqual(trace["instanceName"], "one")
            # The trace segment is the daemon's own.
            self.assertEqual(trace["traceId"], "trace-of-the-caller")
            [span] = [s for s in trace["spans"] if s["segmentId"] == segment]
            self.assertEqual(span["isError"], t["run"] % 2 == 1)
            self.assertEqual(span["tags"], [{"key": "run", "value": ["even", "odd"][t["run"] % 2]}])
            self.assertLessEqual(abs(start - t["start"]), 2, t)
            self.assertLessEqual(abs(end - t["stop"]), 2, t)
            # Beside that: samples that other load of the host has cost are counted, and where it has kept the
            # program waiting it may have kept the daemon waiting, too.
            allowed_ms = PERIOD_MS * (2 + lost) + 2 * (t["A"] - RUN_MS)
            trees = self.peer.analyze(segment, start, end)["trees"]
            self.assertEqual(len(trees), 1)
            for name in "ABCD":
                found = [e for e in trees[0]["elements"] if function(e["codeSignature"]) == name]
                self.assertTrue(found, (name, trees))
                self.assertLessEqual(abs(sum(e["duration"] for e in found) - t[name]), allowed_ms, (name, t))
        # Those of profiled segments come without what calls other processes.
        spans = self.peer.graphql(TRACE, {"traceId": "trace-of-the-caller"})["spans"]
        self.assertEqual({s["segmentId"] for s in spans}, set(truth))
        for span in spans:
            self.assertEqual([(r["parentSegmentId"], r["parentSpanId"], r["type"]) for r in span["refs"]],
                             [("its-segment", 3, "CROSS_PROCESS")])
        wait_until(lambda: self.logs(task, "EXECUTION_FINISHED"), 120, "the task's end")
        self.daemon.stop()
        self.assertEqual(len(self.logs(task, "NOTIFIED")), 1)
        self.assertEqual(len(self.logs(task, "EXECUTION_FINISHED")), 1)


if __name__ == "__main__":
    STORAGE = sys.argv.pop(1)
    try:
        with tempfile.TemporaryDirectory() as nowhere:
            RealOap(nowhere, storage=STORAGE)
    except Missing as e:
        print(f"skipped: {e}")
        sys.exit(77)
    unittest.main()
