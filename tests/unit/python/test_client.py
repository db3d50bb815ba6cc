# SPDX-License-Identifier: Apache-2.0
"""The Python client against a fake daemon."""

import os
import signal
import socket
import threading
import time
import unittest
from unittest import mock

import swprof
from fake_daemon import FakeDaemon, F_SEAL_GROW, WORD_CLOSED, field
from swprof import _client, _wire


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.now = 1000.0
        for module in (swprof, _client):
            patch = mock.patch.object(module, "monotonic", lambda: self.now)
            patch.start()
            self.addCleanup(patch.stop)
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.addCleanup(swprof.close)
        self.watched = []
        self.addCleanup(swprof._watchers.clear)

    def init(self, **options):
        return swprof.init("svc", "inst", socket_path=self.daemon.path, **options)

    def connect(self, *operations, **options):
        """Return: the hello. The client has the list afterwards."""
        self.assertTrue(self.init(**options))
        self.assertTrue(self.daemon.accept())
        hello = self.daemon.receive()
        self.daemon.welcome()
        self.daemon.watch(*operations)
        self.now += _client.WELCOME_POLL_S
        self.assertEqual(swprof.watched(), bool(operations))
        return hello

    def reconnect(self, *operations):
        self.assertTrue(self.daemon.accept())
        self.assertEqual(self.daemon.receive()[0], "hello")
        self.daemon.welcome()
        self.daemon.watch(*operations)
        self.now += _client.WELCOME_POLL_S
        swprof.watched()

    def run_in_child(self, function):
        """Return: what the function returns in the child of a fork, a bool."""
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                code = 0 if function() else 1
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        self.assertIn(status >> 8, (0, 1), "the child failed")
        return status == 0


