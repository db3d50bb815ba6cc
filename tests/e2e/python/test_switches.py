# SPDX-License-Identifier: Apache-2.0
"""Many requests on one thread, as greenlets and as tasks: each has its own stacks, also while it waits."""

import concurrent.futures
import json
import os
import re
import socket
import subprocess
import sys
import unittest
import urllib.request

import venvs
from agent_test import HERE, PERIOD_MS, AgentTest, get
from swprofd_test import wait_until
from venvs import INTERPRETERS

N = 20
REQUIREMENTS = ["gevent", "gunicorn", "packaging"]
VERSIONS = [v for v in INTERPRETERS if INTERPRETERS[v]]


def line_of(program, text):
    """A place in the code as a signature has it."""
    lines = (HERE / program).read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.strip() == text)


class Switches(AgentTest):
    daemon_config = "profile:\n  max_parallel: 9\n"

    def run_server(self, venv, *command, **options):
        env = dict(venv.env, SWPROFD_SOCKET=self.daemon.span_socket, PYTHONPATH=str(venvs.PACKAGE / "src"),
                   PYTHONDONTWRITEBYTECODE="1")
        return self.begin(command, env, stdin=subprocess.PIPE, **options)

    def get(self, what):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{what}", timeout=60) as answer:
            return json.load(answer)

    def get_all(self, service):
        """Runs a task over all of the requests at once. Return: their answers, and nothing is left of the hooks."""
        self.peer.create_task(service, "/wait", period=PERIOD_MS, count=9)
        wait_until(lambda: self.get("")["watched"], 30, "the task")
        with concurrent.futures.ThreadPoolExecutor(N) as pool:
            answers = list(pool.map(self.get, range(N)))
        wait_until(lambda: self.get("hook")["hook"] == "None", 10, "the hooks to be gone")
        return answers

    def profiled(self, answers):
        """(number, answer, snapshots) of those that were."""
        for answer in answers:
            self.assertTrue(answer["watched"])
        found = [(n, a, self.settled_snapshots(a["segment"])) for n, a in enumerate(answers)]
        found = [f for f in found if f[2]]
        self.assertEqual(len(found), 9)
        return found

    def check_stacks(self, program, number, snapshots):
        """None has another request's function, and each that shows Python, its own: those of when it waits do."""
        self.assert_contiguous(snapshots)
        n_python = 0
        for s in snapshots:
            markers = {m for f in s["stack"] for m in re.findall(r"\.(marker_\d+): ", f)}
            is_python = any(f"{program}." in f for f in s["stack"])
            n_python += is_python
            self.assertLessEqual(markers, {f"marker_{number}"}, s)
            if any(f"{program}.wait: " in f for f in s["stack"]):
                self.assertEqual(markers, {f"marker_{number}"}, s)
        return n_python

    def durations(self, answer, place):
        """Of the nodes of the backend's analysis at that place, with their callers."""
        trees = self.peer.analyze(answer["segment"], int(answer["start"]) - 1, int(answer["stop"]) + 1)["trees"]
        for tree in trees:
            elements = {e["id"]: e for e in tree["elements"]}
            for e in tree["elements"]:
                if not e["codeSignature"].endswith(place):
                    continue
                callers, at = [], e
                while at["parentId"] in elements:
                    at = elements[at["parentId"]]
                    callers.append(at["codeSignature"])
                yield e["duration"], callers


class Greenlets(Switches):
    def check_units(self, version):
        """What the client tells, with greenlet there."""
        venv = venvs.make("gevent", version, REQUIREMENTS)
        env = dict(venv.env, PYTHONPATH=str(venvs.PACKAGE / "src"), PYTHONDONTWRITEBYTECODE="1")
        venvs.run(venv.python, venvs.SOURCE / "tests/unit/python/test_carriers.py", "Greenlets", env=env)

    def check(self, version):
        venv = venvs.make("gevent", version, REQUIREMENTS)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
            self.run_server(venv, venv.bin / "gunicorn", "-k", "gevent", "-w", "1", "-b", f"fd://{server.fileno()}",
                            "greenlets", pass_fds=[server.fileno()])

        def ready():
            try:
                return self.get("")
            except OSError:
                return None

        wait_until(ready, 60, "gunicorn to answer")
        answers = self.get_all("greenlets")
        place = f"greenlets.py.wait: {line_of('greenlets.py', 'time.sleep(0.1)')}"
        for number, answer, snapshots in self.profiled(answers):
            n_python = self.check_stacks("greenlets.py", number, snapshots)
            waits = sum(answer["waits"])
            # Due times of all waits, and some of their ends; where the machine is busy, it was late to wait.
            self.assertGreaterEqual(n_python, 0.8 * waits / PERIOD_MS - 3)
            duration, callers = max(self.durations(answer, place))
            self.assertIn(f".marker_{number}: ", callers[0])
            # What is between two waits is not measured there, if it was sampled.
            self.assertGreaterEqual(duration, 3 * 100 - 6)
            self.assertLessEqual(duration, answer["stop"] - answer["start"] + 2)


