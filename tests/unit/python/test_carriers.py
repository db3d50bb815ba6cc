# SPDX-License-Identifier: Apache-2.0
"""What the Python client tells of spans that share a thread: asyncio's tasks, and greenlets where these are installed."""

import asyncio
import sys
import threading
import unittest
from unittest import mock

import swprof
from swprof import _carrier, _stack
from test_client import ClientTest

try:
    import greenlet
except ImportError:
    greenlet = None


class CarrierTest(ClientTest):
    def told(self):
        """By segment: "in", "out", or the functions of the stack with which it left."""
        told = {}
        for name, values in self.daemon.received():
            if name == "switched":
                functions = [s.rsplit(":", 1)[0].rsplit(".", 1)[1] for s in values.get("stack", ())]
                told.setdefault(values["segment"], []).append("in" if values.get("tid") else functions or "out")
        return told

    def waits(self, segment, told=None):
        """The functions of its own with which it left, again and again."""
        return [s[s.index("request"):] if isinstance(s, list) else s for s in (told or self.told())[segment]]


class Wrapped:
    def __init__(self, awaitable):
        self.awaitable = awaitable

    def __await__(self):
        return self.awaitable.__await__()


async def leaf():
    await asyncio.sleep(0.001)


async def middle():
    await leaf()


