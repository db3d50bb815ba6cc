# SPDX-License-Identifier: Apache-2.0
"""The connection to the OAP: several servers, TLS, tokens; what goes wrong with each is said, once."""

import json
import pathlib
import signal
import subprocess
import sys
import time

from certificates import Authority
from proxy import Proxy
from swprofd_test import BUILD, SLOW, SwprofdTest, main, wait_until

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

    def test_files(self):
        """What is wrong with them is said by --check-config, and at the start."""
        certificate, key = self.authority.certificate("client")
        _, other_key = self.authority.certificate("other")
        missing = self.folder / "missing"
        nothing = self.folder / "nothing"
        nothing.touch()
        for keys, error in (
                ({"ca_file": missing}, f"oap.ca_file: {missing}: No such file or directory"),
                ({"ca_file": self.token_file}, f"oap.ca_file: {self.token_file}: there is no certificate (PEM) in it"),
                ({"certificate_file": certificate}, "oap.key_file: there must be the key of oap.certificate_file"),
                ({"key_file": key}, "oap.certificate_file: there must be the certificate of oap.key_file"),
                ({"certificate_file": certificate, "key_file": other_key},
                 f"oap.key_file: {other_key}: it is not the key (PEM, without a passphrase) of oap.certificate_file"),
                ({"authentication": f"file:{nothing}"},
                 f"oap.authentication: {nothing}: its first line is no token of printable ASCII"),
                ({"tls": "false", "server_name": "x"}, "oap.tls: it must be true where there is a ca_file, "),
                ({"authentication": TOKEN}, "9:19: oap.authentication must say where the secret is: ")):
            with self.subTest(error):
                self.configure(["127.0.0.1:1"], **{"tls": "true", **keys})
                for options in (["--check-config"], []):
                    done = subprocess.run([BUILD / "daemon/swprofd", f"--config={self.daemon.config}", *options],
                                          capture_output=True, text=True, timeout=60)
                    self.assertEqual(done.returncode, 1, done)
                    self.assertIn(error, done.stderr)
                    self.assertEqual(done.stdout, "")
                    self.assertNotIn(TOKEN, done.stderr)

    def test_no_core_dump(self):
        self.start([self.tls_peer()], attach=False, tls="true", ca_file=self.authority.ca)
        limits = pathlib.Path(f"/proc/{self.daemon.process.pid}/limits").read_text()
        self.assertRegex(limits, r"(?m)^Max core file size +0 +0 ")

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


