# SPDX-License-Identifier: Apache-2.0
"""For tests in Python: start an OAP peer, talk to it, stop it.

    with harness.Peer() as peer:
        task = peer.create_task("svc", "/slow")
        ... give peer.grpc_address to the daemon ...
        peer.wait_until(lambda recorded: recorded["finishes"], 70)
"""

import json
import pathlib
import signal
import subprocess
import tempfile

from peer.client import Client, OapError, profiled_windows, wait_until  # noqa: F401

PROGRAM = pathlib.Path(__file__).resolve().with_name("oap-peer")


class Peer(Client):
    """A peer process of our own. It ends with the thread that started it."""

    def __init__(self, *, grpc_port=0, http_port=0, cache_delay_ms=0, options=()):
        super().__init__(None)
        self._options = [f"--grpc-port={grpc_port}", f"--http-port={http_port}",
                         f"--cache-delay-ms={cache_delay_ms}", *options]
        self._process = None
        self.grpc_address = None

    def start(self, timeout=15):
        with tempfile.TemporaryDirectory() as folder:
            ready = pathlib.Path(folder) / "ready"
            self._process = subprocess.Popen([PROGRAM, *self._options, f"--ready-file={ready}"])
            try:
                wait_until(lambda: ready.exists() or self._process.poll() is not None, timeout)
                if not ready.exists():
                    raise OapError(f"the peer ended with {self._process.returncode}")
                ports = json.loads(ready.read_text())
            except BaseException:
                self.stop()
                raise
        self.grpc_address = f"127.0.0.1:{ports['grpc']}"
        self.address = f"127.0.0.1:{ports['http']}"
        return self

    def stop(self, timeout=10):
        """Return: the exit code."""
        self._process.send_signal(signal.SIGCONT)   # it may be paused
        self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def pause(self):
        """From now on its connections stand, and nothing is read or answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def kill(self):
        """It has no time for a word."""
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def wait_until(self, predicate, timeout=10):
        """Wait until predicate(recorded) is true. Return: what was recorded."""
        def check():
            recorded = self.recorded()
            return predicate(recorded) and recorded
        return wait_until(check, timeout)

    @staticmethod
    def streams(recorded):
        """The snapshot streams among the recorded calls."""
        return [c for c in recorded["calls"] if c["method"] == "collectSnapshot"]