class Tasks(CarrierTest):
    def run_loop(self, coroutine, **options):
        async def run():
            self.assertNotIn("call_soon", vars(asyncio.get_running_loop()))
            try:
                return await coroutine
            finally:
                self.assertNotIn("call_soon", vars(asyncio.get_running_loop()))

        return asyncio.run(run(), **options)

    def setUp(self):
        super().setUp()
        self.connect("/x")

    def test_await_chain(self):
        async def request():
            with swprof.start("/x", segment_id="s"):
                await middle()
                await leaf()

        self.run_loop(request_in_task(request))
        told = self.told()
        self.assertEqual(told["s"][0][0], "<module>")
        self.assertEqual(self.waits("s", told), [["request", "middle", "leaf", "sleep"], "in",
                                                 ["request", "leaf", "sleep"], "in"])

    def test_wrappers(self):
        async def numbers():
            await leaf()
            yield 1

        async def request():
            with swprof.start("/x", segment_id="s"):
                await Wrapped(leaf())
                async for _ in numbers():
                    pass
                generator = numbers()
                await generator.asend(None)
                await generator.aclose()
                await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.001)

        with self.assertRaises(asyncio.TimeoutError):
            self.run_loop(request_in_task(request))
        waits = [w for w in self.waits("s") if w != "in"]
        self.assertEqual(waits[:3], [["request", "leaf", "sleep"], ["request", "numbers", "leaf", "sleep"],
                                     ["request", "numbers", "leaf", "sleep"]])
        self.assertEqual(waits[3][:2], ["request", "wait_for"])

    def test_many(self):
        """Each has its own, and nothing is told of those that nobody watches."""
        async def request(n):
            with swprof.start("/y" if n % 2 else "/x", segment_id=str(n)):
                for _ in range(2):
                    await (middle() if n % 4 else leaf())
                    await asyncio.sleep(0)

        async def all_of_them():
            await asyncio.gather(*map(request, range(20)))

        self.run_loop(all_of_them())
        told = self.told()
        self.assertEqual(sorted(told, key=int), [str(n) for n in range(0, 20, 2)])
        for n in told:
            way = ["middle", "leaf"] if int(n) % 4 else ["leaf"]
            # Python 3.8 to 3.14 differ in what sleep(0) calls.
            waits = [w if w == "in" or "leaf" in w else "sleep(0)" for w in self.waits(n, told)]
            self.assertEqual(waits, [["request", *way, "sleep"], "in", "sleep(0)", "in"] * 2)

    def test_not_watched(self):
        async def request():
            with swprof.start("/y"):
                self.assertNotIn("call_soon", vars(asyncio.get_running_loop()))
                await leaf()

        self.run_loop(request_in_task(request))
        self.assertEqual(self.told(), {})

    def test_one_after_the_other(self):
        """As requests of one connection: its task goes on."""
        async def connection():
            async def request(n):
                with swprof.start("/x", segment_id=str(n)):
                    await leaf()
            for n in range(3):
                await request(n)
            await leaf()

        self.run_loop(request_in_task(connection))
        told = self.told()
        for n in range(3):
            self.assertEqual(self.waits(str(n), told), [["request", "leaf", "sleep"], "in"])

    def test_cancelled(self):
        async def request():
            with swprof.start("/x", segment_id="s"):
                await asyncio.sleep(100)

        async def cancel():
            task = asyncio.ensure_future(request())
            await asyncio.sleep(0.001)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

        self.run_loop(cancel())
        self.assertEqual(self.waits("s"), [["request", "sleep"], "in"])

    def test_never_stopped(self):
        async def request():
            span = swprof.start("/x", segment_id="s")
            await leaf()
            return span

        span = self.run_loop(request_in_task(request))
        self.assertEqual(self.waits("s"), [["request", "leaf", "sleep"], "in", "out"])
        span.stop()

    def test_two_of_one_task(self):
        async def request():
            with swprof.start("/x", segment_id="a"):
                await leaf()
                with swprof.start("/x", segment_id="b"):
                    await leaf()

        self.run_loop(request_in_task(request))
        told = self.told()
        self.assertEqual(len(told["a"]), 4)
        self.assertEqual(len(told["b"]), 2)

    def test_in_a_callback(self):
        """Nobody knows where it goes on."""
        spans = []

        async def wait():
            asyncio.get_running_loop().call_soon(lambda: spans.append(swprof.start("/x", segment_id="s")))
            await leaf()
            spans[0].stop()

        self.run_loop(request_in_task(wait))
        self.assertEqual(self.told(), {"s": ["out"]})

    def test_stopped_elsewhere(self):
        async def request():
            span = swprof.start("/x", segment_id="s")
            await leaf()
            await asyncio.get_running_loop().run_in_executor(None, span.stop)

        self.run_loop(request_in_task(request))
        self.assertEqual(self.waits("s")[:2], [["request", "leaf", "sleep"], "in"])

    def test_patched_by_others(self):
        """What another library has put in the place of call_soon goes on, whichever was first."""
        calls = []

        def patch(loop):
            original = loop.call_soon

            def call_soon(*arguments, **options):
                calls.append(1)
                return original(*arguments, **options)
            loop.call_soon = call_soon
            return call_soon

        async def request(late):
            loop = asyncio.get_running_loop()
            patched = None if late else patch(loop)
            with swprof.start("/x"):
                patched = patched or patch(loop)
                del calls[:]
                await leaf()
            self.assertIs(loop.call_soon, patched)
            self.assertGreater(len(calls), 0)
            del calls[:]
            await leaf()
            self.assertGreater(len(calls), 0)
            with swprof.start("/x"):
                await leaf()

        async def one(late):
            await asyncio.ensure_future(request(late))

        asyncio.run(one(False))
        asyncio.run(one(True))
        self.assertEqual(sum(len(w) for w in self.told().values()), 8)

    def test_failing(self):
        """The program does not notice."""
        async def request():
            with swprof.start("/x"):
                await middle()
            return 7

        for function in (_carrier, "tell"), (_stack, "of_frame"), (_stack, "add_awaiting"), (_carrier, "_attach"):
            with mock.patch.object(*function, side_effect=RuntimeError):
                self.assertEqual(self.run_loop(request_in_task(request)), 7)

    def test_callback_without_attributes(self):
        class Callback:
            def __init__(self, called):
                self.called = called

            def __getattr__(self, name):
                raise RuntimeError if name == "__self__" else AttributeError

            def __call__(self):
                self.called.append(1)

        async def request():
            called = []
            with swprof.start("/x"):
                asyncio.get_running_loop().call_soon(Callback(called))
                await leaf()
            return called

        self.assertEqual(self.run_loop(request_in_task(request)), [1])

    def test_renamed_to_what_nobody_watches(self):
        """It gets no hooks again."""
        async def request():
            loop = asyncio.get_running_loop()
            with swprof.start("/x") as span:
                await leaf()
                span.rename("/y")
                await leaf()
                self.assertNotIn("call_soon", vars(loop))
                span.rename("/z")
                self.assertNotIn("call_soon", vars(loop))
                span.rename("/x")
                self.assertIn("call_soon", vars(loop))

        self.run_loop(request_in_task(request))

    def test_no_task_any_more(self):
        """Its hooks go with the first switch that finds it so."""
        async def request():
            loop = asyncio.get_running_loop()
            span = swprof.start("/x", segment_id="s")
            await leaf()
            self.daemon.watch("/other")
            await leaf()
            self.assertNotIn("call_soon", vars(loop))
            # Another task has come, and the name makes it known again.
            self.daemon.watch("/new")
            span.rename("/new")
            await leaf()
            self.assertIn("call_soon", vars(loop))
            span.stop()

        self.run_loop(request_in_task(request))
        self.assertEqual(self.waits("s")[-2:], [["request", "leaf", "sleep"], "in"])

    def test_daemon_comes_back(self):
        """While it waits, and meanwhile it has gone on and waits again."""
        async def request():
            with swprof.start("/x", segment_id="s"):
                await leaf()
                self.daemon.hang_up()
                await leaf()

        self.run_loop(request_in_task(request))

    @unittest.skipIf(sys.version_info < (3, 12), "there are no eager tasks")
    def test_eager(self):
        """They begin within the step of another one."""
        async def request():
            with swprof.start("/x", segment_id="s"):
                self.assertEqual(sys.monitoring.get_tool(4), "swprof")
                await leaf()
                await leaf()

        async def parent():
            task = asyncio.Task(request(), loop=asyncio.get_running_loop(), eager_start=True)
            self.assertIsNone(sys.monitoring.get_tool(4))
            told = self.told()
            self.assertEqual(told, {"s": ["out"]})
            await task

        self.run_loop(request_in_task(parent))
        self.assertEqual(self.waits("s"), [["request", "leaf", "sleep"], "in", ["request", "leaf", "sleep"], "in"])

    @unittest.skipIf(sys.version_info < (3, 12), "there are no eager tasks")
    def test_eager_unseen(self):
        """Others have all of sys.monitoring: it counts as away from its start on."""
        async def request():
            with swprof.start("/x", segment_id="s"):
                await leaf()

        async def parent():
            await asyncio.Task(request(), loop=asyncio.get_running_loop(), eager_start=True)

        for tool in 3, 4:
            sys.monitoring.use_tool_id(tool, "other")
        try:
            self.run_loop(request_in_task(parent))
        finally:
            for tool in 3, 4:
                sys.monitoring.free_tool_id(tool)
        self.assertEqual(self.waits("s"), ["out", ["request", "leaf", "sleep"], "in"])