class Connecting(ClientTest):
    def test_hello(self):
        self.assertEqual(self.connect(agent=True), ("hello", {
            "protocol": 1, "service": "svc", "instance": "inst", "language": "python",
            "client": f"swprof {swprof.__version__}", "agent": 1}))

    def test_instance_is_made(self):
        swprof.init("svc", socket_path=self.daemon.path)
        self.daemon.accept()
        self.assertEqual(self.daemon.receive()[1]["instance"], f"{os.getpid()}@{os.uname().nodename}")

    def test_socket_of_the_environment(self):
        with mock.patch.dict(os.environ, SWPROFD_SOCKET=self.daemon.path):
            swprof.init("svc")
        self.assertTrue(self.daemon.accept())

    def test_same_names_again(self):
        self.connect("/x")
        self.assertTrue(self.init())
        self.assertFalse(self.daemon.accept())
        self.assertTrue(swprof.watched("/x"))

    def test_other_names(self):
        self.connect("/x")
        span = swprof.start("/x")
        swprof.init("svc", "other", socket_path=self.daemon.path)
        self.assertEqual([name for name, _ in self.daemon.received()], ["start"])
        self.assertEqual(self.daemon.receive(), "")
        span.stop()
        self.assertTrue(self.daemon.accept())
        self.assertEqual([v["instance"] for _, v in self.daemon.received()], ["other"])

    def test_wrong_names(self):
        for service, instance in (("", "i"), (None, "i"), (1, "i"), ("s" * 256, "i"), ("s\n", "i"), ("\udc80", "i"),
                                  ("s", ""), ("s", "ä" * 128), ("s", "\x7f"), ("s", "\x85")):
            self.assertFalse(swprof.init(service, instance, socket_path=self.daemon.path), (service, instance))
        self.assertFalse(self.daemon.accept())
        self.assertTrue(swprof.init("ä" * 127, "i", socket_path=self.daemon.path))

    def test_no_daemon(self):
        self.daemon.unlisten()
        self.assertTrue(self.init())
        tries = 0
        connection = _client.Connection

        def count(path):
            nonlocal tries
            tries += 1
            return connection(path)

        with mock.patch.object(_client, "Connection", count):
            for _ in range(1000):       # in steps of 0.1 s
                self.now += 0.1
                with swprof.span("/x") as span:
                    self.assertFalse(span.watched)
        self.assertEqual(tries, 6)      # after 1, 2, 4, 8, 16 and 32 s
        self.daemon.listen()
        self.now += 60
        swprof.start("/x")
        self.assertTrue(self.daemon.accept())

    def test_not_the_protocol(self):
        unsealed = {"seals": F_SEAL_GROW}
        for what in (lambda d: d.send(b"\xff\xff\xff"), lambda d: d.send(field(3, field(2, b"/x"))),
                     lambda d: d.send(field(2, field(1, b"go away"))), lambda d: d.send(field(1, field(1, 1))),
                     lambda d: d.welcome(2), lambda d: d.welcome(**unsealed), lambda d: d.welcome(size=100),
                     lambda d: (d.welcome(), d.send(field(1, b"\x08"))), lambda d: (d.welcome(), d.welcome()),
                     lambda d: d.hang_up()):
            self.init()
            self.assertTrue(self.daemon.accept())
            what(self.daemon)
            self.now += _client.WELCOME_POLL_S
            swprof.start("/x")
            if self.daemon.peer:
                self.assertEqual([n for n, _ in self.daemon.received()], ["hello"])
                self.assertEqual(self.daemon.receive(), "")
            self.assertFalse(swprof.watched())
            self.now += 100
            swprof.close()

    def test_unknown_packets(self):
        self.connect()
        self.daemon.send(field(9, b"new"))
        self.daemon.send(b"")   # never sent by the daemon: it is the end
        self.daemon.watch("/x")
        self.assertFalse(swprof.watched("/x"))

    def test_later_fields(self):
        self.connect()
        self.daemon.send(field(9, b"new"))
        self.daemon.send(field(3, field(1, 9) + field(2, b"/y") + field(7, b"new")))
        self.daemon.set_word(9)
        self.assertTrue(swprof.watched("/y"))

    def test_silent_daemon(self):
        self.init()
        self.daemon.accept()
        self.now += _client.WELCOME_TIMEOUT_S + 1
        swprof.watched()
        self.assertEqual(self.daemon.receive()[0], "hello")
        self.assertEqual(self.daemon.receive(), "")

    def test_bad_operations_are_left_out(self):
        self.connect("/x", b"\xff", "a\nb", "o" * 1024, "", "ö")
        self.assertTrue(swprof.watched("ö"))
        self.assertEqual(swprof._current._operations, {"/x", "ö"})

    def test_nothing_is_read_while_the_word_is_the_same(self):
        self.connect()
        self.daemon.send(field(3, field(1, 7) + field(2, b"/x")))
        swprof.start("/x")
        self.assertFalse(swprof.watched("/x"))
        self.daemon.set_word(7)
        self.assertTrue(swprof.start("/x").watched)

    def test_crash_of_the_daemon(self):
        self.connect("/x")
        span = swprof.start("/x")
        self.daemon.hang_up(orderly=False)
        self.now += _client.CHECK_INTERVAL_S + 1
        self.assertFalse(swprof.watched())
        self.assertFalse(span.watched)

    def test_orderly_end_of_the_daemon(self):
        """The page tells, also where the socket does not yet."""
        self.connect("/x")
        self.daemon.set_word(WORD_CLOSED)
        self.assertFalse(swprof.watched())
        self.assertEqual(self.daemon.receive(), "")
        self.daemon.hang_up()
        self.now += _client.BACKOFF_MIN_S
        swprof.watched()
        self.assertTrue(self.daemon.accept())


