# SPDX-License-Identifier: Apache-2.0
"""A real OAP: the daemon with a task made by GraphQL, what a program knows of itself, and the OAP's analysis;
and swprofctl report beside that analysis.

    test_oap.py h2|postgresql
"""

import base64
import os
import pathlib
import random
import sys
import tempfile
import time
import unittest

TESTS = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("SWPROFCTL", str(pathlib.Path(os.environ["SWPROFD_BUILD"]) / "daemon/swprofctl"))
for folder in ("e2e", "report"):
    sys.path.insert(0, str(TESTS / folder))

import profiles  # noqa: E402
from certificates import Authority  # noqa: E402
from real_oap import Missing, RealOap  # noqa: E402
from swprofd_test import SLOW, SwprofdTest, wait_until  # noqa: E402
from test_analysis import Case, added, paths, random_samples  # noqa: E402
from test_truth import PERIOD_MS, function  # noqa: E402

from peer.agent import Agent  # noqa: E402
from peer.analysis import LIMIT  # noqa: E402
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


def setUpModule():
    """One server, with all that an OAP can ask of a connection."""
    global folder, authority, oap
    temporary = tempfile.TemporaryDirectory(prefix="swprofd-oap.")
    unittest.addModuleCleanup(temporary.cleanup)
    folder = pathlib.Path(temporary.name)
    authority = Authority(folder / "authority")
    certificate, key = authority.certificate("server")
    oap = RealOap(folder / "oap", storage=STORAGE, token=TOKEN, tls=(certificate, key, authority.ca))
    begin = time.monotonic()
    oap.start()
    unittest.addModuleCleanup(oap.stop)
    print(f"OAP {oap.version()} with {STORAGE} started in {time.monotonic() - begin:.0f} s", file=sys.stderr)


class OapTest(SwprofdTest):
    def start_oap(self):
        self.peer = oap
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


def by_path(trees):
    """{path: (duration, self, count)} of an OAP's trees, in µs as a report has them."""
    found = {}
    for tree in trees:
        found |= paths(tree["elements"], "id", "parentId", ("duration", "durationChildExcluded", "count"))
    return {path: (duration * 1000, own * 1000, n) for path, (duration, own, n) in found.items()}


class ReportTest(Case):
    """swprofctl report makes of the same samples what the OAP's analysis does, node by node."""

    def setUp(self):
        super().setUp()
        certificate, key = authority.certificate("agent")
        self.agent = Agent(oap.grpc_address, "compared", tls=[pathlib.Path(f).read_bytes() for f in
                                                              (authority.ca, key, certificate)], token=TOKEN)
        self.addCleanup(self.agent.close)
        # In µs, as the samples. A database that is young has no table for the days before.
        self.base_ms = int(time.time() * 1000)
        self.prefix = f"{self.base_ms}-{self.id().rpartition('.')[2]}"
        self.seed = random.SystemRandom().randrange(1 << 32)
        self.random = random.Random(self.seed)

    def send(self, segment, samples):
        self.agent.send_snapshots("task", f"{self.prefix}-{segment}", (
            (sequence, self.base_ms + time_us // 1000, stack) for sequence, time_us, stack, *_ in samples))

    def oap_tree(self, *segments):
        """In one query, however long ago the clock says that a sample was."""
        queries = [(f"{self.prefix}-{s}", self.base_ms - 10 ** 8, self.base_ms + 10 ** 8) for s in segments]
        return by_path(oap.analyze_queries(queries)["trees"])

    def report_tree(self, segments):
        b = profiles.Builder()
        for name, samples in segments.items():
            b.segment(name, samples)
        return paths(self.report(b)["elements"], "id", "parent_id", ("duration_us", "self_us", "count"))

    def compare(self, segments, *names):
        """What was sent is readable after a second or two."""
        expected = self.report_tree({name: segments[name] for name in names})
        last = None

        def equal():
            nonlocal last
            try:
                last = self.oap_tree(*names)
            except OapError as e:   # no table of that day yet
                last = str(e)
            return last == expected
        try:
            wait_until(equal, 30, "the OAP to give the same")
        except AssertionError:
            self.assertEqual(last, expected, f"seed {self.seed}: {[segments[name] for name in names]}")

    def generated(self, first=0):
        """An OAP with H2 answers with no analysis at all where a stack is empty. A sequence that comes twice is
        a test of its own."""
        samples = [(q + first, *rest) for q, *rest in random_samples(self.random) if rest[1]]
        seen = set()
        return [s for s in samples if not (s[0] in seen or seen.add(s[0]))]

    def test_generated(self):
        """Of all kinds: lost, late, clocks that go backwards, several outermost frames, one sample alone."""
        segments = {f"s{i}": self.generated() for i in range(60)}
        segments |= {"one": [(0, 0, "ab")], "one-late": [(7, 70000, "ab")], "holes": [(i, i * 5000, "ab") for i in
                                                                                      range(0, 40, 2)]}
        for name, samples in segments.items():
            self.send(name, samples)
        for name, samples in segments.items():
            if samples:
                self.compare(segments, name)

    def test_several_segments(self):
        """Of one task, added up. The OAP tells samples apart by their sequence alone: no two are equal here."""
        for i in range(8):
            segments = {f"{i}-{k}": self.generated(first=1000 * k) for k in range(5)}
            segments = {name: samples for name, samples in segments.items() if samples}
            for name, samples in segments.items():
                self.send(name, samples)
            self.compare(segments, *segments)
            # Whatever the sequences are: each alone, and then the sum.
            self.assertEqual(self.report_tree(segments), added([self.oap_tree(name) for name in segments]))

    def test_twice(self):
        """The first one of equal sequences holds."""
        segments = {"twice": [(i, i * 10000, "abc"[:1 + i % 3]) for i in range(30)]}
        late = [(i, i * 10000 + 5000, "xy") for i in range(0, 30, 3)]
        self.send("twice", segments["twice"])
        self.compare(segments, "twice")
        self.send("twice", late)
        segments["twice"] += late
        markers = []

        def written():
            """Those late ones, or refused: what was sent after them is there. (A database may refuse what comes
            together with them.)"""
            markers.append(f"marker-{len(markers)}")
            self.send(markers[-1], [(0, 0, "m")])
            time.sleep(0.5)
            return any(map(self.oap_tree, markers[2:]))
        wait_until(written, 60, "the OAP to have written what came twice")
        self.compare(segments, "twice")

    def test_limit(self):
        """As many as an OAP looks at; the report goes on where that stops."""
        samples = [(i, i * 10000, ("main", f"f{i // 5 % 7}", "g")) for i in range(LIMIT + 50)]
        self.send("limit", samples)
        self.compare({"limit": samples[:LIMIT]}, "limit")
        duration, _, count = self.report_tree({"limit": samples})[("main",)]
        self.assertEqual((duration, count), (10000 * (LIMIT + 49), LIMIT + 50))


if __name__ == "__main__":
    STORAGE = sys.argv.pop(1)
    try:
        with tempfile.TemporaryDirectory() as nowhere:
            RealOap(nowhere, storage=STORAGE)
    except Missing as e:
        print(f"skipped: {e}")
        sys.exit(77)
    unittest.main()
