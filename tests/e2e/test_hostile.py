# SPDX-License-Identifier: Apache-2.0
"""Peers that send garbage are refused; a second app's profile is not affected."""

import os
import random
import socket
import subprocess
import unittest

from swprofd_test import BUILD, SLOW, SwprofdTest, wait_until


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

    def test_stack_of_userfaultfd(self):
        self.stack_of_nobody("uffd")

    def test_stack_of_fuse(self):
        self.stack_of_nobody("fuse")

    def stack_of_nobody(self, server):
        """A stack whose pages never come is not waited for: others are sampled in time, and BPF is not held up."""
        # On slow guests all of this takes more than a minute.
        self.peer.create_task("hostile", "/hostile", period=10, count=9, duration=5)
        hostile = self.program("hostile-stack", "hostile", "one", server)
        hostile.line()
        # What sleeps on it is sampled as long as it has not run; a new look has to copy.
        tid = hostile.line()["gone"]
        self.peer.create_task("fine", "/fine", period=10, duration=5)
        fine = self.program("idle", "fine", "one", "/fine", "span")
        fine.line()
        segment = fine.line()["segment"]

        def captured():
            return [s for s in self.daemon.status()["slots"] if s["segment"] == segment and int(s["captured"]) > 50]
        wait_until(captured, 30, "samples of another thread")
        # The second daemon finds the thread anew: it has no earlier copy to repeat.
        done = subprocess.run([BUILD / "daemon/swprofd", f"--record={self.folder}/record", "--pid",
                               str(hostile.process.pid), "--tid", str(tid)],
                              capture_output=True, text=True, timeout=30 * SLOW)
        self.assertNotEqual(done.returncode, 0)
        # Loading programs and letting them go waits for all that run.
        done = subprocess.run([BUILD / "daemon/swprofd", "--check-host"], capture_output=True, text=True, timeout=30 * SLOW)
        self.assertEqual(done.returncode, 0, done.stderr)
        out = fine.finish()
        got = self.settled_snapshots(segment)
        self.assert_contiguous(got)
        span_ms = out[-1]["stop"] - got[0]["time"]
        late = sum(self.daemon.counters()[f"samples_{cause}"] for cause in ("late", "unstable"))
        self.assertGreaterEqual(len(got), span_ms / 10 * 0.95 - 2 - late)


if __name__ == "__main__":
    unittest.main()
