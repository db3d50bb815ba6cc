# SPDX-License-Identifier: Apache-2.0
"""The daemon and the backend end and come back amid a task: nothing is sent twice, and all in sequence.

SWPROFD_TEST_KILLS: how many times the daemon is killed (100 for the full test).
SWPROFD_TEST_OUTAGE: for how many seconds the backend is away (600 for the full test).
SWPROFD_TEST_BRIEF: if set, it is for 8 seconds, not for 60.
"""

import os
import random
import select
import socket
import sys
import threading
import time

from swprofd_test import SwprofdTest, main, wait_until

OPERATION = "/life"
THRESHOLD_MS = 100
KILLS = int(os.environ.get("SWPROFD_TEST_KILLS", "5"))
OUTAGE_S = float(os.environ.get("SWPROFD_TEST_OUTAGE", "8" if "SWPROFD_TEST_BRIEF" in os.environ else "60"))


class Way:
    """Between the daemon and its backend; it can be cut."""

    def __init__(self, backend):
        host, port = backend.split(":")
        self._backend = (host, int(port))
        self._pairs = []
        self._lock = threading.Lock()
        self._listener = None
        self._moved = time.monotonic()
        self.port = 0
        self.open()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def open(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._backend)
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()

    def _pump(self, near, far):
        other = {near: far, far: near}
        try:
            while True:
                for s in select.select([near, far], [], [])[0]:
                    data = s.recv(65536)
                    if not data:
                        return
                    self._moved = time.monotonic()
                    other[s].sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            near.close()
            far.close()

    def cut(self, quiet_s=0):
        """As if the backend had been killed. `quiet_s`: when nothing has passed for so long."""
        wait_until(lambda: time.monotonic() - self._moved >= quiet_s, 30, "silence")
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for pair in self._pairs:
                for s in pair:
                    try:
                        s.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            self._pairs = []