async def request_in_task(function):
    return await asyncio.ensure_future(function())


@unittest.skipIf(greenlet is None, "greenlet is not installed")
class Greenlets(CarrierTest):
    def setUp(self):
        super().setUp()
        self.connect("/x")
        self.addCleanup(lambda: self.assertIsNone(greenlet.gettrace()))

    def request(self, segment, n=2):
        with swprof.start("/x", segment_id=segment):
            for _ in range(n):
                self.hand_over()

    @staticmethod
    def hand_over():
        greenlet.getcurrent().parent.switch()

    def make(self, *arguments):
        def request():
            self.request(*arguments)
        return greenlet.greenlet(request)

    def test_waits(self):
        self.assertIsNone(greenlet.gettrace())
        g = self.make("s")
        while not g.dead:
            g.switch()
        self.assertEqual(self.told()["s"], [["request", "request", "hand_over"], "in"] * 2)

    def test_many(self):
        """In turns."""
        gs = [self.make(str(n), 3) for n in range(10)]
        while not all(g.dead for g in gs):
            for g in gs:
                g.switch()
        told = self.told()
        self.assertEqual(len(told), 10)
        for waits in told.values():
            self.assertEqual(waits, [["request", "request", "hand_over"], "in"] * 3)

    def test_not_watched(self):
        def request():
            with swprof.start("/y"):
                self.assertIsNone(greenlet.gettrace())
        greenlet.greenlet(request).switch()

    def test_chained(self):
        events = []

        def trace(event, switch):
            events.append(event)

        greenlet.settrace(trace)
        try:
            g = self.make("s", 1)
            g.switch()
            self.assertIsNot(greenlet.gettrace(), trace)
            g.switch()
            self.assertIs(greenlet.gettrace(), trace)
        finally:
            greenlet.settrace(None)
        self.assertEqual(events, ["switch"] * 4)
        self.assertEqual(len(self.told()["s"]), 2)

    def test_another_on_top(self):
        """It calls ours, which goes when that one has gone."""
        g = self.make("s", 1)
        g.switch()
        ours = greenlet.gettrace()
        greenlet.settrace(lambda event, switch: ours(event, switch))
        g.switch()
        greenlet.settrace(ours)
        greenlet.greenlet(lambda: None).switch()
        self.assertIsNone(greenlet.gettrace())
        self.assertEqual(len(self.told()["s"]), 2)

    def test_another_that_raises(self):
        """It is the program's business; ours is gone with it, and the span is on no thread, rather than on a wrong one."""
        def trace(event, switch):
            if switch[1].parent is None:
                raise KeyError

        g = self.make("s", 1)
        greenlet.settrace(trace)
        with self.assertRaises(KeyError):
            g.switch()
        self.assertIsNone(greenlet.gettrace())
        g.switch()
        self.assertEqual(self.told()["s"][-1], "out")

    def test_failing(self):
        for function in (_carrier, "tell"), (_stack, "of_frame"), (_carrier, "_attach"):
            with mock.patch.object(*function, side_effect=RuntimeError):
                g = self.make("s")
                while not g.dead:
                    g.switch()

    def test_never_stopped(self):
        spans = []

        def request():
            spans.append(swprof.start("/x", segment_id="s"))
            self.hand_over()

        g = greenlet.greenlet(request)
        g.switch()
        g.switch()
        self.assertEqual(self.told()["s"], [["request", "hand_over"], "in", "out"])
        greenlet.greenlet(lambda: None).switch()
        spans[0].stop()

    def test_thrown_into(self):
        g = self.make("s")
        g.switch()
        with self.assertRaises(ValueError):
            g.throw(ValueError)
        self.assertEqual(self.told()["s"], [["request", "request", "hand_over"], "in"])

    def test_threads(self):
        """Each has a hook of its own; one stopped by another thread goes at its next switch."""
        spans, go_on, stopped = [], threading.Event(), threading.Event()
        left = []

        def request():
            spans.append(swprof.start("/x", segment_id="s"))
            self.hand_over()

        def run():
            g = greenlet.greenlet(request)
            g.switch()
            go_on.set()
            stopped.wait(10)
            g.switch()
            left.append(greenlet.gettrace())

        thread = threading.Thread(target=run)
        thread.start()
        go_on.wait(10)
        self.assertIsNone(greenlet.gettrace())
        spans[0].stop()
        stopped.set()
        thread.join()
        self.assertEqual(left, [None])
        self.assertEqual(self.told()["s"], [["request", "hand_over"]])


if __name__ == "__main__":
    unittest.main()
