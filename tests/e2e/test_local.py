# SPDX-License-Identifier: Apache-2.0
"""Tasks of swprofctl, with no OAP: what they yield against what the programs know, over restarts, and for whom."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import types
import unittest

from swprofd_test import BUILD, SwprofdTest, wait_until

PERIOD_MS = 10
NOBODY = 65534


class Local(SwprofdTest):
    def start_oap(self):
        self.peer = types.SimpleNamespace(grpc_address=None)
        self.let_everyone_in()

    def let_everyone_in(self):
        """The folder has what is run there."""
        self.folder.chmod(0o755)
        for name in ("daemon/swprofctl", "tests/e2e/programs/steady", "lib/libswprof.so.0"):
            shutil.copy(BUILD / name, self.folder)

    def ask(self, *args, user=None):
        """The answer in JSON."""
        done = self.ctl(*args, "--json", user=user)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def ctl(self, *args, user=None):
        return subprocess.run([self.folder / "swprofctl", f"--socket={self.daemon.control_socket}", "--timeout=60",
                               *map(str, args)], capture_output=True, text=True, timeout=120, user=user,
                              **({} if user is None else {"group": user, "extra_groups": []}))

    def fails(self, status, *args, user=None):
        """Its one line of complaint."""
        done = self.ctl(*args, user=user)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done)
        self.assertEqual(done.stderr.count("\n"), 1 if status != 5 else 2, done.stderr)
        return done.stderr

    def start(self, endpoint, service, *options):
        return self.ask("task", "start", endpoint, f"--service={service}", "--threshold=100ms", *options)["task"]

    def task(self, name):
        return next(t for t in self.ask("task", "list")["tasks"] if t["id"] == name)

    def segments(self, *args):
        done = self.ctl("segments", *args, "--json")
        return json.loads(done.stdout)["segments"] if done.returncode == 0 else []

    def wait_segments(self, name, predicate, what):
        return wait_until(lambda: (lambda s: s if predicate(s) else None)(self.segments(name)), 60, what)

    def diagrams(self, service):
        """More requests than a task wants, until it is over: what the program is made of is read during the first."""
        return [json.loads(line) for line in self.program("diagram", service, "one", 20).process.stdout]

    def steady(self, user=None):
        """A program with a request that lasts until its input ends. Return: it, and the segment."""
        groups = {} if user is None else {"group": user, "extra_groups": []}
        program = subprocess.Popen([self.folder / "steady", "steady", "one", "/steady", "1"], text=True, user=user,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, **groups,
                                   env=dict(os.environ, SWPROFD_SOCKET=self.daemon.span_socket,
                                            LD_LIBRARY_PATH=str(self.folder)))
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        return program, json.loads(program.stdout.readline())["segment"]

    def test_truth(self):
        """A task that is there before the program: the tree of each request has the program's own times."""
        name = self.start("/diagram", "diagram", "--threshold=0ms", "--count=5", "--duration=2m")
        self.assertEqual(self.task(name)["state"], "running")
        truth = {t["segment"]: t for t in self.diagrams("diagram")}
        wait_until(lambda: self.task(name)["state"] == "over", 60, "the end of the task: it has all that it wants")
        segments = self.segments(name)
        self.assertEqual(len(segments), 5)
        lost = self.lost()
        for s in segments:
            t = truth[s["segment"]]
            self.assertEqual((s["task"], s["service"], s["instance"], s["endpoint"]),
                             (name, "diagram", "one", "/diagram"))
            self.assertAlmostEqual(s["duration_ns"] / 1e6, t["stop"] - t["start"], delta=PERIOD_MS)
            elements = self.ask("report", s["segment"])["elements"]
            for function in "ABCD":
                found = [e["duration_us"] / 1000 for e in elements
                         if e["signature"].rsplit(":", 1)[0] == f"diagram.c.{function}"]
                # Each line that calls has a node of its own, which may lack up to one period.
                self.assertAlmostEqual(sum(found), t[function], delta=(len(found) + 1 + lost) * PERIOD_MS,
                                       msg=(function, found, t))
        merged = self.ask("report", name)
        self.assertEqual(len(merged["segments"]), 5)
        self.assertEqual(merged["samples"], sum(s["samples"] for s in segments))
        self.assertEqual(self.ask("report"), merged)    # the newest task
        folded = self.ctl("export", name, "--format=folded").stdout.splitlines()
        self.assertEqual(sum(int(line.rsplit(" ", 1)[1]) for line in folded), merged["sampled_us"])
        counters = self.daemon.counters()
        self.assertEqual(counters["snapshots_queued"], counters["snapshots_recorded"])
        self.assertEqual(merged["samples"], counters["snapshots_recorded"])

    def test_restart(self):
        """A request goes on over the end of the daemon, and is reported as one; so is its task."""
        name = self.start("/steady", "steady", "--count=1")
        program, segment = self.steady()
        self.wait_segments(name, lambda s: s and s[0]["samples"] >= 10, "samples of a request that lasts")
        self.assertIn("steady.c.wait_for_end", self.ctl("report", name).stdout)
        self.daemon.kill()
        self.assertIn("not running", self.fails(3, "report", name))
        self.daemon.start()
        kept = self.segments(name)[0]["samples"]
        self.assertGreaterEqual(kept, 10)
        self.assertEqual(self.task(name)["state"], "running")
        self.wait_segments(name, lambda s: s[0]["samples"] >= kept + 10, "samples after the restart")
        program.communicate(timeout=60)
        wait_until(lambda: self.task(name)["state"] == "over", 60, "the end of the task")
        after = self.segments(name)
        self.assertEqual([s["segment"] for s in after], [segment])
        self.assertEqual(self.ask("report", name)["samples"], after[0]["samples"])
        self.assertEqual(self.task(name)["done_segments"], 1)
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.segments(name), after)
        self.assertEqual(self.start("/steady", "steady"), "local-2")

    def test_stop_and_clash(self):
        name = self.start("/steady", "steady")
        self.assertIn(f"has task {name} already", self.fails(1, "task", "start", "/other", "--service=steady"))
        other = self.start("/steady", "other")
        _, segment = self.steady()
        self.wait_segments(name, lambda s: s and s[0]["samples"] > 1, "samples")
        self.assertEqual(self.ctl("task", "stop", name).stdout, f"{name} is over\n")
        self.assertEqual([t["id"] for t in self.ask("tasks")["tasks"] if t["state"] != "ending"], [])
        self.assertEqual((self.task(name)["state"], self.task(other)["state"]), ("over", "running"))
        self.assertEqual([s["segment"] for s in self.segments(name)], [segment])
        self.assertIn("is over already", self.fails(1, "task", "stop", name))
        again = self.start("/steady", "steady")
        self.assertNotIn(again, (name, other))
        # One that sees nothing says so.
        waiting = subprocess.Popen([self.folder / "swprofctl", f"--socket={self.daemon.control_socket}", "task", "start",
                                    "/never", "--service=never", "--wait"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(waiting.kill)
        wait_until(lambda: len(self.ask("task", "list")["tasks"]) == 4, 60, "its task")
        self.assertEqual(self.ctl("task", "stop", "local-4").returncode, 0)
        self.assertIn("no request", waiting.communicate(timeout=60)[1])
        self.assertEqual(waiting.returncode, 1)

    def test_bad_input(self):
        start = ("task", "start", "/x", "--service=s")
        for status, args, message in (
                (2, ("task", "begin"), "start, list or stop"),
                (2, ("task", "start", "/x"), "--service"),
                (2, ("task", "start", "--service=s"), "ENDPOINT"),
                (2, ("task", "stop"), "TASK"),
                (2, (*start, "--period=fast"), "a period is"),
                (2, (*start, "--count=none"), "the count"),
                (1, (*start, "--duration=16m"), "1 to 15 minutes"),
                (1, (*start, "--duration=90s"), "1 to 15 minutes"),
                (1, (*start, "--period=9ms"), "10 ms to 60 s"),
                (1, (*start, "--count=10"), "1 to 9"),
                (1, ("task", "start", "x" * 1024, "--service=s"), "endpoint is empty or too long"),
                (1, ("task", "start", "/x", "--service="), "service is empty"),
                (1, ("task", "start", b"/\xff", "--service=s"), "UTF-8"),
                (1, ("task", "stop", "local-9"), "there is no task"),
                (1, ("task", "stop", "\033[1m"), "there is no task"),
                (1, ("report",), "nothing was profiled yet"),
                (1, ("report", "local-9"), "no such task or segment"),
                (1, ("export", "x", "--format=html"), "no such task or segment")):
            with self.subTest(args=args):
                done = self.daemon.ctl(*args)
                self.assertEqual(done.returncode, status, done)
                self.assertIn(message, done.stderr)
                self.assertNotIn("\033", done.stderr)
        name = self.start("/x", "s")
        self.assertIn("nothing of that task was profiled yet", self.fails(1, "report", name))

    def test_users(self):
        """Whoever is not trusted makes no tasks, and sees their own programs."""
        name = self.start("/steady", "steady", "--count=9")
        self.assertIn("only root", self.fails(5, "task", "stop", name, user=NOBODY))
        self.assertIn("only root", self.fails(5, "task", "start", "/y", "--service=y", user=NOBODY))
        segments = [self.steady(user)[1] for user in (None, NOBODY)]
        self.wait_segments(name, lambda s: len(s) == 2 and all(x["samples"] > 1 for x in s), "samples of both")
        seen = self.ask("report", user=NOBODY)
        self.assertEqual([s["segment"] for s in seen["segments"]], segments[1:])
        self.assertIn("no such task or segment", self.fails(1, "report", segments[0], user=NOBODY))
        self.assertEqual([t["segments"] for t in self.ask("task", "list", user=NOBODY)["tasks"]], [1])
        self.assertEqual([t["segments"] for t in self.ask("task", "list")["tasks"]], [2])

    def test_database(self):
        """One that is damaged is put aside; where there can be none, results are in memory."""
        database = self.folder / "state/local.db"
        self.daemon.stop()
        with sqlite3.connect(database) as connection:
            connection.execute("DROP TABLE segment")
        connection.close()
        self.daemon.start()
        self.assertTrue(database.with_name("local.db.broken").exists())
        self.assertEqual(self.daemon.status()["local"]["state"], "ready")
        self.daemon.stop()
        database.unlink()
        database.mkdir()
        self.daemon.start()
        self.assertEqual(self.daemon.status()["local"]["state"], "memory")
        name = self.start("/steady", "steady")
        self.steady()
        self.wait_segments(name, lambda s: s, "a segment in memory")
        self.assertIn("steady.c.wait_for_end", self.ctl("report", name).stdout)
        self.daemon.process.send_signal(signal.SIGHUP)
        self.assertEqual(self.task(name)["segments"], 1)


class LocalIsNoBackend(SwprofdTest):
    def test_refused(self):
        done = self.daemon.ctl("task", "start", "/x", "--service=x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no local backend", done.stderr)
        self.assertIsNone(self.daemon.status()["local"])


class Both(Local):
    """Beside an OAP: each task's results go to where it came from."""

    daemon_config = "backends: [oap, local]"

    def start_oap(self):
        SwprofdTest.start_oap(self)
        self.let_everyone_in()

    test_truth = test_restart = test_stop_and_clash = test_bad_input = test_users = test_database = None

    def test_both(self):
        theirs = self.peer.create_task("remote", "/diagram", period=PERIOD_MS, count=1)
        ours = self.start("/diagram", "diagram", "--threshold=0ms", "--count=1")
        there = {t["segment"] for t in self.diagrams("remote")}
        here = {t["segment"] for t in self.diagrams("diagram")}
        wait_until(lambda: self.peer.recorded()["snapshots"], 60, "snapshots at the OAP")
        self.wait_segments(ours, lambda s: s, "the segment here")
        self.assertLessEqual({s["segment"] for s in self.segments()}, here)
        self.assertLessEqual({s["segmentId"] for s in self.peer.recorded()["snapshots"]}, there)
        # A service has one task at a time, from wherever.
        self.assertIn(f"has task {theirs} already", self.fails(1, "task", "start", "/x", "--service=remote"))


if __name__ == "__main__":
    unittest.main()