class Restart(SwprofdTest):
    daemon_config = "profile:\n  max_parallel: 9\n"

    def start_oap(self):
        super().start_oap()
        self.way = Way(self.peer.grpc_address)
        self.addCleanup(self.way.cut)

    def start_daemon(self):
        self.daemon.oap = self.way.address
        super().start_daemon()

    def steady(self, service, instance="one", n=1):
        """A program with n spans that last until its input ends. Return: it and their segments."""
        program = self.program("steady", service, instance, OPERATION, n)
        return program, [program.line()["segment"] for _ in range(n)]

    def restart(self):
        self.daemon.kill()
        self.daemon.start()

    def received(self):
        """By (task, segment): all in sequence, in order, none twice."""
        found = {}
        for s in self.peer.recorded()["snapshots"]:
            found.setdefault((s["taskId"], s["segmentId"]), []).append(s)
        for snapshots in found.values():
            self.assert_contiguous(snapshots)
        return found

    def assert_finished_once(self, task):
        wait_until(lambda: [f for f in self.peer.recorded()["finishes"] if f["taskId"] == task], 90,
                   "the end of the task")

    def wait_resumed(self):
        """Return: whether the segment goes on; it does not if a batch of it was under way."""
        def decided():
            c = self.daemon.counters()
            return c["segments_resumed"] or c["snapshots_ambiguous"]
        wait_until(decided, 30, "the segment to be announced again")
        return self.daemon.counters()["segments_resumed"] > 0

    def test_daemon_is_killed(self):
        """At random moments: the task is resumed, and its segment goes on where it was."""
        def start(n_before):
            service = f"killed-{n_before // 9}"
            if n_before % 9 == 0:   # as many as a task takes
                self.peer.create_task(service, OPERATION, period=10, duration=15, count=9, threshold=THRESHOLD_MS)
            return self.steady(service)
        program, [segment] = start(0)
        kills, n_ended, n_late = [], 0, 0
        for _ in range(KILLS):
            n = len(self.snapshots(segment))
            self.snapshots(segment, wait=lambda s: len(s) > n)
            time.sleep(random.uniform(0, 0.7))
            n_late += self.daemon.counters()["samples_late"]
            kills.append(time.time() * 1000)
            self.restart()
            self.assertEqual({task["state"] for task in self.daemon.status()["tasks"]}, {"running"})
            if not self.wait_resumed():
                n_ended += 1
                program.kill()
                program, [segment] = start(n_ended)
        n = len(self.snapshots(segment))
        self.snapshots(segment, wait=lambda s: len(s) > n)
        program.finish()
        self.settled_snapshots(segment)
        n_late += self.daemon.counters()["samples_late"]
        found = self.received()
        self.assertEqual(len(found), 1 + n_ended)
        # Time without snapshots is time when nobody ran, or is known as lost on a busy machine.
        unexplained_ms = 0
        for snapshots in found.values():
            times = [s["time"] for s in snapshots]
            for before, after in zip(times, times[1:]):
                if after - before > 500 and not any(before <= kill <= after for kill in kills):
                    unexplained_ms += after - before
        self.assertLessEqual(unexplained_ms, 10 * n_late)
        print(f"{KILLS} kills, {n_ended} amid a stream, {sum(map(len, found.values()))} snapshots", file=sys.stderr)

    def crowd(self, service, n_programs=10, n_spans=5, period=100):
        """Return: programs, and all their segments."""
        self.peer.create_task(service, OPERATION, period=period, duration=15, count=n_spans,
                              threshold=THRESHOLD_MS)
        programs, segments = [], []
        for i in range(n_programs):
            program, ids = self.steady(service, f"instance {i}", n_spans)
            programs.append(program)
            segments += ids
        for segment in segments:
            self.snapshots(segment, wait=len)
        return programs, segments

    def all_sent(self, programs):
        for program in programs:
            program.finish()
        def sent():
            status = self.daemon.status()
            return not status["slots"] and int(status["oap"]["buffered_snapshots"]) == 0
        wait_until(sent, 60, "all to be sent")

    def test_outage(self):
        """The backend is away: what is sampled then goes to the disk, and is sent when it is back."""
        programs, segments = self.crowd("outage")
        self.way.cut(quiet_s=0.06)
        begin = time.time() * 1000
        time.sleep(OUTAGE_S / 2)
        wait_until(lambda: int(self.daemon.status()["store"]["snapshots"]) > 0, 30, "snapshots on disk")
        time.sleep(OUTAGE_S / 2)
        end = time.time() * 1000
        self.way.open()
        self.all_sent(programs)
        c = self.daemon.counters()
        found = self.received()
        self.assertEqual({segment for _, segment in found}, set(segments))
        self.assertEqual(sum(map(len, found.values())), c["snapshots_queued"], c)
        for loss in ("ambiguous", "dropped", "thinned", "kept_over", "kept_lost"):
            self.assertEqual(c[f"snapshots_{loss}"], 0, loss)
        for snapshots in found.values():
            self.assertTrue(any(begin < s["time"] < end for s in snapshots))
        print(f"away for {(end - begin) / 1000:.0f} s: {sum(map(len, found.values()))} snapshots of {len(found)} segments,"
              f" {c['snapshots_kept']} of them were on disk", file=sys.stderr)

    def test_killed_during_an_outage(self):
        """What is on disk is sent by the next daemon; what the spans do then is told by their clients again."""
        programs, segments = self.crowd("both", n_programs=4, n_spans=3)
        self.way.cut(quiet_s=0.06)
        for _ in range(2):
            n = self.kept()
            wait_until(lambda: self.kept() > n, 30, "snapshots on disk")
            self.restart()
            self.assertGreater(self.kept(), n)
        wait_until(lambda: self.daemon.counters()["segments_resumed"] == len(segments), 30, "all segments")
        n = self.kept()
        self.way.open()
        self.all_sent(programs)
        found = self.received()
        self.assertEqual({segment for _, segment in found}, set(segments))
        c = self.daemon.counters()
        self.assertGreaterEqual(sum(map(len, found.values())), n + c["snapshots_queued"] * 0.9)
        self.assertEqual(c["snapshots_ambiguous"], 0)
        self.assertEqual(c["snapshots_kept_lost"], 0)
        self.assertEqual(self.kept(), 0)

    def kept(self):
        return int(self.daemon.status()["store"]["snapshots"])

    def test_task_ends_while_nobody_runs(self):
        """Its end is reported once, by the next daemon; one after that neither takes it up nor reports it again."""
        end = time.time() + 20
        task = self.peer.create_task("ends", OPERATION, period=50, duration=1, threshold=THRESHOLD_MS,
                                     start=int((end - 60) * 1000))
        program, [segment] = self.steady("ends")
        self.snapshots(segment, wait=len)
        wait_until(lambda: time.time() > end - 3, 90, "the end to be near")
        self.daemon.kill()
        wait_until(lambda: time.time() > end + 0.5, 30, "the end")
        self.daemon.start()
        wait_until(lambda: self.peer.recorded()["finishes"], 30, "the finish")
        wait_until(lambda: self.daemon.counters()["clients_accepted"], 30, "the client")
        polls = len(self.polls())
        self.restart()
        wait_until(lambda: len(self.polls()) > polls + 1, 30, "polls")
        self.assertEqual(self.daemon.status()["tasks"], [])
        self.assertEqual([f["taskId"] for f in self.peer.recorded()["finishes"]], [task])
        program.finish()
        self.received()

    def polls(self):
        return [c for c in self.peer.recorded()["calls"] if c["method"] == "getProfileTaskCommands"]

    def test_broken_database(self):
        self.daemon.kill()
        database = self.folder / "state" / "swprofd.db"
        for name in ("swprofd.db-wal", "swprofd.db-shm"):
            (self.folder / "state" / name).unlink(missing_ok=True)
        database.write_bytes(b"something else" * 1000)
        self.daemon.start()
        self.assertTrue(database.with_name("swprofd.db.broken").exists())
        store = self.daemon.status()["store"]
        self.assertEqual(store["state"], "ready")
        self.assertIn("begun anew", store["error"])
        self.assertEqual(self.daemon.log().count("swprofd.db was of no use"), 1)

    def test_no_database(self):
        """The directory cannot be written: all is as it was before there was a database."""
        self.daemon.kill()
        state = self.folder / "state"
        state.rename(self.folder / "elsewhere")
        state.write_text("")   # no directory
        self.daemon.start()
        store = self.daemon.status()["store"]
        self.assertEqual(store["state"], "memory")
        self.assertTrue(store["error"])
        self.assertIn("memory only", self.daemon.ctl("status").stdout)
        self.peer.create_task("none", OPERATION, period=50, threshold=THRESHOLD_MS)
        program, [segment] = self.steady("none")
        self.snapshots(segment, wait=lambda s: len(s) > 5)
        program.finish()
        self.settled_snapshots(segment)
        self.received()


if __name__ == "__main__":
    main(3, first=["Restart.test_outage"])
