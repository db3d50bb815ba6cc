#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `swprofctl top` shows, of a daemon that is none. Environment: SWPROFCTL."""

import json
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import unittest

import profiles
from google.protobuf import descriptor_pb2, message_factory
from profile_case import Case, run
from test_text import on_terminal

NASTY = "\x1b[2J<script>\n\u009b2J\u202e"


def _messages():
    with tempfile.TemporaryDirectory() as out:
        path = pathlib.Path(out) / "descriptors"
        subprocess.run(["protoc", f"-I{profiles.ROOT}", f"--descriptor_set_out={path}", "control.proto"], check=True)
        return message_factory.GetMessages(descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file)


MESSAGES = _messages()
Request, Reply = MESSAGES["swprof.control.Request"], MESSAGES["swprof.control.Reply"]


class FakeDaemon(threading.Thread):
    """Answers each observe by that profile, each status by that one."""

    def __init__(self, path, profile, status, refuses=False):
        super().__init__(daemon=True)
        self.profile, self.status, self.refuses = profile, status, refuses
        self.observed = []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(8)
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as f:
                request = Request.FromString(f.read(int.from_bytes(f.read(4), "little")))
                reply = Reply(protocol=1)
                self.answer(request, reply)
                bytes_ = reply.SerializeToString()
                f.write(len(bytes_).to_bytes(4, "little") + bytes_)

    def answer(self, request, reply):
        if self.refuses:
            reply.error, reply.refused = "no", True
        elif request.WhichOneof("verb") == "observe":
            self.observed.append(request.observe)
            reply.profile = self.profile
        else:
            reply.status.CopyFrom(self.status)

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.join()


def busy():
    """Two requests: one computes, in a function at two lines and in itself again; one reads."""
    b = profiles.Builder()
    b.segment("1/11", [(i, i * 10000, ("main", "srv/app.py.work: 3", "srv/app.py.work: 4", "hot.c.spin:7" if i % 2
                                       else "hot.c.spin:8")) for i in range(60)], pid=1, tid=11)
    b.segment("1/12", [(i, i * 10000, ("main", "read.c.read:26", "[read fd 3]"), profiles.BLOCKED) for i in range(40)],
              pid=1, tid=12)
    # The same thread's request before that
    b.segment("1/12", [(0, 0, ("main", "old.c.old:1"))], pid=1, tid=12, start_wall_ms=1600000000000)
    return b


def status(*tids, **more):
    reply = Reply()
    reply.status.tasks.add(id="t1", endpoint=more.pop("endpoint", "/cart"))
    for i, tid in enumerate(tids):
        reply.status.slots.add(task="t1", segment=f"s{tid}", pid=1, tid=tid, state="profiling", age_ms=1500 * (i + 1),
                               on_cpu_ns=3000000, blocked_ns=1000000)
    return reply.status


class TestTop(Case):
    def daemon(self, b, status_, **more):
        path = self.dir / "control.sock"
        daemon = FakeDaemon(path, b.message.SerializeToString(), status_, **more)
        self.addCleanup(daemon.close)
        self.options = (f"--socket={path}",)
        return daemon

    def top(self, *arguments):
        done = run(*self.options, "top", *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return done.stdout.decode()

    def test_text(self):
        daemon = self.daemon(busy(), status(11, 12, 13))
        self.assertEqual(self.top("--interval=250ms"), """\
3 slots, 101 samples, 60% on CPU, 40% blocked

    TID          AGE   CPU  ENDPOINT, NOW
     13          4 s   75%  /cart
     12          3 s   75%  /cart  read.c.read:26 [read fd 3]
     11          1 s   75%  /cart  hot.c.spin:7

  SELF  TOTAL  FUNCTION
 59.4%  59.4%  hot.c.spin
 39.6%  39.6%  [read fd 3]
  1.0%   1.0%  old.c.old
  0.0% 100.0%  main
  0.0%  59.4%  srv/app.py.work
  0.0%  39.6%  read.c.read
""")
        self.assertEqual([(o.pid, o.tid, o.duration_ms) for o in daemon.observed], [(0, 0, 250)])
        self.assertEqual(self.top("-n", "2"), self.top() + "\n" + self.top())

    def test_nothing(self):
        self.daemon(profiles.Builder(), status())
        self.assertEqual(self.top(), "0 slots, 0 samples, 0% on CPU, 0% blocked\n")
        top = json.loads(self.top("--json"))
        self.assertEqual((top["samples"], top["slots"], top["functions"]), (0, [], []))

    def test_json(self):
        self.daemon(busy(), status(11, 13))
        top = json.loads(self.top("--json"))
        self.assertEqual(list(top), ["version", "samples", "sampled_us", "slots", "functions"])
        self.assertEqual([(s["tid"], s["endpoint"], s["stack"]) for s in top["slots"]],
                         [(11, "/cart", ["hot.c.spin:7", "srv/app.py.work: 4", "srv/app.py.work: 3", "main"]),
                          (13, "/cart", [])])
        self.assertEqual(top["functions"][0],
                         {"function": "hot.c.spin", "kind": "native", "self_us": 600000, "total_us": 600000})
        self.assertEqual(sum(f["self_us"] for f in top["functions"]), top["sampled_us"])

    def on_terminal(self, columns, *arguments):
        """What the last redrawing leaves there."""
        text = on_terminal(columns, *self.options, "top", *arguments, NO_COLOR="1")
        self.assertTrue(text.endswith("\x1b[J"))
        screens = text.removesuffix("\x1b[J").split("\x1b[H")[1:]
        self.assertTrue(all(line.endswith("\x1b[K") for s in screens for line in s.splitlines()[:-1]), screens)
        return screens[-1].replace("\x1b[K", "").removesuffix("\x1b[J")

    def test_terminals(self):
        self.daemon(busy(), status(11, 12, *range(20, 60)))
        for columns in (20, 40, 80, 132):
            lines = self.on_terminal(columns, "-n", "3").splitlines()
            self.assertEqual([line for line in lines if len(line) > columns], [])
            self.assertLess(len(lines), 24)     # rows
            self.assertTrue(any("% hot.c.spin" in line or "%  hot.c.spin" in line for line in lines), lines)
            self.assertIn("33 more", lines)

    def test_names_are_text(self):
        b = profiles.Builder()
        b.segment("s", [(0, 0, (NASTY + "f", NASTY + "g"))], pid=1, tid=11)
        self.daemon(b, status(11, endpoint="/" + NASTY))
        self.assertEqual(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", self.top()), [])
        self.assertNotIn("\x1b", self.top("--json"))
        self.assertEqual(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", self.on_terminal(80, "-n1")), [])

    def test_failures(self):
        self.options = (f"--socket={self.dir}/nobody",)
        self.assertIn("not running", self.fails(3, *self.options, "top"))
        self.daemon(profiles.Builder(), status(), refuses=True)
        done = run(*self.options, "top")
        self.assertEqual((done.returncode, done.stdout), (5, b""))
        for wrong in ("--iterations=0", "--iterations=x", "--interval=0", "--interval=x", "--interval=2h"):
            self.fails(2, "top", wrong)
        self.assertIn("one verb", self.fails(2, "top", "1"))

    def test_no_profile(self):
        b = profiles.Builder()
        b.message.format = 9
        self.daemon(b, status())
        self.assertIn("no proper answer", self.fails(1, *self.options, "top"))


if __name__ == "__main__":
    unittest.main()
