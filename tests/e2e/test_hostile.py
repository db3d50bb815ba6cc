# SPDX-License-Identifier: Apache-2.0
"""Peers that send garbage are refused; a second app's profile is not affected."""

import os
import random
import socket
import unittest

from swprofd_test import SwprofdTest, wait_until


class Hostile(SwprofdTest):
    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(10)
        s.connect(self.daemon.span_socket)
        self.addCleanup(s.close)
        return s

    def assert_closed(self, s):
        """Return: what the daemon said before it closed."""
        said = b""
        while True:
            try:
                packet = s.recv(65536)
            except ConnectionResetError:
                return said
            if not packet:
                return said
            said += packet

    def test_garbage(self):
        self.peer.create_task("good", "/good", period=10)
        good = self.program("idle", "good", "one", "/good", "span")
        good.line()
        segment = good.line()["segment"]
        wait_until(lambda: any(int(s["captured"]) > 10 for s in self.daemon.status()["slots"]), 15, "samples")
        seed = random.randrange(1 << 32)
        print("seed", seed)
        rng = random.Random(seed)
        for packet in [b"\x00", b"hello", b"\xff" * 4096, os.urandom(4096), b"\x0a\x02\x08\x63",
                       b"\x0a\xff\xff\xff\xff\x0f", *(rng.randbytes(rng.randrange(1, 300)) for _ in range(50))]:
            s = self.connect()
            s.send(packet)
            self.assertTrue(self.assert_closed(s), "closed without a word")
        # Too large for the protocol.
        s = self.connect()
        s.send(b"x" * 100000)
        self.assertTrue(self.assert_closed(s))
        self.assertGreaterEqual(self.daemon.counters()["clients_broken"], 50)
        out = good.finish()
        got = self.settled_snapshots(segment)
        self.assert_contiguous(got)
        span_ms = out[-1]["stop"] - got[0]["time"]
        self.assertGreaterEqual(len(got), span_ms / 10 * 0.95 - 2)


if __name__ == "__main__":
    unittest.main()
