# SPDX-License-Identifier: Apache-2.0
"""The connection to the OAP: several servers, TLS, tokens; what goes wrong with each is said, once."""

import signal
import sys
import time
import unittest

from certificates import Authority
from swprofd_test import SLOW, SwprofdTest, wait_until

from harness import Peer

TOKEN = "s3cret-token-of-the-test"


class Connection(SwprofdTest):
    """Tests start their own OAPs and daemon."""

    def start_oap(self):
        """See peer_of()."""
        self.peer = Peer()

    def start_daemon(self):
        """See start()."""

    def peer_of(self, *options, **kwargs):
        peer = Peer(options=options, **kwargs).start(timeout=15 * SLOW)
        self.addCleanup(peer.stop)
        return peer

    def configure(self, servers, **keys):
        addresses = ",".join(s if isinstance(s, str) else s.grpc_address for s in servers)
        lines = [f"  servers: {addresses}"] + [f"  {k}: {v}" for k, v in keys.items()]
        self.daemon.configure("oap:\n" + "\n".join(lines) + "\n")

    def start(self, servers, attach=True, **keys):
        self.configure(servers, **keys)
        self.daemon.start()
        if attach:
            self.attach()

    def attach(self):
        """A program that has nothing to say, for whose tasks the OAP is asked."""
        self.program("idle", "idler", "one", "/idle").line()

    def oap(self):
        return self.daemon.status()["oap"]

    def wait_state(self, state, error="", timeout=30):
        """Return: the OAP's part of the status, once it has that state, and that in its error."""
        def check():
            oap = self.oap()
            return oap if oap["state"] == state and error in oap.get("error", "") else None
        return wait_until(check, timeout, f"state {state} {error}")

    def logged(self, text):
        """How many lines have it."""
        return len([line for line in self.daemon.log_file.read_text(errors="replace").splitlines()
                    if text in line])


class Security(Connection):
    def setUp(self):
        super().setUp()
        self.authority = Authority(self.folder / "authority")
        self.token_file = self.folder / "token"
        self.token_file.write_text(TOKEN + "\n")

    def tls_peer(self, certificate=None, mutual=False, token=False):
        certificate, key = certificate or self.authority.certificate("server")
        options = [f"--tls-certificate={certificate}", f"--tls-key={key}"]
        if mutual:
            options.append(f"--tls-client-ca={self.authority.ca}")
        if token:
            options.append(f"--token-file={self.token_file}")
        return self.peer_of(*options)

    def assert_told(self, text, state="failing", n=1):
        """In the status and in the log, and there once, whatever is tried again. Return: how often that was."""
        self.wait_state(state, text)
        before = self.daemon.counters()["calls_failed"]
        wait_until(lambda: self.daemon.counters()["calls_failed"] > before + 1, 90, "some more attempts")
        self.assertEqual(self.logged(text), n, self.daemon.log())
        self.assertEqual(self.logged("trying again"), n, self.daemon.log())

    def test_mutual_and_token(self):
        peer = self.tls_peer(mutual=True, token=True)
        certificate, key = self.authority.certificate("client")
        self.start([peer], tls="true", ca_file=self.authority.ca, certificate_file=certificate, key_file=key,
                   authentication=f"file:{self.token_file}")
        self.wait_state("ready")
        self.assertEqual({c["authentication"] for c in peer.recorded()["calls"]}, {TOKEN})
        status = self.daemon.ctl("--json", "status").stdout
        for text in (status, self.daemon.log_file.read_text()):
            self.assertNotIn(TOKEN, text)
            self.assertNotIn("PRIVATE KEY", text)

    def test_wrong_authority(self):
        self.start([self.tls_peer()], tls="true", ca_file=Authority(self.folder / "other").ca)
        self.assert_told("its certificate is not by an authority of oap.ca_file")

    def test_system_authorities(self):
        self.start([self.tls_peer()], tls="true")
        self.assert_told("its certificate is not by an authority of the system")

    def test_expired_certificate(self):
        self.start([self.tls_peer(self.authority.certificate("old", expired=True))], tls="true",
                   ca_file=self.authority.ca)
        self.assert_told("its certificate has expired, on ")

    def test_name(self):
        peer = self.tls_peer(self.authority.certificate("other", names="DNS:oap.test"))
        self.start([peer], tls="true", ca_file=self.authority.ca)
        self.assert_told("its certificate is for another name than 127.0.0.1")
        self.configure([peer], tls="true", ca_file=self.authority.ca, server_name="oap.test")
        self.daemon.process.send_signal(signal.SIGHUP)
        self.wait_state("ready")

    def test_own_certificate_expired(self):
        certificate, key = self.authority.certificate("client", expired=True)
        self.start([self.tls_peer(mutual=True)], tls="true", ca_file=self.authority.ca,
                   certificate_file=certificate, key_file=key)
        self.assert_told("our own certificate, oap.certificate_file, has expired")

    def test_no_certificate(self):
        self.start([self.tls_peer(mutual=True)], tls="true", ca_file=self.authority.ca)
        self.assert_told("does it ask for oap.certificate_file?")

    def test_wrong_token(self):
        wrong = self.folder / "wrong"
        wrong.write_text("wr0ng\n")
        peer = self.peer_of(f"--token-file={self.token_file}")
        self.start([peer], authentication=f"file:{wrong}")
        self.assert_told("PERMISSION_DENIED: Authentication failed")
        self.assertEqual(self.logged("is the token of oap.authentication wrong?"), 1)
        self.assertEqual(self.logged("wr0ng"), 0)
        wrong.write_text(TOKEN)
        self.daemon.process.send_signal(signal.SIGHUP)
        self.wait_state("ready")

    def test_no_tls_there(self):
        self.start([self.peer_of()], tls="true", ca_file=self.authority.ca)
        self.assert_told("does it speak TLS?")


class Failover(Connection):
    """Which of the servers is the first is left to chance."""

    def start_pair(self, **keys):
        self.peers = [self.peer_of(), self.peer_of()]
        self.start(self.peers, **keys)
        server = self.wait_state("ready")["server"]
        self.peers.sort(key=lambda p: p.grpc_address != server)
        return self.peers

    def wait_server(self, peer, timeout=60):
        """Return: seconds until it answers."""
        begin = time.monotonic()
        def check():
            oap = self.oap()
            return oap["server"] == peer.grpc_address and oap["state"] == "ready"
        wait_until(check, timeout, f"{peer.grpc_address} to be spoken to")
        return time.monotonic() - begin

    def test_frozen(self):
        first, second = self.start_pair()
        first.pause()
        took = self.wait_server(second)
        print(f"failover from a frozen server: {took:.1f} s", file=sys.stderr)

    def test_killed(self):
        first, second = self.start_pair()
        first.kill()
        took = self.wait_server(second)
        print(f"failover from a killed server: {took:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
