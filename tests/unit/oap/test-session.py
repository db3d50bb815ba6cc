#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The session against a backend that fails as asked: what is sent, in which order, how often.

    test-session.py DRIVER [unittest's arguments]
"""

import json
import pathlib
import queue
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "peer"))

import harness  # noqa: E402

TIMEOUT_S = 30
UNTIL_FULL = "batch-interval=3600000"   # only full batches are sent
DRIVER = None


class Driver:
    """A session in a process of its own, see session-driver.c."""

    def __init__(self, server, *settings):
        self.tasks = []
        self._answers = queue.Queue()
        self._process = subprocess.Popen([DRIVER, server, *settings], text=True, bufsize=1,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE)
        self.log = []
        self._threads = [threading.Thread(target=self._read),
                         threading.Thread(target=self._read_log)]
        for thread in self._threads:
            thread.start()

    def _read(self):
        for line in self._process.stdout:
            words = line.split()
            if words[0] == "task":
                self.tasks.append(words[1:])
            else:
                self._answers.put(line.strip())

    def _read_log(self):
        for line in self._process.stderr:
            self.log.append(line.rstrip())

    def do(self, *words):
        """Return: the answer."""
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        return self._answers.get(timeout=TIMEOUT_S)

    def status(self):
        return json.loads(self.do("status"))

    def wait_status(self, **wanted):
        """Return: the first status that has these values."""
        def check():
            status = self.status()
            return status if wanted.items() <= status.items() else None
        return harness.wait_until(check, TIMEOUT_S)

    def wait_logged(self, text):
        """Return: how many lines have it, at least one."""
        return harness.wait_until(lambda: sum(text in line for line in self.log), TIMEOUT_S)

    def snapshots(self, segment, times, stack="main work", task="t"):
        """Return: how many were taken."""
        return sum(self.do("snapshot svc inst", task, segment, t, stack) == "taken" for t in times)

    def quit(self):
        self._process.stdin.write("quit\n")
        self._process.stdin.close()
        status = self._process.wait(TIMEOUT_S)
        for thread in self._threads:
            thread.join()
        self._process.stdout.close()
        self._process.stderr.close()
        return status


def sent(recorded):
    """The snapshots that came: (segment, sequence, time)."""
    return [(s["segmentId"], s["sequence"], s["time"]) for s in recorded["snapshots"]]


def without_polls(recorded):
    """The methods that were called, in order."""
    methods = [c["method"] for c in recorded["calls"]]
    return [m for m in methods if m != "getProfileTaskCommands"]


class Session(unittest.TestCase):
    def setUp(self):
        self.peer = harness.Peer().start()
        self.drivers = []

    def tearDown(self):
        try:
            for driver in self.drivers:
                status = driver.quit()
                self.assertEqual(status, 0, driver.log)
        finally:
            self.peer.stop()

    def driver(self, *settings, server=None):
        driver = Driver(server or self.peer.grpc_address, "random=50", *settings)
        self.drivers.append(driver)
        return driver

    def ready_driver(self, *settings):
        """One whose session has spoken to the peer, and whose next call is to come."""
        driver = self.driver("poll=20", *settings)
        driver.do("attach svc inst")
        driver.wait_status(state="ready")
        driver.do("active 0")
        return driver

    def streams(self, recorded):
        """The numbers of messages of the snapshot streams, and how they ended."""
        return [(c["messages"], c["status"]) for c in harness.Peer.streams(recorded)]

    # ---- polls ----

    def test_tasks_come(self):
        first = self.peer.inject_task("svc", endpointName="/slow", createTime=5000)
        driver = self.driver("poll=50")
        driver.do("attach svc inst")
        harness.wait_until(lambda: driver.tasks, TIMEOUT_S)
        second = self.peer.inject_task("svc", endpointName="/other", createTime=7000)
        harness.wait_until(lambda: len(driver.tasks) > 1, TIMEOUT_S)
        recorded = self.peer.wait_until(
            lambda r: r["polls"][-1]["lastCommandTime"] == 7000, TIMEOUT_S)
        self.assertEqual(driver.tasks, [["svc", "inst", first, "/slow", "5000"],
                                        ["svc", "inst", second, "/other", "7000"]])
        times = [p["lastCommandTime"] for p in recorded["polls"]]
        self.assertEqual(times[0], -1)
        self.assertEqual(times, sorted(times))
        self.assertEqual({(p["service"], p["instance"]) for p in recorded["polls"]},
                         {("svc", "inst")})
        driver.wait_logged("is ready")

    def test_each_attached_instance_is_polled(self):
        driver = self.driver("poll=50")
        for i in range(20):
            driver.do("attach svc", i)
        driver.do("detach svc 7")
        self.peer.wait_until(lambda r: {p["instance"] for p in r["polls"]}
                             >= {str(i) for i in range(20)} - {"7"}, TIMEOUT_S)
        for i in range(20):
            if i != 7:
                driver.do("detach svc", i)
        # Polls under way may still come; then there is silence.
        driver.wait_status(idle=True)
        driver.do("attach svc last")
        recorded = self.peer.wait_until(
            lambda r: [p["instance"] for p in r["polls"][-20:]] == ["last"] * 20, TIMEOUT_S)
        self.assertNotIn("7", {p["instance"] for p in recorded["polls"]})

    def test_no_polls_while_inactive(self):
        driver = self.driver("poll=20")
        driver.do("active 0")
        driver.do("attach svc inst")
        self.assertEqual(driver.snapshots("p", [1]), 1)
        # The stream goes out; a poll would have come before.
        self.peer.wait_until(lambda r: r["snapshots"], TIMEOUT_S)
        self.assertEqual(self.peer.recorded()["polls"], [])
        driver.do("active 1")
        self.peer.wait_until(lambda r: r["polls"], TIMEOUT_S)

    def test_instance_goes_while_polled(self):
        self.peer.fail("getProfileTaskCommands", hang=True)
        driver = self.driver("poll=20")
        driver.do("attach svc inst")
        self.peer.wait_until(lambda r: r["calls"], TIMEOUT_S)
        driver.do("detach svc inst")
        driver.do("attach svc inst")
        self.peer.wait_until(lambda r: r["polls"], TIMEOUT_S)

    def test_instance_goes_with_the_first_of_its_tasks(self):
        first = self.peer.inject_task("svc", endpointName="/leave", createTime=5000)
        self.peer.inject_task("svc", endpointName="/other", createTime=7000)
        driver = self.driver("poll=20")
        driver.do("attach svc inst")
        driver.wait_status(state="ready")
        self.assertEqual([t[2] for t in driver.tasks], [first])

    def test_deadline(self):
        self.peer.fail("getProfileTaskCommands", hang=True)
        driver = self.driver("poll=20", "deadline=300")
        driver.do("attach svc inst")
        self.peer.wait_until(lambda r: r["polls"], TIMEOUT_S)
        driver.wait_logged("DEADLINE_EXCEEDED")
        driver.wait_status(state="ready")

    def test_heartbeats(self):
        driver = self.driver("heartbeat=20")
        driver.do("attach svc inst")
        driver.do("attach-agent svc other")
        recorded = self.peer.wait_until(lambda r: len(r["properties"]) > 1, TIMEOUT_S)
        methods = without_polls(recorded)
        self.assertEqual(methods[:11], ["reportInstanceProperties"] + ["keepAlive"] * 9
                         + ["reportInstanceProperties"])
        for record in recorded["properties"] + recorded["keepalives"]:
            self.assertEqual((record["service"], record["instance"]), ("svc", "inst"))
        self.assertIn("OS Name", dict(recorded["properties"][0]["properties"]))

    # ---- snapshots ----

    def test_order(self):
        driver = self.ready_driver("batch=10", UNTIL_FULL)
        for t in range(50):
            driver.snapshots("p", [t])
            driver.snapshots("q", [t])
        driver.do("finish svc inst t")
        recorded = self.peer.wait_until(lambda r: r["finishes"], TIMEOUT_S)
        self.assertEqual(sent(recorded),
                         [(segment, t, t) for t in range(50) for segment in "pq"])
        self.assertEqual(recorded["snapshots"][0]["stack"], ["main", "work"])
        self.assertTrue(all(s == "OK" and n <= 10 for n, s in self.streams(recorded)))
        status = driver.wait_status(idle=True)
        self.assertEqual(status["snapshots_sent"], 100)
        self.assertEqual(len(self.peer.recorded()["finishes"]), 1)

    def test_batch_waits_for_the_interval_unless_flushed(self):
        driver = self.ready_driver(UNTIL_FULL)
        driver.snapshots("p", range(5))
        self.assertFalse(driver.status()["idle"])
        driver.do("flush")
        driver.wait_status(idle=True)
        recorded = self.peer.recorded()
        self.assertEqual(self.streams(recorded), [(5, "OK")])
        self.assertEqual(len(recorded["snapshots"]), 5)

    def test_finish_after_the_last_stream(self):
        self.peer.fail("collectSnapshot", after_messages=5, delay_ms=300)
        driver = self.ready_driver()
        driver.snapshots("p", range(5))
        driver.do("finish svc inst t")
        recorded = self.peer.wait_until(lambda r: r["finishes"], TIMEOUT_S)
        methods = without_polls(recorded)
        self.assertEqual(methods, ["collectSnapshot", "reportTaskFinish"])
        self.assertEqual(self.streams(recorded), [(5, "OK")])

    def test_finish_is_repeated_until_taken(self):
        self.peer.fail("reportTaskFinish", status="UNAVAILABLE", count=3)
        driver = self.ready_driver()
        driver.do("finish svc inst t")
        driver.do("finish svc inst u")
        recorded = self.peer.wait_until(lambda r: len(r["finishes"]) > 1, TIMEOUT_S)
        driver.wait_status(idle=True, state="ready")
        self.assertEqual([f["taskId"] for f in recorded["finishes"]], ["t", "u"])

    def test_trace_segment_follows_its_snapshots(self):
        driver = self.ready_driver()
        driver.snapshots("p", range(5))
        driver.do("segment svc inst p /slow 1000 2000")
        driver.do("segment svc inst sub work 1100 1900 p")
        recorded = self.peer.wait_until(lambda r: len(r["segments"]) == 2, TIMEOUT_S)
        by_id = {s["traceSegmentId"]: s for s in recorded["segments"]}
        self.assertEqual(by_id["p"]["spans"][0]["operationName"], "/slow")
        self.assertEqual(by_id["sub"]["traceId"], "p")
        methods = [c["method"] for c in recorded["calls"]]
        # The one without snapshots here may have gone at once.
        self.assertLess(methods.index("collectSnapshot"),
                        len(methods) - 1 - methods[::-1].index("collect"))
        self.assertEqual(driver.wait_status(idle=True)["trace_segments_sent"], 2)

    # ---- failures ----

    def test_server_away_and_back(self):
        port = int(self.peer.grpc_address.rpartition(":")[2])
        self.peer.stop()
        driver = self.driver("poll=50")
        driver.do("attach svc inst")
        driver.wait_status(state="failing")
        for i in range(100):
            driver.snapshots("p", [i])
        driver.do("segment svc inst p /slow 1000 2000")
        driver.do("finish svc inst t")
        self.assertEqual(driver.status()["buffered"], 100)
        self.peer = harness.Peer(grpc_port=port).start()
        recorded = self.peer.wait_until(lambda r: r["finishes"] and r["segments"], TIMEOUT_S)
        self.assertEqual(sent(recorded), [("p", t, t) for t in range(100)])
        status = driver.wait_status(state="ready", idle=True)
        self.assertEqual(status["snapshots_sent"], 100)
        self.assertEqual(len(self.peer.recorded()["finishes"]), 1)
        self.assertEqual(driver.wait_logged("is failing"), 1, driver.log)
        self.assertEqual(driver.wait_logged("is ready"), 1, driver.log)

    def test_stream_fails_midway(self):
        driver = self.ready_driver("batch=10", UNTIL_FULL)
        self.peer.fail("collectSnapshot", status="INTERNAL", after_messages=5)
        driver.snapshots("p", range(30))
        driver.do("finish svc inst t")
        recorded = self.peer.wait_until(lambda r: r["finishes"], TIMEOUT_S)
        # The rest of that stream may not have been read; nothing comes twice, and the order holds.
        lost = [s for s in sent(recorded) if s[2] < 10]
        self.assertEqual(lost, [("p", t, t) for t in range(5)])
        self.assertEqual(sent(recorded)[5:], [("p", t, t) for t in range(10, 30)])
        streams = self.streams(recorded)
        self.assertEqual([s for _, s in streams], ["INTERNAL", "OK", "OK", "OK"])
        self.assertEqual([n for n, s in streams if s == "OK"], [0, 10, 10])
        status = driver.wait_status(state="ready", idle=True)
        self.assertEqual((status["snapshots_ambiguous"], status["snapshots_sent"]), (10, 20))

    def test_resource_exhausted(self):
        driver = self.ready_driver("batch=10", UNTIL_FULL)
        self.peer.fail("collectSnapshot", status="RESOURCE_EXHAUSTED", count=4)
        driver.snapshots("p", range(30))
        driver.do("finish svc inst t")
        recorded = self.peer.wait_until(lambda r: r["finishes"], TIMEOUT_S)
        # What was in the first stream may have been stored, unless it was refused before it got
        # so far. The others asked before they sent.
        status = driver.wait_status(state="ready", idle=True)
        lost = status["snapshots_ambiguous"]
        self.assertIn(lost, (0, 10))
        self.assertEqual(status["snapshots_sent"], 30 - lost)
        self.assertEqual([s[2] for s in sent(recorded)], list(range(lost, 30)))
        self.assertEqual([s[1] for s in sent(recorded)], list(range(lost, 30)))
        self.assertEqual([n for n, _ in self.streams(recorded)][1:5], [0, 0, 0, 0])

    def test_refused(self):
        for status in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
            with self.subTest(status):
                self.peer.reset()
                driver = self.ready_driver()
                self.peer.fail("collectSnapshot", status=status, count=3)
                driver.snapshots("p", range(30))
                driver.do("segment svc inst p /slow 1000 2000")
                driver.do("finish svc inst t")
                recorded = self.peer.wait_until(
                    lambda r: r["finishes"] and r["segments"], TIMEOUT_S)
                self.assertEqual(sent(recorded), [("p", t, t) for t in range(30)])
                self.assertEqual(driver.wait_status(idle=True)["snapshots_sent"], 30)
                self.assertEqual(driver.wait_logged("oap.authentication"), 1, driver.log)

    def test_snapshots_unimplemented(self):
        driver = self.ready_driver("batch=10", UNTIL_FULL)
        self.peer.fail("collectSnapshot", status="UNIMPLEMENTED", count=-1)
        driver.snapshots("p", range(30))
        status = driver.wait_status(state="unsupported", buffered=0)
        self.assertEqual(status["snapshots_unsupported"] + status["snapshots_sent"], 30)
        self.assertEqual(driver.do("snapshot svc inst t p 99 main"), "refused")
        # And no polls, even for one who comes now.
        before = len(self.peer.recorded()["polls"])
        driver.do("active 1")
        driver.do("attach svc other")
        driver.do("flush")
        self.assertEqual(len(self.peer.recorded()["polls"]), before)
        self.assertEqual(driver.wait_logged("no trace profiling"), 1, driver.log)

    def test_polls_unimplemented(self):
        self.peer.fail("getProfileTaskCommands", status="UNIMPLEMENTED", count=-1)
        driver = self.driver("poll=20")
        driver.do("attach svc inst")
        driver.wait_status(state="unsupported")
        self.assertEqual(driver.do("snapshot svc inst t p 99 main"), "refused")
        self.assertEqual(len([c for c in self.peer.recorded()["calls"]]), 1)

    def test_trace_segments_unimplemented(self):
        driver = self.ready_driver()
        self.peer.fail("collect", status="UNIMPLEMENTED", count=-1)
        driver.snapshots("p", range(5))
        driver.do("segment svc inst p /slow 1000 2000")
        status = driver.wait_status(idle=True, trace_segments_lost=1)
        self.assertEqual(status["state"], "ready")
        self.assertEqual(driver.snapshots("q", range(5)), 5)
        driver.do("segment svc inst q /slow 1000 2000")
        self.assertEqual(driver.wait_status(idle=True)["trace_segments_lost"], 2)

    def test_trace_segments_at_most_once(self):
        driver = self.ready_driver()
        self.peer.fail("collect", status="INTERNAL", after_messages=1)
        driver.do("segment svc inst p /slow 1000 2000")
        driver.wait_status(trace_segments_lost=1)
        driver.do("segment svc inst q /slow 1000 2000")
        recorded = self.peer.wait_until(lambda r: len(r["segments"]) > 1, TIMEOUT_S)
        self.assertEqual([s["traceSegmentId"] for s in recorded["segments"]], ["p", "q"])

    def test_buffer_full(self):
        self.peer.fail("collectSnapshot", status="UNAVAILABLE", after_messages=1, count=-1)
        driver = self.ready_driver("buffer=4000")
        driver.snapshots("first", [0])
        driver.wait_status(state="failing", buffered=0)   # from now on streams ask first
        taken = driver.snapshots("p", range(1000))
        self.assertEqual(taken, 1000)   # all of one stack: thinned as often as it takes
        self.assertEqual(driver.do("snapshot svc inst t q 1 main", "x" * 3000), "refused")
        status = driver.status()
        self.assertGreater(status["snapshots_thinned"], 900)
        self.assertEqual(status["snapshots_dropped"], 1)
        self.peer.fail("collectSnapshot", count=0)
        recorded = self.peer.wait_until(lambda r: sent(r) and sent(r)[-1][2] == 999, TIMEOUT_S)
        came = [s for s in sent(recorded) if s[0] == "p"]
        self.assertEqual([s[1] for s in came], list(range(len(came))))
        self.assertEqual(came[0][2], 0)
        self.assertEqual([s[2] for s in came], sorted(s[2] for s in came))

    # ---- the end ----

    def test_freed_with_everything_under_way(self):
        driver = self.ready_driver()
        for method in ("getProfileTaskCommands", "collectSnapshot", "collect", "reportTaskFinish"):
            self.peer.fail(method, hang=True)
        driver.do("active 1")
        driver.snapshots("p", range(50))
        driver.do("segment svc inst q /slow 1000 2000")
        driver.do("finish svc inst u")
        driver.do("finish svc inst t")
        self.peer.wait_until(lambda r: len({c["method"] for c in r["calls"] if not c["status"]})
                             == 4, TIMEOUT_S)
        driver.snapshots("p", range(50))
        begin = time.monotonic()
        self.drivers.remove(driver)
        self.assertEqual(driver.quit(), 0, driver.log)
        # Not the calls' deadline of 5 s, and what was not delivered is told.
        self.assertLess(time.monotonic() - begin, 4)
        self.assertEqual(driver.wait_logged("100 snapshots"), 1, driver.log)

    def test_freed_while_the_server_sleeps(self):
        driver = self.ready_driver()
        self.peer.pause()
        driver.snapshots("p", range(50), "main " + "x" * 800)
        driver.do("flush")
        begin = time.monotonic()
        self.drivers.remove(driver)
        self.assertEqual(driver.quit(), 0, driver.log)
        self.assertLess(time.monotonic() - begin, 4)
        self.assertEqual(driver.wait_logged("50 snapshots"), 1, driver.log)

    def test_freed_without_a_server(self):
        driver = self.driver(server="127.0.0.1:1")
        driver.do("attach svc inst")
        driver.snapshots("p", range(50))
        driver.wait_status(state="failing")


if __name__ == "__main__":
    DRIVER = sys.argv.pop(1)
    unittest.main()