class Spans(ClientTest):
    def test_start_and_stop(self):
        self.connect("/x")
        before = time.monotonic_ns()
        with swprof.span("/x", trace_id="t", segment_id="s") as span:
            self.assertTrue(span.watched)
            self.assertEqual(span.segment_id, "s")
        self.assertFalse(span.watched)
        span.stop()
        start, stop = self.daemon.received()
        after = time.monotonic_ns()
        self.assertTrue(before <= start[1].pop("start_mono_ns") <= stop[1].pop("stop_mono_ns") <= after)
        self.assertEqual(start, ("start", {"segment": "s", "operation": "/x", "tid": threading.get_native_id(),
                                           "trace": "t"}))
        self.assertEqual(stop, ("stop", {"segment": "s"}))

    def test_error(self):
        self.connect("/x")
        with self.assertRaises(KeyError):
            with swprof.span("/x"):
                raise KeyError
        self.assertEqual(self.daemon.received()[-1][1]["error"], 1)

    def test_segment_id_is_made(self):
        self.connect("/x")
        span = swprof.start("/x")
        self.assertRegex(span.segment_id, "^[0-9a-f]{32}$")
        self.assertEqual(self.daemon.received()[0][1]["segment"], span.segment_id)

    def test_others_are_not_told_of(self):
        self.connect("/x")
        with swprof.span("/y"), swprof.span("/X"), swprof.span(""), swprof.span(None), swprof.span(["/x"]):
            pass
        swprof.start("/x", segment_id="")
        swprof.start("/x", segment_id="s" * 256)
        swprof.start("/x", trace_id="t\0")
        self.assertEqual(self.daemon.received(), [])

    def test_same_segment_twice(self):
        self.connect("/x")
        first = swprof.start("/x", segment_id="s")
        swprof.start("/x", segment_id="s").stop()
        self.assertTrue(first.watched)
        self.assertEqual([n for n, _ in self.daemon.received()], ["start"])

    def test_rename_to_a_watched_name(self):
        self.connect("/x")
        before = time.monotonic_ns()
        span = swprof.start("/{any}", segment_id="s", trace_id="t")
        after = time.monotonic_ns()
        span.rename("/y")
        self.assertEqual(self.daemon.received(), [])
        span.rename("/x")
        (name, start), = self.daemon.received()
        self.assertEqual((name, start["operation"], start["trace"]), ("start", "/x", "t"))
        self.assertTrue(before <= start["start_mono_ns"] <= after)
        span.rename("/z")
        span.rename("/x")
        span.stop()
        self.assertEqual([n for n, _ in self.daemon.received()], ["rename", "rename", "start", "stop"])

    def test_rename_of_a_span_of_before(self):
        self.connect()
        span = swprof.start("/a", segment_id="s")
        self.daemon.watch("/x")
        before = time.monotonic_ns()
        span.rename("/x")
        self.assertGreaterEqual(self.daemon.received()[0][1]["start_mono_ns"], before)

    def test_bad_rename(self):
        self.connect("/x")
        span = swprof.start("/x")
        self.daemon.received()
        for name in ("", None, "\x07", "o" * 1024):
            span.rename(name)
        self.assertEqual(self.daemon.received(), [])
        self.assertTrue(span.watched)

    def test_continue(self):
        self.connect("/x")
        parent = swprof.start("/x", segment_id="p")
        tids = []

        def work(of, segment, operation):
            tids.append(threading.get_native_id())
            child = swprof.continue_segment(of, segment, operation)
            self.assertTrue(child.watched)
            child.stop()

        for arguments in ((parent, "a", None), ("p", "b", "work")):
            thread = threading.Thread(target=work, args=arguments)
            thread.start()
            thread.join()
        got = [p for p in self.daemon.received() if p[0] == "continued"]
        for packet in got:
            packet[1].pop("start_mono_ns")
        self.assertEqual(got, [
            ("continued", {"parent": "p", "segment": "a", "tid": tids[0]}),
            ("continued", {"parent": "p", "segment": "b", "tid": tids[1], "operation": "work"})])

    def test_continue_what_is_not_told(self):
        self.connect("/x")
        over = swprof.start("/x", segment_id="p")
        over.stop()
        self.daemon.received()
        for parent in (over, "p", "q", None, 7, swprof.start("/y")):
            self.assertFalse(swprof.continue_segment(parent).watched)
        self.assertEqual(self.daemon.received(), [])

    def test_switch(self):
        self.connect("/x")
        span = swprof.start("/x", segment_id="s")
        span.switch(0, stack=["/a.py.f: 1", "/a.py.g\n: \ud800" + "2"])
        span.switch(77)
        switches = self.daemon.received()[1:]
        for _, values in switches:
            self.assertGreater(values.pop("at_mono_ns"), 0)
        self.assertEqual(switches, [
            ("switched", {"segment": "s", "stack": ["/a.py.f: 1", "/a.py.g?: ?2"]}),
            ("switched", {"segment": "s", "tid": 77})])

    def test_switch_before_it_is_told(self):
        self.connect("/x")
        span = swprof.start("/y")
        span.switch(0)
        span.rename("/x")
        self.assertNotIn("tid", self.daemon.received()[0][1])

    def test_deep_stack(self):
        self.connect("/x")
        span = swprof.start("/x")
        stack = [f"/some/where/in/the/file/system/file.py.function: {i}" for i in range(800)]
        span.switch(0, stack)
        self.daemon.receive()
        _, values = self.daemon.receive()
        got = values["stack"]
        cut = got.index("...")
        self.assertGreater(len(got), 500)
        self.assertEqual(got[:cut] + got[cut + 1:], stack[:cut] + stack[cut + 1 - len(got):])
        span.switch(0, [f"f: {i}" for i in range(2000)])
        values = self.daemon.receive()[1]["stack"]
        self.assertEqual((len(values), values[0], values[-1]), (_wire.STACK_MAX, "f: 0", "f: 1999"))
        span.switch(0, ["f" * 5000])
        self.assertEqual(self.daemon.receive()[1]["stack"], ["f" * 1023])

    def test_told_again(self):
        self.connect("/x", "/y")
        over, live, other = swprof.start("/x", segment_id="a"), swprof.start("/x", segment_id="b"), swprof.start("/y")
        sub = swprof.continue_segment(live, segment_id="c")
        live.switch(0)
        self.daemon.received()
        self.daemon.hang_up()
        self.assertFalse(live.watched and swprof.watched())
        over.stop()
        live.rename("/z")
        live.rename("/x")
        self.now += 1.5
        swprof.watched()
        self.reconnect("/x")
        start, continued = self.daemon.received()
        self.assertEqual((start[0], start[1]["segment"], start[1].get("tid")), ("start", "b", None))
        self.assertEqual((continued[0], continued[1]["segment"]), ("continued", "c"))
        self.assertTrue(live.watched and sub.watched)
        self.assertFalse(other.watched)
        live.stop()
        other.stop()
        self.assertEqual([(n, v["segment"]) for n, v in self.daemon.received()], [("stop", "b")])

    def test_not_told_again(self):
        """Of a request that is not wanted any more, nor of what other threads do for it."""
        self.connect("/x")
        span = swprof.start("/x")
        sub = swprof.continue_segment(span)
        self.daemon.hang_up()
        swprof.watched()
        self.now += 1.5
        swprof.watched()
        self.reconnect("/y")
        late = swprof.continue_segment(span)
        self.assertFalse(span.watched or sub.watched or late.watched)
        sub.stop()
        span.stop()
        self.assertEqual(self.daemon.received(), [])

    def test_no_room(self):
        """A span that cannot be announced is left alone; an end that cannot be told ends the connection."""
        self.connect("/x")
        spans = []
        for _ in range(20000):
            spans.append(swprof.start("/x", trace_id="t" * 255))
            if not spans[-1].watched:
                break
        self.assertFalse(spans[-1].watched)
        self.assertTrue(spans[-2].watched)
        self.assertEqual(len(swprof._current._live), len(spans) - 1)
        for span in spans:
            span.stop()
        kinds = [n for n, _ in self.daemon.received()]
        self.assertEqual((kinds.count("start"), kinds.count("stop")), (len(spans) - 1, len(spans) - 1))

    def test_full(self):
        self.connect("/x")
        span = swprof.start("/x", segment_id="s")
        while True:
            span.rename("/x" + "y" * 1000)
            span.rename("/x")
            if not swprof._current._connection:
                break
        self.assertFalse(span.watched)
        self.assertFalse(swprof.start("/x").watched)

    def test_too_many(self):
        self.connect("/x")
        with mock.patch.object(_client, "RECORDS_MAX", 3):
            spans = [swprof.start("/x") for _ in range(5)]
        self.assertEqual([s.watched for s in spans], [True] * 3 + [False] * 2)


