# SPDX-License-Identifier: Apache-2.0
"""The SkyWalking agent's plug-in with the real agent, against a fake daemon. The interpreter must have both."""

import os
import re
import sys
import threading
import unittest

os.environ.update(SW_AGENT_COLLECTOR_BACKEND_SERVICES="127.0.0.1:9", SW_AGENT_NAME="svc", SW_AGENT_NAMESPACE="ns",
                  SW_AGENT_INSTANCE_NAME="inst", SW_AGENT_LOGGING_LEVEL="CRITICAL",
                  SW_AGENT_TRACE_IGNORE_PATH="/quiet/**", SW_AGENT_METER_REPORTER_ACTIVE="false",
                  SW_AGENT_LOG_REPORTER_ACTIVE="false")

import swprof
import swprof.skywalking
from fake_daemon import FakeDaemon

swprof.skywalking.install()

from skywalking import Component, agent, config, profile, sampling
from skywalking.decorators import runnable, trace
from skywalking.trace.context import NoopContext, get_context
from skywalking.trace.span import NoopSpan

DAEMON = FakeDaemon()
os.environ["SWPROFD_SOCKET"] = DAEMON.path
agent.start()


class Refuse:
    """A sampling service that lets nothing through."""

    @staticmethod
    def try_sampling():
        return False


class AgentTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        assert DAEMON.accept(), "the agent's start did not connect"
        cls.hello = DAEMON.receive()
        DAEMON.welcome()
        DAEMON.watch("/x")
        swprof._current.next_look = 0
        assert swprof.watched("/x")

    def setUp(self):
        self.archived = []
        real = agent.agent.archive_segment
        agent.agent.archive_segment = self.archived.append
        self.addCleanup(setattr, agent.agent, "archive_segment", real)
        self.addCleanup(lambda: self.assertEqual(DAEMON.received(), []))

    def packets(self):
        """What came, without times and thread ids."""
        packets = DAEMON.received()
        for _, values in packets:
            for key in list(values):
                if re.search("mono_ns|tid", key):
                    del values[key]
        return packets

    def ids(self):
        return [str(s.segment_id) for s in self.archived]

    def test_hello(self):
        self.assertEqual({k: self.hello[1][k] for k in ("service", "instance", "language", "agent")},
                         {"service": "svc|ns", "instance": "inst", "language": "python", "agent": 1})

    def test_profiler_is_off(self):
        self.assertFalse(config.agent_profile_active)
        self.assertIsNone(profile.profile_task_execution_service)
        names = {t.name for t in threading.enumerate()}
        self.assertIn("SegmentReportThread", names)
        self.assertFalse(names & {"CommandDispatchThread", "QueryProfileCommandThread", "SendProfileSnapShotThread"})

    def test_segment(self):
        with get_context().new_entry_span("/x") as span:
            with get_context().new_local_span("local"), get_context().new_exit_span("exit", "peer"):
                trace_id = str(span.context.segment.related_traces[0])
        segment, = self.ids()
        self.assertEqual(self.packets(), [("start", {"segment": segment, "operation": "/x", "trace": trace_id}),
                                          ("stop", {"segment": segment})])

    def test_error(self):
        with self.assertRaises(KeyError), get_context().new_entry_span("/x"):
            raise KeyError
        self.assertEqual(self.packets()[1][1].get("error"), 1)

    def test_second_segment_of_a_thread(self):
        for _ in range(2):
            with get_context().new_entry_span("/x"):
                pass
        self.assertEqual([v["segment"] for _, v in self.packets()], [i for i in self.ids() for _ in range(2)])

    def test_unwatched(self):
        with get_context().new_entry_span("/y"):
            pass
        self.assertEqual(self.packets(), [])

    def test_only_entry_spans(self):
        with get_context().new_local_span("/x"), get_context().new_exit_span("/x", "peer"):
            pass
        self.assertEqual(self.packets(), [])

    def test_entry_below_local(self):
        with get_context().new_local_span("local"):
            with get_context().new_entry_span("/x"):
                pass
            self.assertEqual([n for n, _ in self.packets()], ["start"])
        self.assertEqual([n for n, _ in self.packets()], ["stop"])

    def test_renamed_by_a_framework(self):
        with get_context().new_entry_span("/{any}") as server:
            server.component = Component.General
            self.assertEqual(self.packets(), [])
            with get_context().new_entry_span("/x", inherit=Component.General) as framework:
                self.assertIs(framework, server)
                self.assertEqual([n for n, _ in self.packets()], ["start"])
        self.assertEqual(self.packets(), [("stop", {"segment": self.ids()[0]})])
        self.assertEqual(self.archived[0].spans[0].op, "/x")

    def test_two_entry_spans(self):
        with get_context().new_entry_span("/x"), get_context().new_entry_span("/x"):
            pass
        self.assertEqual(len(self.archived[0].spans), 2)
        self.assertEqual([n for n, _ in self.packets()], ["start", "stop"])

    def test_watched_later(self):
        DAEMON.watch()
        self.assertFalse(swprof.watched())
        with get_context().new_entry_span("/{any}") as span:
            DAEMON.watch("/x")
            self.assertEqual(self.packets(), [])
            span.op = "/x"
            self.assertEqual([n for n, _ in self.packets()], ["start"])
        self.assertEqual([n for n, _ in self.packets()], ["stop"])

    def test_renamed_before_its_start(self):
        span = get_context().new_entry_span("/{any}")
        span.op = "/x"
        self.assertEqual(self.packets(), [])
        with span:
            pass
        self.assertEqual([n for n, _ in self.packets()], ["start", "stop"])

    def test_renamed_by_the_program(self):
        with get_context().new_entry_span("/{any}"):
            get_context().active_span.op = "/x"
            get_context().active_span.op = "/z"
        self.assertEqual([n for n, _ in self.packets()], ["start", "rename", "stop"])

    def test_ignored(self):
        DAEMON.watch("/x", "/x.html", "/quiet/x")
        for op in ("/x.html", "/quiet/x"):
            with get_context().new_entry_span(op) as span:
                self.assertIsInstance(span, NoopSpan)
                span.op = "/x"
                with get_context().new_entry_span("/x"):
                    pass
        with NoopSpan(NoopContext()):
            with get_context().new_entry_span("/x"):
                pass
        self.assertEqual(self.packets(), [])

    def test_sampled_out(self):
        self.addCleanup(setattr, sampling, "sampling_service", sampling.sampling_service)
        sampling.sampling_service = Refuse
        with get_context().new_entry_span("/x"):
            with get_context().new_entry_span("/x"):
                pass
        self.assertEqual((self.packets(), self.archived), ([], []))

    def run_thread(self, function, *args):
        thread = threading.Thread(target=function, args=args)
        thread.start()
        thread.join()

    def test_other_thread(self):
        with get_context().new_entry_span("/x") as span:
            parent = str(span.context.segment.segment_id)

            @runnable(op="work")
            def work():
                pass

            self.run_thread(work)
        sub, main = self.ids()
        self.assertEqual(main, parent)
        self.assertEqual([(n, v.get("parent"), v["segment"]) for n, v in self.packets()], [
            ("start", None, main), ("continued", main, sub), ("stop", None, sub), ("stop", None, main)])

    def test_other_thread_by_hand(self):
        def work(snapshot):
            with get_context().new_local_span("work"):
                get_context().continued(snapshot)
                with trace_below():
                    pass

        def trace_below():
            return get_context().new_local_span("below")

        with get_context().new_entry_span("/x"):
            self.run_thread(work, get_context().capture())
        self.assertEqual([n for n, _ in self.packets()], ["start", "continued", "stop", "stop"])

    def test_other_thread_of_what_is_not_reported(self):
        def work(snapshot):
            with get_context().new_local_span("work"):
                get_context().continued(snapshot)

        with get_context().new_entry_span("/y"):
            self.run_thread(work, get_context().capture())
        with NoopSpan(NoopContext()):
            self.run_thread(work, get_context().capture())
        with get_context().new_local_span("same"):
            get_context().continued(get_context().capture())
        self.run_thread(work, None)
        self.assertEqual(self.packets(), [])

    def test_decorator(self):
        @trace(op="local")
        def function():
            return 7

        with get_context().new_entry_span("/x"):
            self.assertEqual(function(), 7)
        self.assertEqual([n for n, _ in self.packets()], ["start", "stop"])

    def test_names_that_change(self):
        was = config.agent_instance_name
        config.agent_instance_name = "other"
        try:
            with get_context().new_entry_span("/x"):
                pass
            self.assertTrue(DAEMON.accept())
            self.assertEqual(DAEMON.receive()[1]["instance"], "other")
        finally:
            config.agent_instance_name = was
        with get_context().new_entry_span("/x"):
            pass
        self.assertTrue(DAEMON.accept())
        AgentTest.hello = DAEMON.receive()
        DAEMON.welcome()
        DAEMON.watch("/x")
        swprof._current.next_look = 0
        self.assertTrue(swprof.watched("/x"))

    def test_fork_without_the_agent(self):
        """A child without an agent has no segments that the OAP would know."""
        pid = os.fork()
        if pid == 0:
            with get_context().new_entry_span("/x"):
                os._exit(0 if swprof._current._connection is None else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(self.packets(), [])
        self.assertFalse(DAEMON.accept())

    def test_nothing_raises(self):
        def fail(*_, **__):
            raise RuntimeError

        real = swprof.start, swprof.continue_segment
        swprof.start = swprof.continue_segment = fail
        try:
            with get_context().new_entry_span("/x"):
                get_context().active_span.op = "/y"
        finally:
            swprof.start, swprof.continue_segment = real
        self.assertEqual(len(self.archived), 1)


if __name__ == "__main__":
    outcome = unittest.main(exit=False).result
    sys.stderr.flush()
    os._exit(not outcome.wasSuccessful())       # without the agent's last words to an OAP that is not there
