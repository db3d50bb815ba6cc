# SPDX-License-Identifier: Apache-2.0
"""Programs with the real SkyWalking agent, profiled by swprofd."""

import os
import subprocess
import sys
import unittest

import venvs
from agent_test import PERIOD_MS, AgentTest, get
from harness import Peer
from venvs import INTERPRETERS


class Demo(AgentTest):
    """The demo of the blog, as it is."""

    def demo(self, version):
        venv = venvs.with_agent(version)
        self.peer.create_task("svc", "/", period=PERIOD_MS, count=5)
        demo = self.begin([venv.bin / "sw-python", "run", "python", "demo.py", "0"], self.environment(venv))
        port = int(self.line(demo))
        instance = self.wait_for_tasks()["inst"]
        self.assertEqual((instance["language"], instance["agent"], instance["pids"]), ("python", True, [demo.pid]))
        for _ in range(2):
            self.assertIn("Despacito", get(port))
        for segment in self.segments(2).values():
            self.assertEqual((segment["service"], segment["serviceInstance"]), ("svc", "inst"))
            self.check_segment(segment, 560)
        # What the daemon has sent is of these segments, and of no others.
        recorded = self.peer.recorded()
        self.assertEqual({s["segmentId"] for s in recorded["snapshots"]},
                         {s["traceSegmentId"] for s in recorded["segments"]})


def add(version):
    setattr(Demo, f"test_{version[0]}_{version[1]:02}", lambda self: self.demo(version))


for found in INTERPRETERS:
    add(found)


class Agent(AgentTest):
    """What is of the agent, not of the interpreter."""

    def setUp(self):
        self.venv = venvs.with_agent(venvs.MIDDLE)
        super().setUp()

    def test_agent_does_not_poll(self):
        """The agent has an OAP of its own here, and the daemon asks another."""
        other = Peer().start()
        self.addCleanup(other.stop)
        self.peer.create_task("svc", "/", period=PERIOD_MS)
        other.create_task("svc", "/", period=PERIOD_MS)
        demo = self.begin([self.venv.bin / "swprof", "run", "python", "demo.py", "0"],
                          self.environment(self.venv, other.grpc_address, SWPROF=""))
        port = int(self.line(demo))
        self.wait_for_tasks()
        get(port)
        recorded = other.wait_until(lambda r: r["segments"] and len(self.peer.recorded()["polls"]) >= 3, 15)
        self.assertEqual((recorded["polls"], recorded["snapshots"], recorded["finishes"]), ([], [], []))

    def test_without_the_variable(self):
        """The agent's own profiler works as ever, and nobody speaks to the daemon."""
        env = self.environment(self.venv)
        del env["SWPROF"]
        demo = self.begin([self.venv.bin / "sw-python", "run", "python", "demo.py", "0"], env)
        self.line(demo)
        self.peer.wait_until(lambda r: r["polls"], 15)
        self.assertEqual(self.daemon.status()["instances"], [])

    def test_namespace(self):
        self.peer.create_task("svc|ns", "/", period=PERIOD_MS)
        demo = self.begin([self.venv.bin / "sw-python", "run", "python", "demo.py", "0"],
                          self.environment(self.venv, SW_AGENT_NAMESPACE="ns"))
        port = int(self.line(demo))
        self.wait_for_tasks()
        get(port)
        (segment,) = self.segments(1).values()
        self.assertEqual(segment["service"], "svc|ns")
        self.check_segment(segment, 560)

    def test_fork(self):
        """Both processes have agents, whose instances are the daemon's."""
        self.peer.create_task("svc", "/fork", period=PERIOD_MS)
        program = self.begin([self.venv.bin / "sw-python", "run", "python", "forking.py"],
                             self.environment(self.venv, SW_AGENT_EXPERIMENTAL_FORK_SUPPORT="true"),
                             stdin=subprocess.PIPE)
        self.line(program)
        self.wait_for_tasks()
        os.write(program.stdin.fileno(), b".")      # now that the agent rests: gRPC does not like to be forked at work
        pids = {int(self.line(program)) for _ in range(2)}
        (child,) = pids - {program.pid}
        instances = self.wait_for_tasks(2)
        self.assertEqual({name: i["pids"] for name, i in instances.items()},
                         {"inst": [program.pid], f"inst-child({child})": [child]})
        os.write(program.stdin.fileno(), b"..")
        segments = self.segments(2)
        self.assertEqual({s["serviceInstance"] for s in segments.values()}, set(instances))
        for segment in segments.values():
            self.check_segment(segment, 200)
        os.write(program.stdin.fileno(), b"..")
        self.assertEqual(program.wait(30), 0)


if __name__ == "__main__":
    print("interpreters:", ", ".join(filter(None, INTERPRETERS.values())), file=sys.stderr)
    unittest.main(verbosity=2)