class Switching(Connection):
    """A program is profiled all the while. Both servers know of its task, as those of one OAP do."""

    def profile(self, peers, task="the-task"):
        """The task's name is its service's, too."""
        for peer in peers:
            peer.inject_task(task, id=task, endpointName="/wait", duration=15, dumpPeriod=10)
        self.profiled = self.program("idle", task, "one", "/wait", "span")
        self.profiled.line()
        self.segment = self.profiled.line()["segment"]

    def sequences(self, peer):
        return [s["sequence"] for s in peer.recorded()["snapshots"] if s["segmentId"] == self.segment]

    def wait_more(self, peer):
        before = len(self.sequences(peer))
        wait_until(lambda: len(self.sequences(peer)) > before, 30, "more snapshots")

    def assert_nothing_lost(self, peers, n_before=0):
        """But what is counted as ambiguous. Each is at one peer, once, and each peer got them in order. `n_before`:
        snapshots of other programs, before."""
        self.profiled.finish()
        wait_until(lambda: not self.daemon.status()["slots"], 30, "the slot to be free")

        def settled():
            c = self.daemon.counters()
            return c["snapshots_queued"] == sum(c[f"snapshots_{n}"] for n in ("sent", "thinned", "ambiguous")) and c
        counters = wait_until(settled, 30, "the buffer to be empty")
        got = [self.sequences(peer) for peer in peers]
        for sequences in got:
            self.assertEqual(sequences, sorted(sequences))
        together = sorted(sum(got, []))
        self.assertEqual(together, sorted(set(together)), "twice")
        missing = sorted(set(range(counters["snapshots_queued"] - n_before)) - set(together))
        self.assertLessEqual(len(missing), counters["snapshots_ambiguous"], missing)
        return counters

    def wait_server(self, peer, timeout=90):
        """Return: seconds until it answers."""
        begin = time.monotonic()

        def check():
            oap = self.oap()
            return oap["server"] == peer.grpc_address and oap["state"] == "ready"
        wait_until(check, timeout, f"{peer.grpc_address} to be spoken to")
        return time.monotonic() - begin

    def start_pair(self, **keys):
        """Return: the one that is spoken to, which chance decides, and the other."""
        peers = [self.peer_of(), self.peer_of()]
        self.start(peers, **keys)
        server = self.wait_state("ready")["server"]
        peers.sort(key=lambda p: p.grpc_address != server)
        return peers

    def test_frozen_and_back(self):
        first, second = peers = self.start_pair()
        self.profile(peers)
        self.wait_more(first)
        first.pause()
        took = self.wait_server(second)
        self.wait_more(second)
        print(f"failover from a frozen server: {took:.1f} s", file=sys.stderr)
        self.assertEqual(self.logged("no sign of life for 3000 ms; going on with"), 1, self.daemon.log())
        # Polled there, too.
        n_polls = len(second.recorded()["polls"])
        second.wait_until(lambda r: len(r["polls"]) > n_polls + 1, 30)
        first.resume()
        took = self.wait_server(first)
        print(f"return to it: {took:.1f} s", file=sys.stderr)
        self.wait_more(first)
        counters = self.assert_nothing_lost(peers)
        self.assertLessEqual(counters["snapshots_ambiguous"], 500)

    def test_killed(self):
        first, second = peers = self.start_pair()
        first.kill()
        took = self.wait_server(second)
        print(f"failover from a killed server: {took:.1f} s", file=sys.stderr)
        self.profile([second])
        self.wait_more(second)
        counters = self.assert_nothing_lost([second])
        self.assertEqual(counters["snapshots_ambiguous"], 0)

    def killed_amid_a_stream(self, redelivery):
        """SIGKILL for the only server, which has read a part of a stream; then it is back. Return: the numbers that
        came before, those that came after, and the counters at the end."""
        journal = self.folder / "journal"
        first = self.peer_of(f"--journal={journal}")
        self.start([first], redelivery=redelivery)
        self.wait_state("ready")
        self.profile([first])
        self.wait_more(first)
        first.fail("collectSnapshot", after_messages=5, hang=True, count=1)
        first.wait_until(lambda r: [c for c in first.streams(r) if c["messages"] >= 5 and c["status"] is None
                                    and not c["closed"]], 60)
        first.kill()
        wait_until(lambda: self.daemon.counters()["snapshots_ambiguous"], 60, "the stream to have failed")
        second = self.peer_of(grpc_port=int(first.grpc_address.rpartition(":")[2]))
        self.wait_more(second)
        self.profiled.finish()
        wait_until(lambda: not self.daemon.status()["slots"], 60, "the slot to be free")
        wait_until(lambda: int(self.oap()["buffered_snapshots"]) == 0, 60, "the buffer to be empty")
        before = [json.loads(line)["sequence"] for line in journal.read_text().splitlines()]
        after = self.sequences(second)
        self.assertEqual(before, list(range(len(before))))
        self.assertEqual(after, list(range(after[0], after[0] + len(after))))
        counters = self.daemon.counters()
        self.assertEqual(after[-1] + 1, counters["snapshots_queued"] - counters["snapshots_thinned"])
        return before, after, counters

    def test_killed_amid_a_stream(self):
        """What may have arrived is given up, and counted: nothing comes twice."""
        before, after, c = self.killed_amid_a_stream("at-most-once")
        self.assertGreater(after[0], before[-1])
        self.assertLessEqual(after[0] - len(before), c["snapshots_ambiguous"])
        self.assertEqual(c["snapshots_queued"],
                         c["snapshots_sent"] + c["snapshots_thinned"] + c["snapshots_ambiguous"])

    def test_killed_amid_a_stream_sent_again(self):
        """It comes again under the same numbers: nothing is missing."""
        before, after, c = self.killed_amid_a_stream("at-least-once")
        self.assertLessEqual(after[0], len(before))
        self.assertLessEqual(len(before) - after[0], c["snapshots_ambiguous"])
        self.assertEqual(c["snapshots_queued"], c["snapshots_sent"] + c["snapshots_thinned"])

    def test_satellite_without_its_backend(self):
        """It takes what it can queue, and fails what it has to ask the OAP for."""
        peer = self.peer_of()
        self.start([peer])
        self.wait_state("ready")
        self.profile([peer])
        self.wait_more(peer)
        for method in ("getProfileTaskCommands", "reportTaskFinish"):
            peer.fail(method, status="UNKNOWN", count=-1)
        self.wait_state("failing", "UNKNOWN")
        for _ in range(3):
            self.wait_more(peer)
        for method in ("getProfileTaskCommands", "reportTaskFinish"):
            peer.fail(method, count=0)
        self.wait_state("ready")
        counters = self.assert_nothing_lost([peer])
        self.assertEqual(counters["snapshots_ambiguous"], 0)
        self.assertEqual(counters["snapshots_kept"], 0)

    def test_name_moves(self):
        """A name is looked up again for each connection."""
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.2 oap.test\n")
        self.daemon.wrapper = ["unshare", "--mount", "sh", "-c", f"mount --bind {hosts} /etc/hosts && exec \"$@\"", "sh"]
        peer = self.peer_of()
        self.start([f"oap.test:{peer.grpc_address.rpartition(':')[2]}"])
        self.wait_state("failing")
        hosts.write_text("127.0.0.1 oap.test\n")
        self.wait_state("ready", timeout=120)

    def test_no_such_name(self):
        """Neither a name nor an address at which nobody is stands in the way."""
        peer = self.peer_of()
        self.start(["oap.invalid:11800", "127.0.0.1:1", peer])
        self.wait_server(peer)

    def test_unsupported_server(self):
        """One that has no profiling is left, with one warning."""
        first, second = self.start_pair()
        first.fail("getProfileTaskCommands", status="UNIMPLEMENTED", count=-1)
        self.wait_server(second)
        n_polls = len(second.recorded()["polls"])
        second.wait_until(lambda r: len(r["polls"]) > n_polls + 2, 60)
        self.assertEqual(self.logged("has no trace profiling"), 1, self.daemon.log())

    def test_all_refuse(self):
        peers = [self.peer_of(), self.peer_of()]
        for peer in peers:
            peer.fail(status="PERMISSION_DENIED", count=-1)
        self.start(peers)
        self.wait_state("failing", "PERMISSION_DENIED")
        before = self.daemon.counters()["calls_failed"]
        wait_until(lambda: self.daemon.counters()["calls_failed"] > before + 3, 90, "some more rounds")
        self.assertEqual(self.logged("refuses us"), 2, "one for each")
        peers[1].fail(count=0)
        self.wait_server(peers[1])

    def test_reload(self):
        """Another server, then another token, while snapshots stream: not one is lost."""
        token = self.folder / "token"
        token.write_text(TOKEN)
        first = self.peer_of()
        second = self.peer_of(f"--token-file={token}")
        self.start([first])
        self.wait_state("ready")
        self.profile([first, second])
        self.wait_more(first)
        self.configure([second], authentication=f"file:{token}")
        self.assertEqual(self.daemon.ctl("reload").returncode, 0)
        self.wait_server(second)
        self.wait_more(second)
        self.configure([first, second])
        token.write_text("another")
        self.daemon.ctl("reload")
        self.wait_more(first)
        counters = self.assert_nothing_lost([first, second])
        self.assertEqual(counters["snapshots_ambiguous"], 0)

    def test_reload_of_nonsense(self):
        peer = self.peer_of()
        self.start([peer])
        self.wait_state("ready")
        missing = self.folder / "missing"
        self.configure([peer], authentication=f"file:{missing}")
        self.assertNotEqual(self.daemon.ctl("reload").returncode, 0)
        self.assertEqual(self.logged(f"oap.authentication: {missing}: No such file or directory"), 1,
                         self.daemon.log())
        n_polls = len(peer.recorded()["polls"])
        peer.wait_until(lambda r: len(r["polls"]) > n_polls + 1, 30)

    def test_compression(self):
        """What a snapshot of a short stack takes on the wire."""
        peer = self.peer_of()
        proxy = Proxy(peer.grpc_address)
        self.addCleanup(proxy.stop)
        self.start([proxy])
        sizes = {}
        for compression in ("none", "gzip"):
            self.configure([proxy], compression=compression)
            self.daemon.ctl("reload")
            n_bytes, n_sent = proxy.n_sent, self.daemon.counters()["snapshots_sent"]
            self.profile([peer], f"task-{compression}")
            wait_until(lambda: len(self.sequences(peer)) > 300, 60, "snapshots")
            counters = self.assert_nothing_lost([peer], n_sent)
            sizes[compression] = (proxy.n_sent - n_bytes) / (counters["snapshots_sent"] - n_sent)
        print("bytes per snapshot:", ", ".join(f"{k} {v:.0f}" for k, v in sizes.items()), file=sys.stderr)
        self.assertLess(sizes["gzip"], sizes["none"])


if __name__ == "__main__":
    main(4, first=["Switching.test_frozen_and_back", "Switching.test_compression"])
