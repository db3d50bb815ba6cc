# SPDX-License-Identifier: Apache-2.0
"""The rules of tasks and segments, end to end."""

import os
import socket
import subprocess
import tempfile
import time
import unittest

from swprofd_test import BUILD, SLOW, SwprofdTest, wait_until


class Rules(SwprofdTest):
    daemon_config = "profile:\n  max_parallel: 1\n"

    def test_slow_among_fast(self):
        """Fifty fast requests and one slow one: the slow one is profiled, from its first 100 ms on."""
        period_ms = 10 * SLOW
        self.peer.create_task("crowd", "/mixed", threshold=200 * SLOW, period=period_ms, count=9)
        [t] = self.program("crowd", "crowd", "one", 50, SLOW).finish()
        got = self.settled_snapshots(t["segment"])
        self.assert_contiguous(got)
        # On a busy machine samples come late, and some are lost; none of the first would come without being held back.
        self.assertLess(got[0]["time"] - t["start"], 100 * SLOW)
        self.assertGreaterEqual(len(got), 40)
        self.assertGreaterEqual(sum("slow_first" in " ".join(s["stack"]) for s in got), 4)
        others = {}
        for s in self.peer.recorded()["snapshots"]:
            others.setdefault(s["segmentId"], []).append(s["time"])
        del others[t["segment"]]
        self.assertEqual({}, {k: max(v) - min(v) for k, v in others.items()})


class Late(SwprofdTest):
    def start_daemon(self):
        pass

    def test_daemon_starts_late(self):
        """Most of a 1-minute task is over: the rest is run, to the end of the task, and reported once."""
        begin = time.time()
        self.peer.inject_task("late", taskId="late.1", endpointName="/late", duration=1, dumpPeriod=50,
                              minDurationThreshold=0, maxSamplingCount=3,
                              startTime=int(begin * 1000) - 52000, createTime=int(begin * 1000) - 52000)
        self.daemon.start()
        program = self.program("idle", "late", "one", "/late", "span")
        program.line()
        segment = program.line()["segment"]
        recorded = self.peer.wait_until(lambda r: r["finishes"], 40)
        self.assertAlmostEqual(time.time() - begin, 8, delta=3)
        self.assertEqual(len(recorded["finishes"]), 1)
        got = self.settled_snapshots(segment)
        self.assert_contiguous(got)
        self.assertLessEqual(got[-1]["time"], int(begin * 1000) + 8000)
        self.assertGreaterEqual(got[-1]["time"], int(begin * 1000) + 7000)

    def test_daemon_starts_after_the_end(self):
        now = int(time.time() * 1000)
        self.peer.inject_task("over", taskId="over.1", endpointName="/over", duration=1, dumpPeriod=50,
                              minDurationThreshold=0, maxSamplingCount=3, startTime=now - 90000,
                              createTime=now - 90000)
        self.daemon.start()
        program = self.program("idle", "over", "one", "/over")
        program.line()
        self.peer.wait_until(lambda r: r["finishes"], 20)
        # Some more polls: it is neither run nor reported again.
        polls = len(self.peer.recorded()["polls"])
        recorded = self.peer.wait_until(lambda r: len(r["polls"]) >= polls + 2, 20)
        self.assertEqual(len(recorded["finishes"]), 1)
        self.assertEqual(self.daemon.status()["tasks"], [])


class Stop(SwprofdTest):
    def test_stop_delivers_live_segments(self):
        self.peer.create_task("live", "/live", period=10)
        program = self.program("idle", "live", "one", "/live", "span")
        program.line()
        segment = program.line()["segment"]
        wait_until(lambda: any(int(s["captured"]) > 50 for s in self.daemon.status()["slots"]), 15, "samples")
        before = time.time()
        self.assertLess(self.daemon.stop(), 2 * SLOW)
        got = self.snapshots(segment)
        self.assert_contiguous(got)
        self.assertGreaterEqual(len(got), 50)
        # What was taken until the stop, not only what an earlier batch had.
        self.assertGreaterEqual(got[-1]["time"], before * 1000 - 30 * SLOW)

    def test_stop_while_the_backend_hangs(self):
        """Its calls have a deadline of 30 s: the daemon does not wait for that, and says what is lost."""
        self.peer.create_task("hang", "/hang", period=10)
        program = self.program("idle", "hang", "one", "/hang", "span")
        program.line()
        program.line()
        wait_until(lambda: any(int(s["captured"]) > 20 for s in self.daemon.status()["slots"]), 15, "samples")
        self.peer.pause()
        # 1.8 s, and some for the process to end: below the unit's TimeoutStopSec.
        self.assertLess(self.daemon.stop(), 4 * SLOW)
        self.assertRegex(self.daemon.log(), r"Not delivered at the end: [1-9]\d* snapshots")

    def test_thread_ends_without_stop(self):
        """A killed process: its slot is free, what was captured is delivered."""
        self.peer.create_task("killed", "/killed", period=10)
        program = self.program("idle", "killed", "one", "/killed", "span")
        program.line()
        segment = program.line()["segment"]
        wait_until(lambda: any(int(s["captured"]) > 30 for s in self.daemon.status()["slots"]), 15, "samples")
        program.kill()
        got = self.settled_snapshots(segment)
        self.assertGreaterEqual(len(got), 30)
        self.assert_contiguous(got)
        self.assertEqual(self.daemon.status()["instances"][0]["clients"] if self.daemon.status()["instances"] else 0, 0)


class Idle(unittest.TestCase):
    def test_watchdog_is_fed(self):
        """Also by a daemon to which nothing happens: no client, no OAP."""
        with tempfile.TemporaryDirectory(prefix="swprofd-test.") as folder, \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(f"{folder}/notify")
            notify.settimeout(20)
            env = dict(os.environ, NOTIFY_SOCKET=f"{folder}/notify", WATCHDOG_USEC="1000000")
            env.pop("WATCHDOG_PID", None)
            with open(f"{folder}/swprofd.yaml", "w") as config:
                config.write(f"span_socket: {folder}/span\ncontrol_socket: {folder}/control\n"
                             f"state_dir: {folder}/state\n")
            daemon = subprocess.Popen([BUILD / "daemon/swprofd", f"--config={folder}/swprofd.yaml", "--oap="], env=env,
                                      stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self.assertIn(b"READY=1", notify.recv(4096))
                for _ in range(3):
                    self.assertEqual(b"WATCHDOG=1", notify.recv(4096))
            finally:
                daemon.terminate()
                self.assertEqual(daemon.wait(20), 0)


if __name__ == "__main__":
    unittest.main()