class Watching(ClientTest):
    def setUp(self):
        super().setUp()
        swprof.on_watch(self.watched.append)

    def test_first_and_last(self):
        self.connect("/x")
        self.assertEqual(self.watched, [])
        swprof.start("/y")
        a, b = swprof.start("/x"), swprof.start("/x")
        self.assertEqual(self.watched, [True])
        a.stop()
        self.assertEqual(self.watched, [True])
        b.stop()
        self.assertEqual(self.watched, [True, False])

    def test_task_ends(self):
        self.connect("/x")
        span = swprof.start("/x")
        self.daemon.watch()
        swprof.start("/other")
        self.assertEqual(self.watched, [True, False])
        self.assertFalse(span.watched)
        self.daemon.watch("/x")
        swprof.start("/other")
        self.assertEqual(self.watched, [True, False, True])

    def test_daemon_ends(self):
        self.connect("/x")
        span = swprof.start("/x")
        self.daemon.hang_up()
        swprof.start("/other")
        self.assertEqual(self.watched, [True, False])
        self.assertFalse(span.watched)

    def test_rename(self):
        self.connect("/x")
        span = swprof.start("/x")
        span.rename("/y")
        self.assertEqual(self.watched, [True, False])
        span.rename("/x")
        self.assertEqual(self.watched, [True, False, True])

    def test_late(self):
        self.connect("/x")
        span = swprof.start("/x")
        late = []
        swprof.on_watch(late.append)
        self.assertEqual(late, [True])
        del span

    def test_callback_that_raises_and_calls(self):
        def bad(followed):
            swprof.start("/x" if followed else "/y").stop()
            raise RuntimeError

        swprof.on_watch(bad)
        last = []
        swprof.on_watch(last.append)
        self.connect("/x")
        swprof.start("/x").stop()
        self.assertEqual((self.watched, last), ([True, False], [True, False]))


