# SPDX-License-Identifier: Apache-2.0
"""Spans in greenlets, gevent's among them."""

from _thread import get_native_id
from time import monotonic_ns

import greenlet

from . import _carrier, _stack

_NAME = "_swprof_hook"      # in the dictionary of a thread's main greenlet, which lives as long as the thread


class _Hook:
    """The trace function of one thread. One that was there before is called, too; one that comes later calls this."""

    def __init__(self):
        self.tid = get_native_id()
        self.spans = {}             # by greenlet
        self.installed = False
        self.previous = None

    def install(self):
        if not self.installed:
            self.previous = greenlet.settrace(self.trace)
            self.installed = True

    def uninstall(self):
        """In its thread. Not when another one was installed on top: then it goes when that one has gone."""
        if self.installed and greenlet.gettrace() == self.trace:
            greenlet.settrace(self.previous)
            self.installed, self.previous = False, None

    def trace(self, event, switch):
        spans = self.spans
        if spans:
            try:
                origin, target = switch
                if origin in spans:
                    self._leave(origin)
                if target in spans:
                    self._enter(target)
            except Exception:
                pass
        else:
            self.uninstall()
        if self.previous is not None:
            self._call_previous(event, switch)

    def _call_previous(self, event, switch):
        try:
            self.previous(event, switch)
        except BaseException:
            # greenlet removes a trace function that raises, which here are both.
            self._abandon()
            raise

    def _abandon(self):
        at = monotonic_ns()
        spans, self.spans = self.spans, {}
        self.installed, self.previous = False, None
        for of_one in spans.values():
            for span in of_one:
                _carrier.tell(span, 0, None, at)

    def _leave(self, origin):
        at = monotonic_ns()
        stack = None
        if origin.dead:
            spans = self.spans.pop(origin)
        else:
            spans = self.spans[origin]
            stack = _stack.of_frame(origin.gr_frame)
        for span in spans:
            _carrier.tell(span, 0, stack, at)

    def _enter(self, target):
        at = monotonic_ns()
        for span in self.spans[target]:
            _carrier.tell(span, self.tid, None, at)


class _Carrier:
    __slots__ = ("hook", "greenlet")

    def __init__(self, hook, current):
        self.hook, self.greenlet = hook, current

    def detach(self, span):
        """The span is over."""
        hook = self.hook
        left = tuple(s for s in hook.spans.get(self.greenlet, ()) if s is not span)
        if left:
            hook.spans[self.greenlet] = left
        else:
            hook.spans.pop(self.greenlet, None)
        if not hook.spans and get_native_id() == hook.tid:
            hook.uninstall()


def attach(span):
    current = main = greenlet.getcurrent()
    while main.parent is not None:
        main = main.parent
    hook = main.__dict__.get(_NAME)
    if hook is None:
        hook = main.__dict__[_NAME] = _Hook()
    hook.install()
    hook.spans[current] = hook.spans.get(current, ()) + (span,)
    return _Carrier(hook, current)
