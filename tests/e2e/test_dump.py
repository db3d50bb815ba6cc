# SPDX-License-Identifier: Apache-2.0
"""swprofctl dump. Environment: SWPROFD_BUILD."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from swprofd_test import BUILD, Daemon, wait_until

NOBODY = 65534
HIDES = """
import ctypes
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
print(flush=True)
input()
"""
THREADS = """
import threading, time
def parked(i):
    threading.Event().wait()
def busy():
    while True:
        pass
for i in range(%d):
    threading.Thread(target=parked, args=(i,), daemon=True).start()
threading.Thread(target=busy, daemon=True).start()
print(flush=True)
input()
"""


@unittest.skipIf(os.geteuid() != 0, "needs root, to read the stack of another process")
class Dump(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """One for all: it keeps nothing of what it is asked."""
        cls.daemon = Daemon(cls.enterClassContext(tempfile.TemporaryDirectory()), "127.0.0.1:1")
        cls.addClassCleanup(cls.daemon.kill)
        cls.daemon.start()

    @classmethod
    def tearDownClass(cls):
        """It has leaked nothing, with sanitizers."""
        cls.daemon.stop()

    def start(self, n, **options):
        """Return: the process, once all its threads are where they stay."""
        pid = self.run_python(THREADS % n, **options)

        def settled():
            stacks = {t["tid"]: t["stack"] for t in self.dump(pid)}
            return stacks[pid][:1] == ["[read fd 0]"] and sum(
                s[:1] == ["[futex_wait]"] and any(".parked: " in f for f in s) for s in stacks.values()) == n
        wait_until(settled, 60, "the threads to settle")
        return pid

    def run_python(self, program, **options):
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, **options)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        process.stdout.readline()
        return process.pid

    def dump(self, pid):
        done = self.daemon.ctl("--json", "dump", str(pid))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["threads"]

    def switches(self, pid):
        """How often each thread has left a CPU."""
        found = {}
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/status", encoding="utf-8") as f:
                found[int(tid)] = re.findall(r"ctxt_switches:\s*(\d+)", f.read())
        return found

    def test_all_threads(self):
        pid = self.start(500)
        threads = self.dump(pid)
        self.assertEqual({t["tid"] for t in threads}, set(map(int, os.listdir(f"/proc/{pid}/task"))))
        self.assertTrue(all(t["pid"] == pid for t in threads))
        parked = [t for t in threads if any(".parked: " in s for s in t["stack"])]
        self.assertEqual(len(parked), 500)
        self.assertTrue(all(t["stack"][-1].find("._bootstrap: ") > 0 for t in parked), parked[0])
        busy = [t for t in threads if any(".busy: " in s for s in t["stack"])]
        self.assertEqual(len(busy), 1)
        main = next(t for t in threads if t["tid"] == pid)
        self.assertEqual((main["state"], main["stack"][0]), ("blocked", "[read fd 0]"))

    def test_nothing_is_stopped(self):
        """A thread that waits is neither stopped nor woken up for it."""
        pid = self.start(50)

        def undisturbed():
            before = self.switches(pid)
            waits = {t["tid"] for t in self.dump(pid) if t["state"] == "blocked"}
            # Those that had just begun may still have been on their way.
            return len(waits) >= 50 and all(before[tid] == n for tid, n in self.switches(pid).items() if tid in waits)
        wait_until(undisturbed, 30, "threads that do not leave a CPU while they are looked at")

    def test_text(self):
        pid = self.start(1)
        done = self.daemon.ctl("dump", str(pid))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, rf"(?m)^thread {pid} python3[\d.]*: blocked\n    \[read fd 0\]\n")
        tid = next(t for t in map(int, os.listdir(f"/proc/{pid}/task")) if t != pid)
        done = self.daemon.ctl("dump", str(tid))
        self.assertEqual(re.findall(r"(?m)^thread (\d+)", done.stdout), [str(tid)])

    def test_native(self):
        process = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        # It has to get there first.
        wait_until(lambda: self.dump(process.pid)[0]["stack"][:1] == ["[clock_nanosleep]"], 30, "sleep to sleep")
        [thread] = self.dump(process.pid)
        self.assertEqual((thread["name"], thread["stack"][0]), ("sleep", "[clock_nanosleep]"))
        self.assertIn("libc_start_call_main", " ".join(thread["stack"]))

    def record(self, pid, *options):
        """What a report of it says, at once and from a file."""
        path = os.path.join(self.daemon.folder, "recorded")
        done = self.daemon.ctl("record", "--duration=500ms", f"--output={path}", *options, str(pid))
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        done = self.daemon.ctl("--json", "report", f"--input={path}")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)

    def test_record(self):
        """What a frame is, is known from where it came."""
        kinds = {}
        for e in self.record(self.start(1))["elements"]:
            kinds.setdefault(e["kind"], set()).add(e["signature"])
        self.assertEqual(set(kinds), {"python", "native", "waiting"})
        self.assertTrue({".parked: ", ".busy: "} <= {s[s.rfind("."):s.rfind(" ") + 1] for s in kinds["python"]}, kinds)
        self.assertIn("[read fd 0]", kinds["waiting"])
        self.assertTrue(all(s.startswith("[") for s in kinds["waiting"]))
        self.assertIn("read:", " ".join(kinds["native"]))

    def test_names_are_text(self):
        """Of programs that would steer a terminal or a page."""
        name = "\x1b[2J<b>"
        pid = self.run_python(f"open('/proc/self/comm', 'w').write({name!r}); print(flush=True); input()")
        done = self.daemon.ctl("dump", str(pid))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(r" \x1b[2J<b>: blocked", done.stdout)
        done = self.daemon.ctl("record", "--duration=1ms", str(pid))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertNotIn("\x1b", done.stdout)

    def test_interrupt(self):
        """What there is by then is shown; how far it is, is told on a terminal."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        record = subprocess.Popen([BUILD / "daemon/swprofctl", f"--socket={self.daemon.control_socket}", "record",
                                   "--duration=10m", str(self.start(1))], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=theirs, text=True)
        self.addCleanup(record.communicate)
        self.addCleanup(record.kill)
        os.close(theirs)
        told = b""
        while b"\r1 of 600 s" not in told:
            told += os.read(ours, 1000)
        record.send_signal(signal.SIGINT)
        out, _ = record.communicate(timeout=60)
        self.assertEqual(record.returncode, 0)
        self.assertIn(".parked: ", out)

    def test_process_ends(self):
        """What was had of it is shown."""
        process = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(0.5)"],
                                   stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        process.stdout.readline()
        done = self.daemon.ctl("record", "--duration=10m", str(process.pid))
        # One that has ended before it was looked at is none.
        self.assertIn((done.returncode, done.stderr[:20]), ((0, ""), (1, "swprofd: there is no")))
        self.assertNotEqual(done.stdout + done.stderr, "")

    def test_wrong_arguments(self):
        for arguments, code, text in ((["dump"], 2, "is needed"), (["dump", "x"], 2, "number"),
                                      (["dump", "0"], 2, "number"), (["dump", "1", "2"], 2, "one argument"),
                                      (["dump", "99999999"], 1, "no process 99999999"),
                                      (["record", "99999999"], 1, "no process 99999999"),
(["record"], 2, "is needed")):
            with self.subTest(arguments=arguments):
                done = self.daemon.ctl(*arguments)
                self.assertEqual((done.returncode, done.stdout), (code, ""))
                self.assertIn(text, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)

    def everyone_enters(self):
        """A folder with a swprofctl."""
        folder = self.enterContext(tempfile.TemporaryDirectory())
        os.chmod(folder, 0o755)
        os.chmod(self.daemon.folder, 0o755)
        shutil.copy(BUILD / "daemon/swprofctl", folder)
        return folder

    def test_program_with_more_rights(self):
        folder = self.everyone_enters()
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            self.skipTest(f"{folder} is on a file system without set-user-ID programs")
        secret = shutil.copy(shutil.which("sleep"), f"{folder}/secret")
        os.chmod(secret, 0o4755)
        nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "text": True, "stdin": subprocess.PIPE,
                  "stdout": subprocess.PIPE}
        program = subprocess.Popen([sys.executable, "-c", "import os; print(flush=True); input();"
                                    f"os.execv('{secret}', ['secret', '1000'])"], **nobody)
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        program.stdout.readline()
        record = subprocess.Popen([f"{folder}/swprofctl", f"--socket={self.daemon.control_socket}", "record",
                                   "--duration=10m", str(program.pid)], stderr=subprocess.PIPE, **nobody)
        self.addCleanup(record.communicate)
        self.addCleanup(record.kill)
        while json.loads(self.daemon.ctl("--json", "status").stdout)["capture"]["targets"] == 0:
            self.assertIsNone(record.poll())
        again = subprocess.run(record.args[:-2] + ["--duration=1s", str(program.pid)], user=NOBODY, group=NOBODY,
                               extra_groups=[], capture_output=True, text=True, timeout=60)
        self.assertEqual((again.returncode, again.stdout), (1, ""))
        self.assertIn("as many processes", again.stderr)
        program.stdin.write("\n")
        program.stdin.flush()
        record.wait(60)
        self.assertEqual((record.returncode, record.stdout.read()), (5, ""))
        self.assertIn("its own user", record.stderr.read())
        self.assertIsNone(program.poll())

    def test_who_may(self):
        program = f"{self.everyone_enters()}/swprofctl"

        def as_nobody(*command):
            return subprocess.run([program, f"--socket={self.daemon.control_socket}", *command], user=NOBODY,
                                  group=NOBODY, extra_groups=[], capture_output=True, text=True, timeout=30)

        ours, theirs = self.start(1), self.start(1, user=NOBODY, group=NOBODY, extra_groups=[])
        hides = self.run_python(HIDES, user=NOBODY, group=NOBODY, extra_groups=[])
        self.assertEqual(as_nobody("dump", str(theirs)).returncode, 0)
        for command in (["dump", str(ours)], ["dump", "1"], ["dump", str(hides)], ["status"], ["top"]):
            done = as_nobody(*command)
            self.assertEqual((done.returncode, done.stdout), (5, ""), command)
            self.assertIn("only root", done.stderr)


if __name__ == "__main__":
    unittest.main()
