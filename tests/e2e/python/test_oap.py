# SPDX-License-Identifier: Apache-2.0
"""The blog's demo, as it is and with work in place of its sleeps, with the real agent in each Python that is here, and a
real OAP: SWPROFD_REAL_OAP=HOST:GRPCPORT,HTTPPORT, or one that is started here."""

import json
import os
import pathlib
import sys
import tempfile
import time
import unittest

import venvs
from agent_test import PERIOD_MS, AgentTest, get, wait_until
from peer.client import Client, profiled_windows

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "oap"))

from real_oap import Missing, RealOap  # noqa: E402

N_REQUESTS = 2
# Of each program the calls of the handler, whose lines are the tree's nodes: function, code, and how long that takes: ms
# that it sleeps, or the name of what the program has measured.
CALLS = {
    "demo": [("do_GET", "time.sleep(0.5)", 500), ("do_GET", "body = method3()", 60),
             ("method3", "time.sleep(0.02)", 20), ("method3", "return method2()", 40),
             ("method2", "time.sleep(0.02)", 20), ("method2", "return method1()", 20),
             ("method1", "time.sleep(0.02)", 20)],
    "demo_cpu": [("do_GET", 'timed(times, "work", work, 500)', "work"),
                 ("do_GET", 'timed(times, "method3", method3, times)', "method3"),
                 ("method3", 'timed(times, "work3", work, 20)', "work3"),
                 ("method3", 'timed(times, "method2", method2, times)', "method2"),
                 ("method2", 'timed(times, "work2", work, 20)', "work2"),
                 ("method2", 'timed(times, "method1", method1, times)', "method1"),
                 ("method1", 'timed(times, "work1", work, 20)', "work1")],
}
FUNCTIONS = ["method1", "method2", "method3", "do_GET"]     # each is called by the next
_oap = None


def line_of(program, function, code):
    """Of the call in the function's source."""
    lines = pathlib.Path(__file__).with_name(f"{program}.py").read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if line.strip().startswith(f"def {function}("))
    return next(n for n, line in enumerate(lines[begin:], begin + 1) if line.strip() == code)


def setUpModule():
    global _oap
    address = os.environ.get("SWPROFD_REAL_OAP")
    if address:
        grpc, http = address.rsplit(",", 1)
        _oap = Client(f"{grpc.rsplit(':', 1)[0]}:{http}")
        _oap.grpc_address = grpc
        return
    folder = tempfile.TemporaryDirectory(prefix="swprofd-test.")
    unittest.addModuleCleanup(folder.cleanup)
    begin = time.monotonic()
    _oap = RealOap(folder.name).start()
    unittest.addModuleCleanup(_oap.stop)
    print(f"OAP {_oap.version()} started in {time.monotonic() - begin:.0f} s", file=sys.stderr)


class Demo:
    """One of the programs, that runs, and its task."""

    def __init__(self, test, version, program):
        self.program = program
        self.service = f"{program}-{venvs.interpreters.name(version)}-{os.getpid()}"
        venv = venvs.with_agent(version)
        self.process = test.begin([venv.bin / "sw-python", "run", "python", f"{program}.py", "0"],
                                  test.environment(venv, SW_AGENT_NAME=self.service))
        self.answers = []

    def create_task(self):
        return _oap.create_task(self.service, "/", period=PERIOD_MS, count=5)