class Processes(ClientTest):
    def test_fork(self):
        self.connect("/x")
        span = swprof.start("/x", segment_id="p")
        self.daemon.received()
        child = []

        def work():
            child.append(span.watched)
            span.rename("/x")
            span.switch(1)
            span.stop()
            return child == [False] and not swprof.watched() and swprof._current._connection is not None

        self.assertTrue(self.run_in_child(work))
        self.assertEqual(self.daemon.received(), [])
        parent = self.daemon.peer
        self.daemon.peer, page, self.daemon.page = None, self.daemon.page, None
        self.assertTrue(self.daemon.accept())       # the child's
        self.assertEqual(self.daemon.receive()[0], "hello")
        self.daemon.hang_up()
        self.daemon.peer, self.daemon.page = parent, page
        self.assertTrue(span.watched)
        span.stop()
        self.assertEqual([n for n, _ in self.daemon.received()], ["stop"])

    def test_fork_with_the_lock_held(self):
        self.connect("/x")
        held, release = threading.Event(), threading.Event()

        def hold():
            with swprof._current._lock:
                held.set()
                release.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        try:
            self.assertTrue(self.run_in_child(
                lambda: not swprof.start("/x").watched and swprof._current._connection is not None))
        finally:
            release.set()
            thread.join()

    def test_fork_that_python_is_not_told_of(self):
        self.connect("/x")
        span = swprof.start("/x")
        client = swprof._current
        with mock.patch.object(os, "getpid", lambda: client._pid + 1):
            span.stop()
            self.now += _client.CHECK_INTERVAL_S + 1
            swprof.start("/x")
        self.assertEqual([n for n, _ in self.daemon.received()], ["start"])
        self.assertTrue(self.daemon.accept())

    def test_watchers_of_a_child(self):
        swprof.on_watch(self.watched.append)
        self.connect("/x")
        span = swprof.start("/x")
        self.assertTrue(self.run_in_child(lambda: self.watched == [True, False]))
        self.assertEqual(self.watched, [True])
        del span

    def test_close(self):
        self.connect("/x")
        span = swprof.start("/x")
        swprof.close()
        span.stop()
        swprof.start("/x").rename("/x")
        self.assertEqual([n for n, _ in self.daemon.received()], ["start"])
        self.assertEqual(self.daemon.receive(), "")

    def test_descriptors_that_are_closed(self):
        """A program that becomes a daemon closes all; the numbers are somebody else's afterwards."""
        def work():
            self.connect("/x")
            ours = []
            for name in os.listdir("/proc/self/fd"):
                fd = int(name)
                try:
                    if fd > 2 and ("socket" in os.readlink(f"/proc/self/fd/{fd}")
                                   or "memfd" in os.readlink(f"/proc/self/fd/{fd}")):
                        ours.append(fd)
                except OSError:
                    continue
            theirs, end = socket.socketpair()
            with theirs, end:
                for fd in ours:
                    os.dup2(theirs.fileno(), fd)
                swprof.start("/x").stop()       # finds the connection gone
                swprof.close()
                end.setblocking(False)
                try:
                    return bool(end.recv(1)) and False
                except BlockingIOError:
                    return all(os.path.sameopenfile(fd, theirs.fileno()) for fd in ours)

        self.assertTrue(self.run_in_child(work))

    def test_no_descriptor_is_lost(self):
        self.connect("/x")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            self.daemon.hang_up()
            swprof.watched()
            self.now += 1.5
            swprof.watched()
            self.reconnect("/x")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_signal_handlers_and_finalizers(self):
        """They run where a span is being told of, in the same thread."""
        self.connect("/x")
        client = swprof._current

        class Nested:
            def __del__(self):
                swprof.start("/x").stop()

        has_room = client._connection.has_room

        def interrupted():
            client._connection.has_room = has_room
            Nested()
            signal.raise_signal(signal.SIGUSR1)
            return has_room()

        before = signal.signal(signal.SIGUSR1, lambda *_: swprof.start("/y").stop())
        try:
            with mock.patch.object(client._connection, "has_room", interrupted):
                span = swprof.start("/x")
        finally:
            signal.signal(signal.SIGUSR1, before)
        self.assertTrue(span.watched)
        self.assertEqual([n for n, _ in self.daemon.received()], ["start", "stop", "start"])

    def test_signal_handler_changes_the_names(self):
        """While the program does so itself."""
        def work():
            client = swprof.Client

            def interrupted(service, *arguments):
                if service == "service-1":
                    signal.raise_signal(signal.SIGUSR1)
                return client(service, *arguments)

            def handle(*_):
                swprof.close()
                swprof.init("service-2", "one", socket_path=self.daemon.path)

            signal.signal(signal.SIGUSR1, handle)
            signal.alarm(30)    # a lock that is not taken twice is waited for without an end
            with mock.patch.object(swprof, "Client", interrupted):
                swprof.init("service-1", "one", socket_path=self.daemon.path)
            return swprof._current.arguments[0] == "service-1"

        self.assertTrue(self.run_in_child(work))

    def test_nothing_raises(self):
        self.connect("/x")
        span = swprof.start("/x")
        with mock.patch.object(_client, "monotonic_ns", side_effect=MemoryError), \
                mock.patch.object(_client.Client, "_has", side_effect=RuntimeError):
            swprof.start("/x")
            swprof.continue_segment(span)
            span.rename("/y")
            span.switch(1)
            span.stop()
            self.assertFalse(span.watched)


class Threads(ClientTest):
    def test_many(self):
        """Each packet is whole, and each start has its stop."""
        self.connect("/x")
        n_threads, n_spans = 8, 200
        stop = threading.Event()

        def work(n):
            for i in range(n_spans):
                with swprof.span("/x" if i % 2 else "/y", segment_id=f"{n}-{i}") as span:
                    swprof.continue_segment(span).stop()
                    span.rename("/x")

        def drain():
            while not stop.is_set():
                got.extend(self.daemon.received())
                stop.wait(0.001)

        got = []
        drainer = threading.Thread(target=drain)
        drainer.start()
        threads = [threading.Thread(target=work, args=(n,)) for n in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        drainer.join()
        got.extend(self.daemon.received())
        starts = [v["segment"] for n, v in got if n in ("start", "continued")]
        stops = [v["segment"] for n, v in got if n == "stop"]
        self.assertEqual(sorted(starts), sorted(stops))
        self.assertEqual(len(set(starts)), len(starts))


if __name__ == "__main__":
    unittest.main()
