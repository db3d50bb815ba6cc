# SPDX-License-Identifier: Apache-2.0
"""Programs with the SkyWalking agent, beside a daemon."""

import os
import pathlib
import select
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from swprofd_test import SwprofdTest, wait_until  # noqa: E402

PERIOD_MS = 10


def get(port, path="/"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return answer.read().decode()


class AgentTest(SwprofdTest):
    service = "svc"

    def environment(self, venv, oap=None, **more):
        env = dict(venv.env, SWPROF="1", SWPROFD_SOCKET=self.daemon.span_socket, SW_AGENT_NAME=self.service,
                   SW_AGENT_INSTANCE_NAME="inst", SW_AGENT_COLLECTOR_BACKEND_SERVICES=oap or self.peer.grpc_address,
                   SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL="1", SW_AGENT_METER_REPORTER_ACTIVE="false",
                   SW_AGENT_LOG_REPORTER_ACTIVE="false",
                   PYTHONDONTWRITEBYTECODE="1")
        return {**env, **more}

    def begin(self, command, env, **options):
        log = open(self.folder / "program.log", "a+", encoding="utf-8")
        self.addCleanup(log.close)
        program = subprocess.Popen(command, env=env, cwd=HERE, stdout=subprocess.PIPE, stderr=log, bufsize=0,
                                   **options)

        def end():
            if program.poll() is None:
                program.terminate()
                try:
                    program.wait(15)
                except subprocess.TimeoutExpired:
                    program.kill()
                    program.wait()
            program.stdout.close()
            if program.stdin:
                program.stdin.close()
            if self.has_failed():
                log.seek(0)
                print(log.read()[-8000:], file=sys.stderr)

        self.addCleanup(end)
        return program

    def line(self, program, timeout=30):
        """Return: the program's next line."""
        text = b""
        while not text.endswith(b"\n"):
            readable, _, _ = select.select([program.stdout], [], [], timeout)
            self.assertTrue(readable, "the program says nothing")
            byte = os.read(program.stdout.fileno(), 1)
            self.assertTrue(byte, "the program ended early")
            text += byte
        return text.decode()

    def wait_for_tasks(self, n=1):
        """Return: the instances that have a running task, by name."""
        def running():
            status = self.daemon.status()
            found = {t["instance"] for t in status["tasks"] if t["state"] == "running"}
            instances = {i["instance"]: i for i in status["instances"] if i["instance"] in found}
            return len(instances) >= n and instances
        return wait_until(running, 30, f"a task of {n} instances")

    def segments(self, n, timeout=15):
        """The agent's, as the OAP has them."""
        found = wait_until(lambda: len(s := self.peer.recorded()["segments"]) >= n and s, timeout, f"{n} segments")
        return {s["traceSegmentId"]: s for s in found}

    def check_segment(self, segment, wanted_ms):
        """Its snapshots: in order, and of its time. How much of that depends on how busy the machine is."""
        span = segment["spans"][-1]
        snapshots = self.settled_snapshots(segment["traceSegmentId"])
        self.assertTrue(snapshots, "no snapshots")
        self.assert_contiguous(snapshots)
        times = [s["time"] for s in snapshots]
        self.assertGreaterEqual(times[0], span["startTime"] - 1)
        self.assertLessEqual(times[-1], span["endTime"] + 1 + PERIOD_MS)
        self.assertGreaterEqual(times[-1] - times[0], wanted_ms / 2)
