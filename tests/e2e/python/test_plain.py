# SPDX-License-Identifier: Apache-2.0
"""Programs with the Python client alone, in each Python that is here."""

import json
import os
import subprocess
import sys
import unittest

from agent_test import PERIOD_MS, AgentTest, wait_until
from venvs import INTERPRETERS, PACKAGE, interpreters


class Plain(AgentTest):
    def plain(self, version, *arguments, threshold=0):
        program = INTERPRETERS[version]
        if not program:
            self.skipTest(interpreters.why_not(version))
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SW", "PYTHON"))}
        env.update(SWPROFD_SOCKET=self.daemon.span_socket, PYTHONPATH=str(PACKAGE / "src"),
                   PYTHONDONTWRITEBYTECODE="1")
        self.peer.create_task("plain", "/plain", period=PERIOD_MS, threshold=threshold, count=5)
        return self.begin([program, "plain.py", *arguments], env, stdin=subprocess.PIPE)

    def request(self, version):
        process = self.plain(version)
        said = json.loads(self.line(process))
        self.assertEqual(process.wait(30), 0)
        for segment, least_ms in ((said["segment"], 200), (said["sub"], 100)):
            snapshots = self.settled_snapshots(segment)
            self.assert_contiguous(snapshots)
            times = [s["time"] for s in snapshots]
            self.assertGreaterEqual(times[0], said["renamed"] - 1)
            self.assertLessEqual(times[-1], said["stop"] + 1)
            self.assertGreaterEqual(times[-1] - times[0], least_ms / 2)
        # There is no agent: the daemon reports the segments.
        segments = self.segments(2)
        span = segments[said["segment"]]["spans"][0]
        self.assertEqual((span["operationName"], segments[said["segment"]]["traceId"]), ("/plain", "trace"))
        self.assertLess(span["startTime"], said["renamed"])
        self.assertGreaterEqual(span["startTime"], said["start"] - 1)

    def test_daemon_starts_again(self):
        """The span that was live meanwhile is known to the next one."""
        version = next(v for v in INTERPRETERS if INTERPRETERS[v])
        # One that has delivered is over with the daemon: its numbers would begin again.
        process = self.plain(version, "wait", threshold=60000)
        segment = self.line(process).strip()

        def is_followed():
            return [s for s in self.daemon.status()["slots"] if s["segment"] == segment and s["captured"]]

        wait_until(is_followed, 15, "the segment to be followed")
        self.daemon.stop()
        self.daemon.start()
        wait_until(is_followed, 30, "the segment to be followed again")
        os.write(process.stdin.fileno(), b".")
        self.assertEqual(process.wait(30), 0)


def add(version):
    setattr(Plain, f"test_{version[0]}_{version[1]:02}", lambda self: self.request(version))


for found in INTERPRETERS:
    add(found)

if __name__ == "__main__":
    print("interpreters:", ", ".join(filter(None, INTERPRETERS.values())), file=sys.stderr)
    unittest.main(verbosity=2)
