# SPDX-License-Identifier: Apache-2.0
"""Segments that wait on no thread, by the protocol alone: this test is the client."""

import socket
import threading
import time
import unittest

from swprofd_test import SwprofdTest, tree_durations, wait_until


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


class Parked(SwprofdTest):
    def setUp(self):
        super().setUp()
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.connection.close)
        self.connection.connect(self.daemon.span_socket)
        self.tell(1, field(1, 1), field(2, "parked"), field(3, "one"))

    def tell(self, number, *fields):
        self.connection.send(field(number, b"".join(fields)))

    def start(self, segment, operation, tid=None):
        self.tell(2, field(1, segment), field(2, operation), field(3, threading.get_native_id() if tid is None else tid),
                  field(4, time.monotonic_ns()))

    def park(self, segment, *stack):
        self.tell(6, field(1, segment), field(3, time.monotonic_ns()), *(field(4, s) for s in stack))

    def go_on(self, segment):
        self.tell(6, field(1, segment), field(2, threading.get_native_id()), field(3, time.monotonic_ns()))

    def stop(self, segment):
        self.tell(4, field(1, segment), field(2, time.monotonic_ns()))

    def test_waits(self):
        """What others do on the thread meanwhile is not its own, and each wait has its length."""
        self.peer.create_task("parked", "/parked", period=10, count=9)
        wait_until(lambda: self.daemon.status()["tasks"], 15, "the task")
        begin = int(time.time() * 1000)
        self.start("x", "/parked")
        self.start("y", "/parked", tid=0)
        truth = {"x": [], "y": []}
        for n in range(3):
            for mine, other in (("x", "y"), ("y", "x")):
                self.park(mine, "root", f"{mine}.wait: {n}")
                parked = time.monotonic_ns()
                self.go_on(other)
                time.sleep(0.123)
                self.park(other, "root", f"{other}.between: {n}")
                self.go_on(mine)
                truth[mine].append((time.monotonic_ns() - parked) / 1e6)
        self.stop("x")
        self.stop("y")
        end = int(time.time() * 1000)
        for segment in truth:
            got = self.settled_snapshots(segment)
            self.assert_contiguous(got)
            nodes = tree_durations(self.peer, segment, begin, end + 1)
            for n, ms in enumerate(truth[segment]):
                [node] = nodes[f"{segment}.wait: {n}"]
                self.assertAlmostEqual(node["duration"], ms, delta=2)
                inside = [s for s in got if s["stack"] == ["root", f"{segment}.wait: {n}"]]
                # At due times, and as of both ends.
                self.assertAlmostEqual(len(inside), ms / 10 + 1.5, delta=2)
            self.assertFalse([s for s in got if s["stack"][-1].startswith("yx".replace(segment, ""))])

    def test_sleeps_while_it_runs(self):
        """Native stacks where it is on a thread, its own where it waits, whole and in order."""
        self.peer.create_task("parked", "/mixed", period=10, threshold=200, count=9)
        wait_until(lambda: self.daemon.status()["tasks"], 15, "the task")
        self.start("x", "/mixed")
        time.sleep(0.1)
        self.park("x", "root", "wait: 1")
        time.sleep(0.3)
        self.go_on("x")
        time.sleep(0.1)
        self.stop("x")
        got = self.settled_snapshots("x")
        self.assert_contiguous(got)
        parked = [s["stack"][-1] == "wait: 1" for s in got]
        first, last = parked.index(True), len(parked) - parked[::-1].index(True)
        self.assertTrue(all(parked[first:last]))
        self.assertAlmostEqual(got[last - 1]["time"] - got[first]["time"], 300, delta=10)
        self.assertGreater(first, 5)
        self.assertGreater(len(parked) - last, 5)

    def test_deep(self):
        """More than the daemon takes of a stack."""
        self.peer.create_task("parked", "/deep", period=10, count=9)
        wait_until(lambda: self.daemon.status()["tasks"], 15, "the task")
        self.start("x", "/deep", tid=0)
        self.park("x", *(f"deep.py.f: {n}" for n in range(1000)))
        time.sleep(0.1)
        self.stop("x")
        [stack] = {tuple(s["stack"]) for s in self.settled_snapshots("x")}
        self.assertEqual(list(stack), [f"deep.py.f: {n}" for n in range(500)])
        self.assertEqual(self.daemon.counters()["stacks_cut"], 1)


if __name__ == "__main__":
    unittest.main()
