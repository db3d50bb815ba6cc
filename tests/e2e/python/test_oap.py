# SPDX-License-Identifier: Apache-2.0
"""The demo with the real agent and a real OAP: SWPROFD_REAL_OAP=HOST:GRPCPORT,HTTPPORT. Skips without."""

import os
import sys
import unittest

import venvs
from agent_test import PERIOD_MS, AgentTest, get, wait_until
from peer.client import Client, profiled_windows
from venvs import INTERPRETERS

ADDRESS = os.environ.get("SWPROFD_REAL_OAP")


class RealOap(AgentTest):
    def start_oap(self):
        grpc, http = ADDRESS.rsplit(",", 1)
        self.peer = Client(f"{grpc.rsplit(':', 1)[0]}:{http}")
        self.peer.grpc_address = grpc

    def demo(self, version):
        """The OAP lists the agent's segments as profiled, each with its time in one tree."""
        venv = venvs.with_agent(version)
        self.service = f"python-{os.getpid()}-{version[1]}"
        demo = self.begin([venv.bin / "sw-python", "run", "python", "demo.py", "0"], self.environment(venv))
        port = int(self.line(demo))
        task = wait_until(lambda: self.create_task(), 30, "the service to be known")
        self.wait_for_tasks()
        for _ in range(2):
            get(port)
        # What was sent is readable after the server's persistence period, 25 s on a default one.
        windows = wait_until(lambda: (w := profiled_windows(self.peer.segments(task))) and len(w) == 2 and w, 60,
                             "the task's segments to be listed")
        for _, _, trace in windows.values():
            self.assertEqual((trace["endpointNames"], trace["instanceName"]), (["/"], "inst"))
        roots = wait_until(lambda: self.whole(windows), 60, "all snapshots to be in one tree of each segment")
        for root, (start, end, _) in zip(roots, windows.values()):
            print(f"Python {version}: {root['duration']} of {end - start} ms", file=sys.stderr)
            self.assertGreaterEqual(root["duration"], (end - start) / 2)
            self.assertLessEqual(root["duration"], end - start + PERIOD_MS)
        # One agent asks for tasks: the daemon.
        kinds = [log["operationType"] for log in self.peer.logs(task)]
        self.assertEqual(kinds.count("NOTIFIED"), 1)

    def whole(self, windows):
        """Return: the roots of the segments' trees, when the OAP has all that was sent."""
        roots = [[e for t in self.peer.analyze(segment, start, end)["trees"] for e in t["elements"]
                  if e["parentId"] == "0"] for segment, (start, end, _) in windows.items()]
        c = self.daemon.counters()
        return (all(len(r) == 1 for r in roots) and c["snapshots_queued"] == c["snapshots_sent"] + c["snapshots_thinned"]
                and sum(r[0]["count"] for r in roots) == c["snapshots_sent"] and [r[0] for r in roots])

    def create_task(self):
        return self.peer.create_task(self.service, "/", period=PERIOD_MS, count=5)


def add(version):
    setattr(RealOap, f"test_{version[0]}_{version[1]:02}", lambda self: self.demo(version))


for found in INTERPRETERS:
    add(found)

if __name__ == "__main__":
    if not ADDRESS:
        print("skipped: SWPROFD_REAL_OAP=HOST:GRPCPORT,HTTPPORT names no real OAP")
        sys.exit(77)
    unittest.main(verbosity=2)
