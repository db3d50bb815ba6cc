#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`swprofctl task start --wait`, and answers that take their time, of a daemon that is none. Environment: SWPROFCTL."""

import time
import unittest

from profile_case import Case, run
from test_top import FakeDaemon, busy


class SlowDaemon(FakeDaemon):
    """Knows the tasks of `status`, a list of messages; thinks for 2 s about results."""

    def answer(self, request, reply):
        if request.WhichOneof("verb") == "task_start":
            reply.task = "local-1"
        elif request.WhichOneof("verb") == "local_tasks":
            reply.local_tasks.SetInParent()
            for task in self.status:
                reply.local_tasks.tasks.add(**task)
        else:
            time.sleep(2)
            reply.profile = self.profile


class TestTask(Case):
    def ask(self, tasks, *arguments):
        path = self.dir / "control.sock"
        path.unlink(missing_ok=True)
        daemon = SlowDaemon(path, busy().message.SerializeToString(), tasks)
        self.addCleanup(daemon.close)
        return run(f"--socket={path}", "--timeout=1", *arguments)

    def test_unknown(self):
        done = self.ask([], "task", "start", "/x", "--service=s", "--wait")
        self.assertEqual((done.returncode, done.stderr), (1, b"swprofctl: swprofd does not know local-1 any more\n"))

    def test_nothing(self):
        done = self.ask([{"id": "local-1", "state": "over"}], "task", "start", "/x", "--service=s", "--wait", "--json")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b'"local-1"', done.stdout)
        self.assertIn(b"no request", done.stderr)

    def test_slow(self):
        self.assertEqual(self.ask([], "segments").returncode, 0)


if __name__ == "__main__":
    unittest.main()
