# SPDX-License-Identifier: Apache-2.0
"""Hosts that allow less: what the check says of them, and that the daemon profiles without BPF."""

import json
import os
import socket
import subprocess
import unittest

from swprofd_test import BUILD, SwprofdTest
from test_truth import function

NO_BPF = "-bpf,-perfmon,-sys_admin"
NOTHING = NO_BPF + ",-sys_ptrace"


def without(capabilities):
    return ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]


def check(socket_path, *wrapper, options=("--json",)):
    return subprocess.run([*wrapper, BUILD / "daemon/swprofctl", f"--socket={socket_path}", *options, "check"],
                          capture_output=True, text=True, timeout=90)


class WithoutBpf(SwprofdTest):
    daemon_wrapper = without(NO_BPF)

    def test_falls_back_and_profiles(self):
        self.assertIn("no BPF here, so each sample of a thread that has moved on stops it", self.daemon.log())
        self.assertIn("missing: CAP_BPF, CAP_PERFMON", self.daemon.log())
        self.assertEqual(self.daemon.status()["capture"]["backend"], "ptrace")
        self.peer.create_task("diagram", "/diagram", count=2)
        lines = self.program("diagram", "diagram", "one", 2).finish()
        for t in lines:
            got = self.settled_snapshots(t["segment"])
            self.assert_contiguous(got)
            self.assertTrue(got)
            paths = [[function(f) for f in s["stack"]] for s in got]
            for path in paths:
                self.assertIn("main", path)
            self.assertTrue(any(p[p.index("main"):][:4] == ["main", "A", "B", "C"] for p in paths), paths)
        c = self.daemon.counters()
        # It sleeps in two places most of the time: it is not stopped there again and again.
        self.assertGreater(c["samples_repeated"], c["samples_captured"] / 2)
        # Of what the program below is stopped in, only epoll_wait() tells it (signal(7)).
        self.peer.create_task("busy", "/busy", period=10, count=1)
        [t] = self.program("busy", "busy", "one", 1, 50, 100).finish()
        self.assertEqual(t["eintr"], 0)
        self.assertLessEqual(t["eintr_epoll"], 50)

        result = check(self.daemon.control_socket, *self.daemon_wrapper)
        self.assertEqual(result.returncode, 0, result)
        report = json.loads(result.stdout)
        self.assertEqual((report["works"], report["backend"]), (True, "ptrace"))
        self.assertEqual(report["daemon"]["backend"], "ptrace")
        self.assertEqual(report["daemon"]["oap_state"], "ready")


class Check(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to give up rights")

    def facts(self, result):
        report = json.loads(result.stdout)
        self.assertEqual(list(report), ["version", "works", "backend", "daemon", "facts"])
        self.assertIsNone(report["daemon"])
        for fact in report["facts"]:
            self.assertEqual(list(fact), ["name", "ok", "text", "fix"])
            self.assertIn(fact["ok"], (True, False, None))
            self.assertTrue(fact["text"])
            self.assertEqual(fact["fix"] == "", fact["ok"] is True, fact)
        return report, {fact["name"]: fact for fact in report["facts"]}

    def test_rights(self):
        report, facts = self.facts(check("/nonexistent", *without(NO_BPF)))
        self.assertEqual(list(facts), ["kernel", "btf", "lockdown", "perf_event_paranoid", "ptrace_scope",
                                       "capabilities", "perf_event", "bpf/syscall", "bpf/iter", "ptrace",
                                       "backend", "oap"])
        self.assertIs(facts["bpf/iter"]["ok"], False)
        self.assertIn("CAP_BPF", facts["capabilities"]["text"])
        self.assertEqual((report["works"], report["backend"]), (True, "ptrace"))

    def test_nothing_works(self):
        result = check("/nonexistent", *without(NOTHING))
        self.assertEqual(result.returncode, 1, result)
        report, facts = self.facts(result)
        self.assertEqual((report["works"], report["backend"]), (False, None))
        self.assertIs(facts["ptrace"]["ok"], False)
        text = check("/nonexistent", *without(NOTHING), options=())
        self.assertEqual(text.returncode, 1)
        self.assertRegex(text.stdout, r"(?m)^ptrace +no  .*CAP_SYS_PTRACE.*; fix: ")

    def test_broken_configuration(self):
        result = check("/nonexistent", "env", "SW_AGENT_PROFILE_MAX_PARALLEL=nonsense")
        self.assertEqual((result.returncode, result.stdout), (1, ""), result)
        self.assertIn("SW_AGENT_PROFILE_MAX_PARALLEL", result.stderr)
        self.assertIn("it fails with status 1", result.stderr)

    def test_another_user_is_told_so(self):
        _, facts = self.facts(check("/nonexistent", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
        for name in ("perf_event", "bpf/syscall", "bpf/iter", "ptrace", "backend"):
            self.assertIsNone(facts[name]["ok"], facts[name])
            self.assertEqual(facts[name]["fix"], "ask as root")
        self.assertEqual(facts["lockdown"]["ok"] is None, facts["lockdown"]["text"] == "unknown")

    def test_oap(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            server = f"127.0.0.1:{s.getsockname()[1]}"
            env = dict(os.environ, SW_AGENT_COLLECTOR_BACKEND_SERVICES=server)

            def oap():
                out = subprocess.run([*without(NOTHING), BUILD / "daemon/swprofd", "--check-host"], env=env,
                                     stdout=subprocess.PIPE, text=True, timeout=90, check=True).stdout
                return json.loads(out.splitlines()[-1])

            self.assertIs(oap()["ok"], False)
            s.listen()
            self.assertEqual(oap(), {"name": "oap", "ok": True, "text": f"{server}: accepts connections", "fix": ""})


if __name__ == "__main__":
    unittest.main()
