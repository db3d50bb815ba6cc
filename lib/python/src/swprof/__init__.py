# SPDX-License-Identifier: Apache-2.0
"""Tells swprofd, the profiling daemon of this host, when a request starts and stops on which thread.

    swprof.init("my-service")
    with swprof.span("GET:/x"):
        ...

Everything goes on without a daemon. No function waits, starts a thread, or raises an exception; no span costs more than
a look at memory while no profile task is there. Any thread may call any of them, one after the other for the same span.
"""

import atexit
import os
from _thread import RLock, allocate_lock
from time import monotonic, monotonic_ns

from . import _wire
from ._carrier import attach
from ._client import Client
from ._version import __version__

__all__ = ["Span", "close", "continue_segment", "init", "is_quiet", "on_watch", "span", "start", "watched"]

_current = None
_change = RLock()       # of _current; signal handlers may change it, too


class Span:
    """A request on a thread: in SkyWalking's words, a segment with its first span."""

    __slots__ = ("operation", "trace_id", "_segment", "_start_ns", "_tid", "_client", "_told", "_let_go", "_parent",
                 "_root", "_carrier", "__weakref__")

    def __init__(self, operation, trace_id, segment_id):
        self.operation = operation
        self.trace_id = trace_id
        self._segment = segment_id      # None: was not needed yet
        self._start_ns = 0              # 0: nothing was watched then
        self._tid = None                # of another thread than the one that starts it
        self._client = None             # it is one of those that the daemon is to know

    @property
    def segment_id(self):
        """What was given at its start, or else a random one."""
        if self._segment is None:
            self._segment = os.urandom(16).hex()
        return self._segment

    @property
    def watched(self):
        """Whether the daemon knows the span, and a task is for it."""
        client = self._client
        try:
            return client is not None and client.is_watched(self)
        except Exception:
            return False

    def rename(self, operation):
        """It has another operation now. If a task is for that one, the daemon learns of the span with its true start,
        if any operation was watched then, else as one that starts now."""
        try:
            if not _wire.fits(operation, _wire.OPERATION_MAX):
                return
            if self._client is not None:
                self._client.rename(self, operation)
                if self._carrier is None and self._client is not None and self._client.may_follow(self):
                    attach(self)
                _tell()
                return
            self.operation = operation
            _begin(self)
        except Exception:
            pass

    def switch(self, tid, stack=None):
        """It goes on in the thread `tid`, as gettid() says, or on none for now (0); `stack`: where it waits then, code
        signatures, outermost first."""
        try:
            if self._client is None:
                self._tid = tid
            else:
                self._client.switch(self, tid, stack, monotonic_ns())
                _tell()
        except Exception:
            pass

    def stop(self, error=False):
        """The request is over. Again: does nothing."""
        client = self._client
        if client is None:
            return
        try:
            self._client = None
            client.stop(self, error)
            if self._carrier is not None:
                self._carrier.detach(self)
            _tell()
        except Exception:
            pass

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.stop(kind is not None)

    def __repr__(self):
        return f"<swprof.Span {self._segment} of {self.operation}>"


def _prepare(span):
    """Before it is told of."""
    span._told = span._let_go = False
    span._parent, span._root = None, span
    span._carrier = None


def _is_good(span):
    return ((span._segment is None or _wire.fits(span._segment, _wire.NAME_MAX))
            and (not span.trace_id or _wire.fits(span.trace_id, _wire.NAME_MAX)))


def _begin(span):
    client = _current
    if client is None or not _is_good(span):
        return
    _prepare(span)
    client.start(span)
    if span._client is not None:
        attach(span)
    _tell()


def init(service, instance=None, agent=False, socket_path=None):
    """The names of this process, as the OAP knows them; `agent`: a SkyWalking agent reports its trace segments.
    `instance` None: "PID@HOSTNAME", also in the child of a fork; `socket_path` None: $SWPROFD_SOCKET or
    /run/swprofd/span.sock. Connects now, or later by itself. With other names than before: the live spans end.
    Return: whether the names can be used."""
    global _current
    try:
        path = socket_path or os.environ.get("SWPROFD_SOCKET") or "/run/swprofd/span.sock"
        path = os.fsdecode(path)
        if not (_wire.fits(service, _wire.NAME_MAX) and (instance is None or _wire.fits(instance, _wire.NAME_MAX))):
            return False
        with _change:
            if _current is None or _current.arguments != (service, instance, bool(agent), path):
                client = Client(service, instance, bool(agent), path)
                before, _current = _current, client
                if before is not None:
                    before.close()
        _current.look()
        _tell()
        return True
    except Exception:
        return False


def close():
    """For the daemon, the live spans end now. Until init(), nobody is told of anything."""
    global _current
    try:
        with _change:
            client, _current = _current, None
        if client is not None:
            client.close()
        _tell()
    except Exception:
        pass


def watched(operation=None):
    """Whether a profile task is for the operation; None: for any."""
    client = _current
    try:
        return client is not None and client.watches(operation)
    except Exception:
        return False


def is_quiet():
    """Whether nobody is interested in any span; costs next to nothing, for those who would have to gather what a span
    needs. False: maybe."""
    client = _current
    return client is None or (client.word[0] == client.quiet_word and monotonic() < client.next_look)


def start(operation, trace_id=None, segment_id=None):
    """A request starts on this thread. Return: its span. `segment_id`: any string that no other segment has; a
    program with a SkyWalking agent gives the one of its trace segment. None: a random one."""
    span = Span(operation, trace_id, segment_id)
    client = _current
    if client is None or (client.word[0] == client.quiet_word and monotonic() < client.next_look):
        return span
    try:
        if _wire.fits(operation, _wire.OPERATION_MAX):
            _begin(span)
    except Exception:
        pass
    return span


span = start    # with swprof.span("GET:/x") as s: ...


def continue_segment(parent, segment_id=None, operation=None):
    """A further thread, this one, works on the request of `parent`, a span that is live in any thread of this process,
    or its segment id: a segment of its own. `operation` None: the parent's. Return: its span."""
    span = Span(operation, None, segment_id)
    client = _current
    if client is None or (client.word[0] == client.quiet_word and monotonic() < client.next_look):
        return span
    try:
        if _is_good(span) and (operation is None or _wire.fits(operation, _wire.OPERATION_MAX)):
            _prepare(span)
            client.continue_segment(span, parent)
            if span._client is not None:
                attach(span)
            _tell()
    except Exception:
        pass
    return span


# ---- who wants to know whether spans are watched ----

class _Watcher:
    def __init__(self, callback):
        self.callback = callback
        self.told = False


_watchers = []
_telling = allocate_lock()


def on_watch(callback):
    """callback(True) is called when there is a live span that the daemon follows, callback(False) when there is none
    any more, each in the thread that notices, also now if there is one. For hooks that cost something."""
    _watchers.append(_Watcher(callback))
    _tell()


def _is_followed():
    client = _current
    return client is not None and client.followed


def _tell():
    """A thread that is at it, and this one further up, does it for us, too."""
    while True:
        followed = _is_followed()
        late = [w for w in _watchers if w.told != followed]
        if not late or not _telling.acquire(False):
            return
        try:
            for w in late:
                w.told = followed
                try:
                    w.callback(followed)
                except Exception:
                    pass
        finally:
            _telling.release()


# ---- the process ----

def _forked():
    global _change, _telling
    _change, _telling = RLock(), allocate_lock()
    if _current is not None:
        _current.forked()
    _tell()


os.register_at_fork(after_in_child=_forked)
atexit.register(close)