class Agent(AgentTest):
    """Whose segments are those of the SkyWalking agent, which does not know of greenlets."""

    daemon_config = Switches.daemon_config

    def check(self, version):
        venv = venvs.with_agent(version, "flask", *REQUIREMENTS)
        self.peer.create_task("svc", "/slow", period=PERIOD_MS, count=9)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            self.begin([venv.bin / "sw-python", "run", "-p", "gunicorn", "-k", "gevent", "-w", "1", "-b",
                        f"fd://{server.fileno()}", "app:app"], self.environment(venv), pass_fds=[server.fileno()])
        # Of the master and its worker.
        self.wait_for_tasks(2)
        with concurrent.futures.ThreadPoolExecutor(N) as pool:
            list(pool.map(lambda n: get(port, "/slow"), range(N)))
        recorded = self.peer.wait_until(lambda r: len({s["segmentId"] for s in r["snapshots"]}) == 9, 15)
        for segment in {s["segmentId"] for s in recorded["snapshots"]}:
            snapshots = self.settled_snapshots(segment)
            self.assert_contiguous(snapshots)
            waits = [s["time"] for s in snapshots
                     if any(f"app.py.slow: {line_of('app.py', 'time.sleep(0.2)')}" in f for f in s["stack"])]
            self.assertGreaterEqual(waits[-1] - waits[0], 200 - 2)


class Tasks(Switches):
    def check(self, venv, *how):
        self.port = int(self.line(self.run_server(venv, venv.python, "tasks.py", *how)))
        answers = self.get_all("tasks")
        lines = {text: line_of("tasks.py", text) for text in ("await asyncio.sleep(0.3)", "await asyncio.sleep(0.1)",
                                                              "await leaf()", "await middle()")}
        for number, answer, snapshots in self.profiled(answers):
            n_python = self.check_stacks("tasks.py", number, snapshots)
            self.assertGreaterEqual(n_python, 0.8 * sum(answer["waits"]) / PERIOD_MS - 4)
            # An eager task begins with other callers than it goes on with.
            duration, callers = max(self.durations(answer, f"tasks.py.leaf: {lines['await asyncio.sleep(0.3)']}"))
            # uvloop's clock counts whole milliseconds.
            self.assertGreaterEqual(duration, 300 - (4 if "uvloop" in how else 2))
            self.assertLessEqual(duration, answer["waits"][0] + 2)
            for caller, place in zip(callers, (f".middle: {lines['await leaf()']}", f".wait: {lines['await middle()']}",
                                               f".marker_{number}: 1", ".answer: ")):
                self.assertIn(place, caller)
            duration, _ = max(self.durations(answer, f"tasks.py.numbers: {lines['await asyncio.sleep(0.1)']}"))
            self.assertGreaterEqual(duration, 2 * 100 - 6)

    def check_streams(self, version):
        self.check(venvs.make("plain", version, []), "streams")

    def check_aiohttp(self, version):
        self.check(venvs.make("aiohttp", version, ["aiohttp"]), "aiohttp")

    def check_uvloop(self, version):
        self.check(venvs.make("uvloop", version, ["uvloop"]), "streams", "uvloop")


def add(test, name, check, version):
    def run(self):
        check(self, version)

    setattr(test, f"test_{name}_{version[0]}_{version[1]:02}", run)


# Servers take their time: by default with the oldest, the newest and one in between, each way of switching there is.
SOME = {*VERSIONS[:1], (3, 11), *VERSIONS[-1:]}
for found in INTERPRETERS:
    add(Greenlets, "units", Greenlets.check_units, found)
    if found in SOME or os.environ.get("SWPROFD_TEST_ALL"):
        add(Greenlets, "gunicorn", Greenlets.check, found)
        add(Tasks, "streams", Tasks.check_streams, found)
        add(Tasks, "aiohttp", Tasks.check_aiohttp, found)
add(Agent, "gunicorn", Agent.check, (3, 11))
# Before and after sys.monitoring.
for found in {*VERSIONS[:1], *VERSIONS[-1:]}:
    add(Tasks, "uvloop", Tasks.check_uvloop, found)

if __name__ == "__main__":
    print("interpreters:", ", ".join(filter(None, INTERPRETERS.values())), file=sys.stderr)
    unittest.main(verbosity=2)
