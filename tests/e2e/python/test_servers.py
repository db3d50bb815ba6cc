# SPDX-License-Identifier: Apache-2.0
"""Servers whose workers are forks, with the SkyWalking agent in each."""

import concurrent.futures
import socket
import sys
import unittest

import venvs
from agent_test import PERIOD_MS, AgentTest, get, wait_until


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    except OSError:
        return False


class ServerTest(AgentTest):
    server = None

    def setUp(self):
        self.venv = venvs.with_agent(venvs.MIDDLE, "flask", self.server)
        super().setUp()

    def serve(self, *command, processes):
        """Return: (process, port, instances by their name)."""
        self.peer.create_task("svc", "/slow", period=PERIOD_MS, count=9)
        port = free_port()
        command = [self.venv.bin / "sw-python", "run", "-p", self.server, *(str(c).format(port) for c in command)]
        for attempt in range(3):
            process = self.begin(command, self.environment(self.venv))
            try:
                instances = self.wait_for_tasks(processes)
                wait_until(lambda: can_connect(port), 15, "the server to listen")
                return process, port, instances
            except AssertionError:
                # gRPC, which the agent has, may hang in the child of a fork.
                if attempt == 2:
                    raise
                process.kill()
                process.wait()
        return None

    def check_workers(self, port, instances):
        """Both are asked at once, as each can do one request at a time."""
        workers = {p: name for name, i in instances.items() for p in i["pids"]}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            def ask_two():
                pids = set(pool.map(lambda _: int(get(port, "/slow")), range(2)))
                return len(pids) == 2 and {workers[p] for p in pids}
            asked = wait_until(ask_two, 20, "two workers to be asked")

        def reported():
            recorded = self.peer.recorded()
            profiled = {s["segmentId"] for s in recorded["snapshots"]}
            segments = [s for s in recorded["segments"] if s["traceSegmentId"] in profiled]
            return {s["serviceInstance"] for s in segments} >= asked and segments

        for segment in wait_until(reported, 20, f"profiled segments of {asked}"):
            self.check_segment(segment, 200)


class Gunicorn(ServerTest):
    server = "gunicorn"

    def test(self):
        """The master has an agent, too."""
        process, port, instances = self.serve("-w", 2, "-b", "127.0.0.1:{}", "app:app", processes=3)
        master = f"inst-master({process.pid})"
        children = {name: i["pids"] for name, i in instances.items() if name != master}
        self.assertEqual(children, {f"{master}-child({p})": [p] for (p,) in children.values()})
        self.check_workers(port, instances)


class Uwsgi(ServerTest):
    server = "uwsgi"

    def test(self):
        """The master has none."""
        process, port, instances = self.serve(
            "--master", "--enable-threads", "--die-on-term", "--processes", 2, "--http-socket", "127.0.0.1:{}",
            "--virtualenv", self.venv.bin.parent, "--module", "app:app", processes=2)
        self.assertEqual({name: i["pids"] for name, i in instances.items()}, {
            f"inst-master({process.pid})-child({p})": [p] for i in instances.values() for p in i["pids"]})
        self.check_workers(port, instances)


if __name__ == "__main__":
    print("interpreter:", venvs.INTERPRETERS[venvs.MIDDLE], file=sys.stderr)
    unittest.main(verbosity=2)