class Demos(AgentTest):
    def start_oap(self):
        self.peer = _oap

    def test(self):
        """The demos run side by side, and are asked one after another."""
        demos = []
        for version in venvs.INTERPRETERS:
            with self.subTest(version=version):
                demos += [Demo(self, version, program) for program in ("demo", "demo_cpu")]
        for demo in demos:
            demo.port = int(self.line(demo.process, 60))
        for demo in demos:
            demo.task = wait_until(demo.create_task, 60, "the service to be known")
        wait_until(lambda: sum(t["state"] == "running" for t in self.daemon.status()["tasks"]) >= len(demos), 60,
                   "all tasks to run")
        for demo in demos:
            demo.answers = [get(demo.port) for _ in range(N_REQUESTS)]
        for demo in demos:
            # What was sent is readable after the server's persistence period, 25 s on a default one.
            demo.windows = wait_until(
                lambda: (w := profiled_windows(_oap.segments(demo.task))) and len(w) == N_REQUESTS and w, 60,
                "the task's segments to be listed")
        wait_until(self.has_all, 60, "all snapshots to be sent")
        for demo in demos:
            with self.subTest(service=demo.service):
                self.check(demo)

    def has_all(self):
        c = self.daemon.counters()
        return c["snapshots_queued"] == c["snapshots_sent"] + c["snapshots_thinned"]

    def check(self, demo):
        # The agent's own segments, in the order of the requests.
        windows = sorted(demo.windows.items(), key=lambda w: w[1][0])
        for (segment, (start, end, trace)), answer in zip(windows, demo.answers):
            self.assertEqual((trace["endpointNames"], trace["instanceName"]), (["/"], "inst"))
            elements = wait_until(lambda: self.whole(segment, start, end), 60, "one tree of the segment")
            self.assertLessEqual(max(int(e["duration"]) for e in elements), end - start + PERIOD_MS)
            self.check_tree(demo, elements, json.loads(answer), late_ms=max(0, end - start - 560))
        # One agent asks for tasks: the daemon.
        kinds = [log["operationType"] for log in _oap.logs(demo.task)]
        self.assertEqual(kinds.count("NOTIFIED"), 1)

    def whole(self, segment, start, end):
        """Return: the elements of the segment's tree, once there is one and it has no more to come."""
        trees = [t["elements"] for t in _oap.analyze(segment, start, end)["trees"]]
        time.sleep(0.1)
        again = [t["elements"] for t in _oap.analyze(segment, start, end)["trees"]]
        return trees[0] if len(trees) == 1 and trees == again else None

    def check_tree(self, demo, elements, answer, late_ms):
        """Each call is a node below those that led to it, and its time within a period of the truth; beside that, what
        other load of the machine has cost: samples as they are counted, and times that sleeps took longer."""
        c = self.daemon.counters()
        lost = sum(c[f"samples_{cause}"] for cause in ("late", "unstable", "fault", "queue_full", "no_stack"))
        by_id, errors = {e["id"]: e for e in elements}, []
        for function, code, truth in CALLS[demo.program]:
            signature = f"{demo.program}.py.{function}: {line_of(demo.program, function, code)}"
            # 3.8 knows the path of the program as it was given.
            node = next((e for e in elements if f"/{e['codeSignature']}".endswith(f"/{signature}")), None)
            if isinstance(truth, str):
                # A thread that waits for a CPU is looked at like one that runs, but the daemon waits for one, too.
                truth, cpu_ms = answer[truth]
                late_ms = truth - cpu_ms
            errors.append((node["duration"] if node else 0) - truth)
            self.assertLessEqual(abs(errors[-1]), PERIOD_MS * (1 + lost) + 2 * late_ms + 2, (signature, truth, node))
            callers = []
            while node and node["parentId"] in by_id:
                node = by_id[node["parentId"]]
                callers += [f for f in FUNCTIONS if f".py.{f}: " in node["codeSignature"]]
            if node:
                self.assertEqual(callers, FUNCTIONS[FUNCTIONS.index(function) + 1:])
        print(f"{demo.service}: errors of its {len(errors)} nodes (ms):", *(f"{e:+.1f}" for e in errors),
              file=sys.stderr)


if __name__ == "__main__":
    print("interpreters:", ", ".join(filter(None, venvs.INTERPRETERS.values())), file=sys.stderr)
    try:
        if not os.environ.get("SWPROFD_REAL_OAP"):
            with tempfile.TemporaryDirectory() as nowhere:
                RealOap(nowhere)
    except Missing as e:
        print(f"skipped: {e}")
        sys.exit(77)
    unittest.main(verbosity=2)
