# SPDX-License-Identifier: Apache-2.0
"""Spans in asyncio's tasks.

A loop with a watched span has a call_soon of its own: before and after each step of the span's task, a callback of ours
runs. No other task notices, and the steps' stacks have no frame of ours.
"""

import collections
import gc
import sys
from _thread import get_native_id
from asyncio import events, tasks
from time import monotonic_ns

from . import _carrier, _stack

_STEP = "TaskStepMethWrapper"       # what a C task has called for its steps, if nothing woke it up
_run_code = events.Handle._run.__code__

_loops = {}


class _Loop:
    """A loop with watched spans."""

    def __init__(self, loop):
        self.loop = loop
        self.tid = get_native_id()
        self.carriers = {}              # by the id of the task
        self.original = loop.call_soon
        self.patched = vars(loop).get("call_soon")
        self.call_soon = _make_call_soon(self.original, self.carriers)
        loop.call_soon = self.call_soon

    def leave(self):
        """The last one is gone. If somebody else has patched the loop meanwhile, ours stays below, and passes on."""
        if vars(self.loop).get("call_soon") is self.call_soon:
            if self.patched:
                self.loop.call_soon = self.patched
            else:
                del self.loop.call_soon
        _loops.pop(self.loop, None)


def _make_call_soon(original, carriers, referents=gc.get_referents):
    """Each callback of the loop goes through it."""
    step = None     # the type

    def call_soon(callback, *args, context=None):
        nonlocal step
        kind = type(callback)
        try:
            if kind is step:
                task = referents(callback)[0]
            else:
                task = getattr(callback, "__self__", None)
                if task is None and kind.__name__ == _STEP:
                    step = kind
                    task = referents(callback)[0]
        except Exception:       # of an attribute that somebody's callable makes up
            task = None
        carrier = carriers.get(id(task))
        if carrier is None:
            return original(callback, *args, context=context)
        original(carrier.enter)
        handle = original(callback, *args, context=context)
        original(carrier.leave)
        return handle

    return call_soon


class _Carrier:
    """A task with watched spans."""

    __slots__ = ("owner", "task", "spans", "left_mono_ns")

    def __init__(self, owner, task):
        self.owner, self.task = owner, task
        self.spans = ()
        self.left_mono_ns = 0           # when its step ended, if that is past

    def enter(self):
        at = monotonic_ns()
        try:
            for span in self.spans:
                _carrier.tell(span, self.owner.tid, None, at)
        except Exception:
            pass

    def leave(self):
        """A step is over."""
        at = self.left_mono_ns or monotonic_ns()
        self.left_mono_ns = 0
        try:
            spans, stack = self.spans, None
            if not spans:
                return
            if self.task.done():
                self._forget()
            else:
                # Below the step, it is where the loop has called us.
                stack = _stack.of_frame(sys._getframe(1))
                _stack.add_awaiting(stack, self.task.get_coro())
            for span in spans:
                _carrier.tell(span, 0, stack, at)
        except Exception:
            pass

    def leave_unseen(self, at):
        """Where it waits is not known yet."""
        for span in self.spans:
            _carrier.tell(span, 0, None, at)

    def _forget(self):
        self.spans = ()
        if _yields.carriers:
            _yields.forget(self)
        carriers = self.owner.carriers
        if carriers.pop(id(self.task), None) is not None and not carriers:
            self.owner.leave()

    def detach(self, span):
        """The span is over."""
        self.spans = tuple(s for s in self.spans if s is not span)
        if not self.spans:
            self._forget()


def _root_frame(task):
    """The frame of the task's coroutine, if what runs is called by it."""
    coroutine = task.get_coro()
    root = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
    frame = sys._getframe(1)
    while frame is not None and frame is not root:
        frame = frame.f_back
    return frame


def _begin(owner, carrier):
    """This step was begun before: its end must be noticed, too."""
    root = _root_frame(carrier.task)
    ready = getattr(owner.loop, "_ready", None)
    if type(ready) is not collections.deque:
        _end_with(root, carrier)
        owner.original(carrier.leave)
        return
    # An eager task runs within another one's step.
    if root is None or root.f_back is None or root.f_back.f_code is not _run_code:
        _end_with(root, carrier)
    ready.appendleft(events.Handle(carrier.leave, (), owner.loop))


def _end_with(root, carrier):
    """Others may run between the end of the step and a callback. Where Python does not tell of that end, the span counts
    as on no thread at once."""
    if root is None or not _yields.watch(root, carrier):
        carrier.leave_unseen(monotonic_ns())


class _Yields:
    """Of coroutines, seen by sys.monitoring (3.12): only while there are some to be seen, and of their code only."""

    def __init__(self):
        self.carriers = {}          # by frame
        self.tool = None

    def watch(self, frame, carrier):
        monitoring = getattr(sys, "monitoring", None)
        if monitoring is None:
            return False
        if self.tool is None and not self._take_tool(monitoring):
            return False
        self.carriers[frame] = carrier
        monitoring.set_local_events(self.tool, frame.f_code, monitoring.events.PY_YIELD)
        return True

    def _take_tool(self, monitoring):
        for tool in (4, 3):         # nobody's
            if monitoring.get_tool(tool) is None:
                monitoring.use_tool_id(tool, "swprof")
                monitoring.register_callback(tool, monitoring.events.PY_YIELD, self._on_yield)
                self.tool = tool
                return True
        return False

    def forget(self, carrier):
        for frame in [f for f, c in list(self.carriers.items()) if c is carrier]:
            self._drop(frame)

    def _drop(self, frame):
        del self.carriers[frame]
        code = frame.f_code
        if not any(f.f_code is code for f in list(self.carriers)):
            sys.monitoring.set_local_events(self.tool, code, 0)
        if not self.carriers:
            tool, self.tool = self.tool, None
            sys.monitoring.register_callback(tool, sys.monitoring.events.PY_YIELD, None)
            sys.monitoring.free_tool_id(tool)

    def _on_yield(self, code, offset, value):
        at = monotonic_ns()
        try:
            frame = sys._getframe(1)
            carrier = self.carriers.get(frame)
            if carrier is not None:
                carrier.left_mono_ns = at
                carrier.leave_unseen(at)
                self._drop(frame)
        except Exception:
            pass


_yields = _Yields()


def _begin_callback(span, loop):
    """It starts in a callback. Nobody knows where it goes on after that."""
    def leave():
        _carrier.tell(span, 0, None, monotonic_ns())
    ready = getattr(loop, "_ready", None)
    if type(ready) is collections.deque:
        ready.appendleft(events.Handle(leave, (), loop))
    else:
        leave()


def attach(span, loop):
    task = tasks.current_task(loop)
    if task is None:
        _begin_callback(span, loop)
        return None
    owner = _loops.get(loop)
    if owner is None:
        owner = _loops[loop] = _Loop(loop)
    carrier = owner.carriers.get(id(task))
    is_new = carrier is None
    if is_new:
        carrier = owner.carriers[id(task)] = _Carrier(owner, task)
    carrier.spans += (span,)
    if is_new:
        _begin(owner, carrier)
    return carrier
