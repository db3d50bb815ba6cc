# SPDX-License-Identifier: Apache-2.0
"""A real daemon with a configuration of its own, beside an OAP peer and instrumented programs.

The build directory comes from SWPROFD_BUILD (set by meson). Everything lives in one temporary directory.
SWPROFD_TEST_SLOW: how many times slower than a real machine an emulated one is taken to be. Periods, programs and
timeouts are that much longer there.
SWPROFD_TEST_OPTIONS: options for each daemon; SWPROFD_TEST_WRAPPER: a command that runs it, for tests that have none.
"""

import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

TESTS = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ["SWPROFD_BUILD"])
SLOW = int(os.environ.get("SWPROFD_TEST_SLOW", "1"))
sys.path.insert(0, str(TESTS / "peer"))

from harness import Peer  # noqa: E402


def wait_until(predicate, timeout, what="condition"):
    """Polls until the predicate gives something true, and returns that."""
    end = time.monotonic() + timeout * SLOW
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"timed out after {timeout} s waiting for {what}")
        time.sleep(0.02)


class Daemon:
    """swprofd as systemd starts it (notify socket), without systemd. `oap`: None: as configured."""

    def __init__(self, folder, oap, options=(), config="", wrapper=()):
        self.folder = pathlib.Path(folder)
        self.span_socket = str(self.folder / "span.sock")
        self.control_socket = str(self.folder / "control.sock")
        self.config = self.folder / "swprofd.yaml"
        self.configure(config)
        self.oap = oap
        self.options = list(options)
        self.wrapper = list(wrapper)
        self.log_file = self.folder / "swprofd.log"
        self.process = None

    def configure(self, config):
        """For the next start or reload."""
        self.config.write_text(f"""
span_socket: {self.span_socket}
control_socket: {self.control_socket}
state_dir: {self.folder}/state
log_level: debug
{config}
""")

    def start(self, timeout=30):
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = str(self.folder / "notify.sock")
        if os.path.exists(path):
            os.unlink(path)
        notify.bind(path)
        notify.settimeout(timeout)
        env = dict(os.environ, NOTIFY_SOCKET=path)
        env.setdefault("SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL", "1")
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, BUILD / "daemon/swprofd", f"--config={self.config}",
                 *([f"--oap={self.oap}"] if self.oap else []), *self.options],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while b"READY=1" not in notify.recv(4096):
                pass
        except socket.timeout:
            raise AssertionError(f"the daemon did not become ready:\n{self.log()}") from None
        finally:
            notify.close()
        return self

    def stop(self, timeout=30):
        """Return: seconds from SIGTERM to the end. The daemon must have ended well."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        took = time.monotonic() - begin
        assert code == 0, f"the daemon ended with {code}:\n{self.log()}"
        return took

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self):
        return self.log_file.read_text(errors="replace")[-8000:]

    def ctl(self, *args):
        return subprocess.run([BUILD / "daemon/swprofctl", f"--socket={self.control_socket}", *args],
                              capture_output=True, text=True, timeout=30)

    def status(self):
        done = self.ctl("--json", "status")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def counters(self):
        return {c["name"]: int(c["value"]) for c in self.status()["counters"]}


class Program:
    """An instrumented program; prints one JSON object a line."""

    def __init__(self, daemon, name, *args, env=None):
        env = dict(os.environ, **(env or {}))
        env["SWPROFD_SOCKET"] = daemon.span_socket
        self.process = subprocess.Popen([BUILD / "tests/e2e/programs" / name, *map(str, args)], env=env,
                                        stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)

    def line(self):
        line = self.process.stdout.readline()
        assert line, "the program ended early"
        return json.loads(line)

    def finish(self, timeout=120):
        """Return: all lines that remain."""
        out, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, f"the program ended with {self.process.returncode}: {out}"
        return [json.loads(line) for line in out.splitlines()]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stdin):
            pipe.close()


class SwprofdTest(unittest.TestCase):
    """Each test has its own peer and daemon."""

    daemon_options = tuple(filter(None, os.environ.get("SWPROFD_TEST_OPTIONS", "").split()))
    daemon_config = ""
    daemon_wrapper = tuple(os.environ.get("SWPROFD_TEST_WRAPPER", "").split())

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="swprofd-test.")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.start_oap()
        self.daemon = Daemon(folder.name, self.peer.grpc_address, self.daemon_options, self.daemon_config,
                             self.daemon_wrapper)
        self.addCleanup(self.end_daemon)
        self.start_daemon()

    def start_oap(self):
        self.peer = Peer().start(timeout=15 * SLOW)
        self.addCleanup(self.peer.stop)

    def start_daemon(self):
        self.daemon.start()

    def has_failed(self):
        """Also while it is cleaned up."""
        result = self._outcome.result
        return any(self in (t, getattr(t, "test_case", None)) for t, _ in result.failures + result.errors)

    def end_daemon(self):
        if self.daemon.process is None:
            return
        try:
            if self.daemon.process.poll() is None:
                if self.has_failed():
                    print({k: v for k, v in self.daemon.counters().items() if v}, file=sys.stderr)
                self.daemon.stop()
            log = self.daemon.log()
            for bad in ("ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer"):
                self.assertNotIn(bad, log)
        finally:
            self.daemon.kill()
            if self.has_failed():
                print(self.daemon.log(), file=sys.stderr)

    def program(self, name, *args, **kwargs):
        program = Program(self.daemon, name, *args, **kwargs)
        self.addCleanup(program.kill)
        return program

    def snapshots(self, segment, wait=None, timeout=60):
        """The recorded snapshots of a segment, by sequence. `wait`: a predicate on that list to wait for."""
        def get():
            found = [s for s in self.peer.recorded()["snapshots"] if s["segmentId"] == segment]
            found.sort(key=lambda s: s["sequence"])
            return found if wait is None or wait(found) else None
        if wait is None:
            return get()
        return wait_until(get, timeout, f"snapshots of {segment}")

    def settled_snapshots(self, segment):
        """All snapshots of a segment that is over: waits until the daemon has nothing of it any more."""
        def settled():
            status = self.daemon.status()
            c = {c["name"]: int(c["value"]) for c in status["counters"]}
            # Those that were dropped in tails had never been queued.
            over = sum(c[f"snapshots_{end}"] for end in ("sent", "thinned", "ambiguous"))
            return not any(s["segment"] == segment for s in status["slots"]) and c["snapshots_queued"] == over
        wait_until(settled, 60, "the slot to be free and the buffer to be empty")
        return self.snapshots(segment)

    def lost(self):
        """How many due samples were lost, as counted by cause: few, and only while the machine is very busy."""
        c = self.daemon.counters()
        lost = sum(c[f"samples_{cause}"] for cause in ("late", "unstable", "fault", "queue_full", "no_stack"))
        # An emulated machine is as slow as its host is busy.
        self.assertLessEqual(lost, c["samples_due"] * (0.5 if SLOW == 1 else 0.95), c)
        return lost

    def assert_contiguous(self, snapshots):
        self.assertEqual([s["sequence"] for s in snapshots], list(range(len(snapshots))))
        times = [s["time"] for s in snapshots]
        self.assertEqual(times, sorted(times))


def tree_durations(peer, segment, start, end):
    """function name → [duration, ...] over the nodes of the OAP's analysis (names without file and line)."""
    nodes = {}
    for tree in peer.analyze(segment, start, end)["trees"]:
        for e in tree["elements"]:
            nodes.setdefault(e["codeSignature"], []).append(e)
    return nodes


def test_names(suite):
    for test in suite:
        yield from test_names(test) if isinstance(test, unittest.TestSuite) else [test.id().partition(".")[2]]


def run_alone(name):
    """One test of the script in a process of its own. Return: what it says, and whether it passed."""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, sys.argv[0], name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, text=True)
    took = time.monotonic() - begin
    return f"{name}: {took:.1f} s\n{done.stdout}", done.returncode == 0


def main(n_at_once, first=()):
    """The tests of a script that mostly wait. `first`: those that take longest."""
    if len(sys.argv) > 1:
        unittest.main()
    names = sorted(test_names(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])),
                   key=lambda name: name not in first)
    n_failed = 0
    with concurrent.futures.ThreadPoolExecutor(n_at_once) as pool:
        for said, passed in pool.map(run_alone, names):
            print(said, file=sys.stderr, flush=True)
            n_failed += not passed
    print(f"{len(names)} tests, {n_failed} failed", file=sys.stderr)
    sys.exit(n_failed > 0)
