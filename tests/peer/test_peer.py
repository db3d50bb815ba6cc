# SPDX-License-Identifier: Apache-2.0
"""/usr/bin/python3 -m unittest tests/peer/test_peer.py"""

import contextlib
import pathlib
import random
import subprocess
import sys
import threading
import time
import unittest
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import grpc

import harness
from peer import analysis
from peer.agent import Agent


def samples(segment, rows, task="t"):
    """rows: (sequence, time, stack), the stack as one word per frame."""
    return [{"taskId": task, "segmentId": segment, "sequence": sequence, "time": at,
             "stack": stack.split()} for sequence, at, stack in rows]


def regular(stack, sequences, period=10):
    return [(i, 1000 + i * period, stack) for i in sequences]


def query(segment, start=0, end=1 << 62):
    return {"segmentId": segment, "timeRange": {"start": start, "end": end}}


def flat(result):
    """{path: (duration, self, count)} of all trees."""
    found = {}
    for tree in result["trees"]:
        paths = {"0": ""}
        for e in tree["elements"]:
            paths[e["id"]] = f"{paths[e['parentId']]} {e['codeSignature']}".strip()
            found[paths[e["id"]]] = e["duration"], e["durationChildExcluded"], e["count"]
    return found


def analyze(rows, *queries, **options):
    return flat(analysis.analyze(samples("s", rows), queries or [query("s")], **options))


class TestAnalysis(unittest.TestCase):
    def test_last_period_is_not_counted(self):
        self.assertEqual(analyze(regular("a b", range(10))), {"a": (90, 0, 10), "a b": (90, 90, 10)})

    def test_holes_cut_the_window(self):
        kept = [0, 1, 2, 4, 5, 7, 8, 9]     # 20 + 10 + 20 ms
        self.assertEqual(analyze(regular("a", kept)), {"a": (50, 50, 8)})

    def test_renumbered_there_are_no_holes(self):
        kept = [0, 1, 2, 4, 5, 7, 8, 9]
        rows = [(n, 1000 + i * 10, "a") for n, i in enumerate(kept)]
        self.assertEqual(analyze(rows), {"a": (90, 90, 8)})

    def test_thinning_runs_keeps_durations(self):
        """Only the count shrinks when the inside of a run of equal stacks goes."""
        rng = random.Random(1)
        for _ in range(200):
            stacks = [rng.choice(["a", "a b", "a b c", "a d", "r"]) for _ in range(40)]
            full = [(i, 1000 + 10 * i, s) for i, s in enumerate(stacks)]
            thin = [r for i, r in enumerate(full)
                    if not 0 < i < 39 or not stacks[i - 1] == stacks[i] == stacks[i + 1]]
            thin = [(n, at, stack) for n, (_, at, stack) in enumerate(thin)]
            self.assertEqual({k: v[:2] for k, v in analyze(full).items()},
                             {k: v[:2] for k, v in analyze(thin).items()})

    def test_frame_seen_once_has_no_duration(self):
        rows = [(0, 1000, "a b"), (1, 1010, "a c"), (2, 1020, "a b")]
        self.assertEqual(analyze(rows), {"a": (20, 20, 3), "a b": (0, 0, 2), "a c": (0, 0, 1)})

    def test_arrival_order_does_not_matter(self):
        rows = regular("a b", range(5)) + regular("a c", range(5, 9))
        shuffled = rows[:]
        random.Random(2).shuffle(shuffled)
        self.assertNotEqual(rows, shuffled)
        self.assertEqual(analyze(shuffled), analyze(rows))

    def test_one_tree_for_each_outermost_frame(self):
        rows = regular("a x", [0, 1]) + regular("b x", [2, 3, 4]) + regular("a x", [5])
        result = analysis.analyze(samples("s", rows), [query("s")])
        self.assertEqual(len(result["trees"]), 2)
        self.assertEqual(flat(result), {"a": (10, 0, 3), "a x": (10, 10, 3),
                                        "b": (20, 0, 3), "b x": (20, 20, 3)})

    def test_recursion(self):
        self.assertEqual(analyze(regular("f f", range(3))), {"f": (20, 0, 3), "f f": (20, 20, 3)})

    def test_empty_stack_cuts_the_window(self):
        rows = regular("a", [0, 1, 2]) + regular("", [3]) + regular("a", [4, 5])
        self.assertEqual(analyze(rows), {"a": (30, 30, 5)})

    def test_range_is_inclusive(self):
        rows = regular("a", range(10))
        self.assertEqual(analyze(rows, query("s", 1020, 1050)), {"a": (30, 30, 4)})
        self.assertEqual(analyze(rows, query("s", 1021, 1049)), {"a": (10, 10, 2)})

    def test_all_sequences_between_count(self):
        """One with a time outside of the range comes along if its sequence is inside."""
        rows = [(0, 1000, "a"), (1, 5000, "a"), (2, 1020, "a")]
        self.assertEqual(analyze(rows, query("s", 1000, 2000)), {"a": (20, 20, 3)})

    def test_overlapping_ranges_count_once(self):
        rows = regular("a", range(10))
        self.assertEqual(analyze(rows, query("s", 1000, 1060), query("s", 1030, 1090)),
                         {"a": (90, 90, 10)})

    def test_second_segment_loses_equal_sequences(self):
        data = samples("s", regular("a", range(5))) + samples("u", regular("b", range(3, 7)))
        self.assertEqual(flat(analysis.analyze(data, [query("s"), query("u")])),
                         {"a": (40, 40, 5), "b": (10, 10, 2)})
        self.assertEqual(flat(analysis.analyze(data, [query("u")])), {"b": (30, 30, 4)})

    def test_nothing_found(self):
        self.assertEqual(analysis.analyze([], [query("s")]), {"tip": None, "trees": []})
        self.assertEqual(analyze(regular("a", range(3)), query("s", 1, 2)), {})

    def test_limit(self):
        rows = regular("a", range(5, 12_006))
        result = analysis.analyze(samples("s", rows), [query("s")])
        self.assertEqual(flat(result), {"a": (119_990, 119_990, 12_000)})
        self.assertEqual(result["tip"], "Out of snapshot analyze limit, 12001 snapshots found, "
                                        "but analysis first 12000 snapshots only.")
        self.assertIsNone(analysis.analyze(samples("s", rows[1:]), [query("s")])["tip"])

    def test_limit_is_one_of_sequences(self):
        rows = regular("a", [0, 1, 9, 10])
        self.assertEqual(analyze(rows, limit=10), {"a": (10, 10, 3)})


class PeerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.peer = harness.Peer().start()
        cls.agent = Agent(cls.peer.grpc_address)

    @classmethod
    def tearDownClass(cls):
        cls.agent.close()
        cls.peer.stop()

    def setUp(self):
        self.peer.reset()

    @contextlib.contextmanager
    def assert_status(self, status):
        with self.assertRaises(grpc.RpcError) as raised:
            yield
        self.assertEqual(raised.exception.code(), status)


class TestTasks(PeerTest):
    def test_command(self):
        task = self.peer.create_task("svc", " /slow ", duration=2, threshold=7, period=11, count=3)
        [(name, args)] = self.agent.poll()
        self.assertEqual(name, "ProfileTaskQuery")
        self.assertEqual(list(args), [
            "SerialNumber", "TaskId", "EndpointName", "Duration", "MinDurationThreshold",
            "DumpPeriod", "MaxSamplingCount", "StartTime", "CreateTime"])
        created, _, service = task.partition("_")
        self.assertEqual(service, "c3Zj.1")
        self.assertEqual({**args, "SerialNumber": None, "StartTime": None}, {
            "SerialNumber": None, "TaskId": task, "EndpointName": "/slow", "Duration": "2",
            "MinDurationThreshold": "7", "DumpPeriod": "11", "MaxSamplingCount": "3",
            "StartTime": None, "CreateTime": created})
        uuid.UUID(args["SerialNumber"])
        self.assertNotEqual(self.agent.poll()[0][1]["SerialNumber"], args["SerialNumber"])

    def test_only_newer_tasks(self):
        task = self.peer.create_task("svc", "/slow")
        created = int(task.partition("_")[0])
        self.assertEqual(len(self.agent.poll(created - 1)), 1)
        self.assertEqual(self.agent.poll(created), [])
        self.assertEqual([p["lastCommandTime"] for p in self.peer.recorded()["polls"]],
                         [created - 1, created])

    def test_other_service(self):
        self.peer.create_task("other", "/slow")
        self.assertEqual(self.agent.poll(), [])

    def test_logs(self):
        task = self.peer.create_task("svc", "/slow")
        self.agent.poll()
        self.agent.finish(task)
        self.agent.finish("unknown")
        logs = self.peer.logs(task)
        self.assertEqual([(log["operationType"], log["instanceName"]) for log in logs],
                         [("EXECUTION_FINISHED", "inst"), ("NOTIFIED", "inst")])
        self.assertEqual([f["taskId"] for f in self.peer.recorded()["finishes"]], [task, "unknown"])
        self.assertEqual(self.peer.tasks("svc")[0]["logs"], logs)

    def test_refusals(self):
        for options in ({"duration": 0}, {"duration": 16}, {"threshold": -1}, {"period": 9},
                        {"count": 0}, {"count": 10}):
            with self.subTest(options), self.assertRaises(harness.OapError):
                self.peer.create_task("svc", "/slow", **options)
        with self.assertRaises(harness.OapError):
            self.peer.create_task("svc", "")
        self.assertEqual(self.peer.tasks(), [])
        self.peer.create_task("svc", "/slow", duration=15, period=10, count=9)

    def test_one_task_at_a_time(self):
        start = (int(time.time()) // 60 + 10) * 60_000
        self.peer.create_task("svc", "/a", start=start)
        for overlapping in (start - 60_000, start, start + 60_000):
            with self.assertRaisesRegex(harness.OapError, "already has monitor task"):
                self.peer.create_task("svc", "/b", start=overlapping)
        self.peer.create_task("svc", "/b", start=start + 60_001)
        self.peer.create_task("svc", "/b", start=start - 120_000)
        self.peer.create_task("other", "/b", start=start)

    def test_injected(self):
        self.peer.inject_task("svc", id="raw", startTime=1, duration=99, createTime=5)
        self.peer.inject_task("svc", args={"TaskId": "x", "Duration": "soon", "Odd": 1})
        self.peer.inject_task("svc", command="NoSuchThing", args={})
        commands = self.agent.poll()
        self.assertEqual((commands[0][1]["TaskId"], commands[0][1]["Duration"]), ("raw", "99"))
        self.assertEqual(commands[1:], [
            ("ProfileTaskQuery", {"TaskId": "x", "Duration": "soon", "Odd": "1"}),
            ("NoSuchThing", {})])

    def test_cache_delay(self):
        with harness.Peer(cache_delay_ms=300) as slow, \
                contextlib.closing(Agent(slow.grpc_address)) as agent:
            began = time.monotonic()
            slow.create_task("svc", "/slow")
            harness.wait_until(agent.poll)
            self.assertGreater(time.monotonic() - began, 0.29)


class TestReports(PeerTest):
    def test_snapshots_by_stream(self):
        self.agent.send_snapshots("t", "s", regular_stream(0, 3), metadata=[("authentication", "k")])
        self.agent.send_snapshots("t", "s", regular_stream(3, 5))
        recorded = self.peer.recorded()
        self.assertEqual([s["sequence"] for s in recorded["snapshots"]], [0, 1, 2, 3, 4])
        self.assertEqual(recorded["snapshots"][0]["stack"], ["main", "größe"])
        first, second = self.peer.streams(recorded)
        self.assertEqual([s["stream"] for s in recorded["snapshots"]],
                         [first["id"]] * 3 + [second["id"]] * 2)
        self.assertEqual((first["messages"], first["closed"], first["status"]), (3, True, "OK"))
        self.assertEqual((first["authentication"], second["authentication"]), ("k", None))

    def test_cancelled_stream(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def rows():
            yield from regular_stream(0, 2)
            go_on.wait()
        with self.assert_status(grpc.StatusCode.DEADLINE_EXCEEDED):
            self.agent.send_snapshots("t", "s", rows(), timeout=0.3)
        # The record says OK for a moment where the end of the messages is seen first.
        recorded = self.peer.wait_until(lambda r: r["calls"][0]["status"] == "CANCELLED")
        [stream] = self.peer.streams(recorded)
        self.assertEqual((stream["messages"], stream["closed"]), (2, False))

    def test_instances(self):
        self.agent.keep_alive()
        self.agent.report_properties(("ipv4", "1.2.3.4"), ("ipv4", "::1"))
        recorded = self.peer.recorded()
        self.assertEqual(recorded["keepalives"][0]["instance"], "inst")
        self.assertEqual(recorded["properties"][0]["properties"],
                         [["ipv4", "1.2.3.4"], ["ipv4", "::1"]])

    def test_profiled_segments(self):
        task = self.peer.create_task("svc", "/x")
        for name in ("listed", "unreported"):
            self.agent.send_snapshots(task, name, regular_stream(0, 3))
        self.agent.send_snapshots(task, "headless", regular_stream(1, 3))
        self.agent.send_snapshots("other", "another's", regular_stream(0, 3))
        segment = self.agent.segment
        self.agent.send_segments(segment("1", "listed", 1000, 1100),
                                 segment("2", "headless", 1000, 1100))
        self.agent.send_segments_in_sync(
            segment("3", "another's", 1000, 1100),
            segment("1", "child", 1010, 1050, "/child", parent="listed"))
        [trace] = self.peer.segments(task)
        self.assertEqual((trace["traceId"], trace["instanceName"], trace["endpointNames"],
                          trace["start"], trace["duration"]), ("1", "inst", ["/x"], "1000", 100))
        self.assertEqual([(s["segmentId"], s["profiled"], len(s["refs"])) for s in trace["spans"]],
                         [("listed", True, 0), ("child", False, 1)])
        self.assertEqual({k: v[:2] for k, v in harness.profiled_windows([trace]).items()},
                         {"listed": (1000, 1100)})
        self.assertEqual(flat(self.peer.analyze("listed", 1000, 1100)),
                         {"main": (20, 0, 3), "main größe": (20, 20, 3)})


def regular_stream(first, end):
    return [(i, 1000 + 10 * i, ["main", "größe"]) for i in range(first, end)]


class TestFaults(PeerTest):
    def test_status_and_count(self):
        self.peer.create_task("svc", "/x")
        self.peer.fail("getProfileTaskCommands", status="UNAVAILABLE", count=2)
        self.agent.finish("t")
        for _ in range(2):
            with self.assert_status(grpc.StatusCode.UNAVAILABLE):
                self.agent.poll()
        self.assertEqual(len(self.agent.poll()), 1)
        self.assertEqual(len(self.peer.recorded()["polls"]), 1)

    def test_for_ever_and_taken_back(self):
        self.peer.fail(status="UNIMPLEMENTED", count=-1)
        for call in (self.agent.poll, lambda: self.agent.finish("t"), self.agent.keep_alive):
            with self.assert_status(grpc.StatusCode.UNIMPLEMENTED):
                call()
        self.peer.fail(count=0)
        self.agent.poll()

    def test_stream_after_messages(self):
        self.peer.fail("collectSnapshot", status="RESOURCE_EXHAUSTED", after_messages=2)
        with self.assert_status(grpc.StatusCode.RESOURCE_EXHAUSTED):
            self.agent.send_snapshots("t", "s", regular_stream(0, 5))
        recorded = self.peer.recorded()
        self.assertEqual(len(recorded["snapshots"]), 2)
        [stream] = self.peer.streams(recorded)
        self.assertEqual((stream["messages"], stream["closed"], stream["status"]),
                         (2, False, "RESOURCE_EXHAUSTED"))

    def test_short_stream_fails_at_its_end(self):
        self.peer.fail("collectSnapshot", status="INTERNAL", after_messages=9)
        with self.assert_status(grpc.StatusCode.INTERNAL):
            self.agent.send_snapshots("t", "s", regular_stream(0, 5))
        self.assertTrue(self.peer.recorded()["calls"][0]["closed"])

    def test_delay(self):
        self.peer.fail("reportTaskFinish", delay_ms=200)
        began = time.monotonic()
        self.agent.finish("t")
        self.assertGreater(time.monotonic() - began, 0.19)
        self.assertEqual(len(self.peer.recorded()["finishes"]), 1)

    def test_hang(self):
        self.peer.fail(hang=True, count=2)
        with self.assert_status(grpc.StatusCode.DEADLINE_EXCEEDED):
            self.agent.poll(timeout=0.2)
        with self.assert_status(grpc.StatusCode.DEADLINE_EXCEEDED):
            self.agent.send_snapshots("t", "s", regular_stream(0, 5), timeout=0.2)
        recorded = self.peer.wait_until(lambda r: all(c["status"] for c in r["calls"]))
        self.assertEqual([c["status"] for c in recorded["calls"]], ["CANCELLED"] * 2)
        self.assertEqual((recorded["polls"], recorded["snapshots"]), ([], []))

    def test_nonsense(self):
        for fault in ({"method": "noSuch"}, {"status": "BROKEN"}, {"nubmer": 1}):
            with self.assertRaises(harness.OapError):
                self.peer.fail(**fault)


class TestHttp(PeerTest):
    def test_graphql(self):
        self.assertRegex(self.peer.version(), r"^10\.")
        reply = self.peer.request("/graphql", {"query": "query Q { v: version }"})
        self.assertEqual(list(reply["data"]), ["v"])
        for bad in ("{ noSuch }", "", 'query { getProfileTaskLogs(taskID: "1") { id } }'):
            with self.assertRaises(harness.OapError):
                self.peer.graphql(bad)
        with self.assertRaisesRegex(harness.OapError, "dumpPeriod is missing"):
            self.peer.graphql(
                "mutation ($r: X!) { createProfileTask(creationRequest: $r) { id } }",
                {"r": {"serviceId": "c3Zj.1", "endpointName": "/x", "duration": 1,
                       "minDurationThreshold": 0, "maxSamplingCount": 1}})

    def test_unknown_path(self):
        with self.assertRaisesRegex(harness.OapError, "404"):
            self.peer.request("/nothing")


class TestProcess(unittest.TestCase):
    def test_stop(self):
        for end in (lambda p: None, lambda p: p.request("/stop", {})):
            peer = harness.Peer().start()
            end(peer)
            self.assertEqual(peer.stop(), 0)

    def test_stop_in_spite_of_a_hanging_call(self):
        with harness.Peer() as peer:
            agent = Agent(peer.grpc_address)
            peer.fail(hang=True)
            failed = threading.Thread(target=self.assertRaises, args=(grpc.RpcError, agent.poll))
            failed.start()
            peer.wait_until(lambda r: r["calls"])
            self.assertEqual(peer.stop(timeout=2), 0)
            failed.join()
            agent.close()

    def test_port_in_use(self):
        with harness.Peer() as peer:
            for kind, address in (("grpc", peer.grpc_address), ("http", peer.address)):
                port = address.partition(":")[2]
                run = subprocess.run([harness.PROGRAM, "--grpc-port=0", "--http-port=0",
                                      f"--{kind}-port={port}"], capture_output=True, timeout=20)
                self.assertEqual(run.returncode, 1)

    def test_ends_with_its_parent(self):
        child = subprocess.Popen(
            ["/bin/sh", "-c", '"$0" --grpc-port=0 --http-port=0 & wait', harness.PROGRAM],
            stdout=subprocess.PIPE)
        with child.stdout as out:
            out.readline()      # it runs
            child.kill()
            child.wait()
            self.assertEqual(out.read(), b"")   # ends when the last writer has


class TestOapctl(PeerTest):
    def run_it(self, *args, status=0):
        run = subprocess.run([HERE / "oapctl", "--http", self.peer.address, *args],
                             capture_output=True, text=True, timeout=20)
        self.assertEqual(run.returncode, status, run.stderr)
        return run.stdout if status == 0 else run.stderr

    def test_all(self):
        self.assertRegex(self.run_it("version"), r"^10\.")
        task = self.run_it("task", "create", "--service=svc", "--endpoint=/x").strip()
        self.assertIn("already has", self.run_it("task", "create", "--service=svc",
                                                 "--endpoint=/x", status=1))
        self.assertIn("no profiled segment", self.run_it("tree", task, status=1))
        self.agent.poll()
        self.assertIn("NOTIFIED inst", self.run_it("task", "logs", task))
        self.agent.send_snapshots(task, "s", [
            (0, 1000, ["main", "slow"]), (1, 1010, ["main", "slow", "wait"]),
            (2, 1020, ["main", "slow", "wait"]), (3, 1030, ["main", "fast"])])
        self.agent.send_segments(self.agent.segment("1", "s", 1000, 1100))
        self.assertRegex(self.run_it("segments", task), r"^s .* 100 ms inst /x\n$")
        self.assertIn('"segmentId": "s"', self.run_it("segments", task, "--json"))
        table = (" duration ms   self ms   count  frame\n"
                 "         30        10       4  main\n"
                 "         20        10       3  ├╴slow\n"
                 "         10        10       2  │ └╴wait\n"
                 "          0         0       1  └╴fast\n")[1:]
        self.assertEqual(self.run_it("analyze", "s"), table)
        self.assertIn('"trees"', self.run_it("analyze", "s", "--start=1", "--end=9", "--json"))
        tree = self.run_it("tree", task, "--wait=5")
        self.assertRegex(tree, r"^segment s of inst\n/x: .*, 100 ms, 4 samples\n")
        self.assertTrue(tree.endswith(table))
        self.assertIn('"sequence": 3', self.run_it("recorded", "snapshots"))
        self.run_it("fail", "keepAlive", "--status=UNAVAILABLE")
        with self.assert_status(grpc.StatusCode.UNAVAILABLE):
            self.agent.keep_alive()


if __name__ == "__main__":
    unittest.main()
