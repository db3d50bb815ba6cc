# SPDX-License-Identifier: Apache-2.0
"""The client: what it knows of the daemon, and the spans that it tells of.

What every span looks at are `word`, `quiet_word` and `next_look`, without a lock. All else is behind the lock, which is
held across a few system calls that do not wait. It may be taken again by the thread that has it: finalizers and signal
handlers, which run in between, may start spans, too.
"""

import os
from _thread import RLock, get_native_id
from time import monotonic, monotonic_ns

from . import _wire
from ._connection import Broken, Connection, Page
from ._version import __version__

# The word when the daemon has closed the connection, and before there was one. No list has it.
WORD_CLOSED = 2 ** 64 - 1
_NO_PAGE = (WORD_CLOSED,)

BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 60.0
# A daemon that was killed could not close its pages: its sockets tell.
CHECK_INTERVAL_S = 10.0
# Between hello and list.
WELCOME_POLL_S = 0.01
WELCOME_TIMEOUT_S = 10.0
# A daemon that sends without pause must not hold up the span that reads.
PACKETS_PER_LOOK = 16
# The daemon follows that many segments of a client by default.
RECORDS_MAX = 4096


class Client:
    def __init__(self, service, instance, agent, path):
        self.arguments = (service, instance, agent, path)
        self.word = _NO_PAGE            # word[0]: the daemon's generation
        self.quiet_word = WORD_CLOSED   # with it, nobody is interested in anything
        self.next_look = 0.0            # but after this, there is something to do anyway
        self.followed = False           # whether a live span is one that a task is for

        self._seen_word = WORD_CLOSED
        self._lock = RLock()
        self._pid = os.getpid()
        self._connection = self._page = None
        self._operations = None         # of this connection's list; None: none came yet
        self._hello_at = self._next_try = 0.0
        self._backoff_s = BACKOFF_MIN_S
        # The live spans that the daemon is to know, by segment, in the order of their starts: so that it can be told
        # again after it was away.
        self._live = {}

    # ---- fork ----

    def forked(self):
        """In the child, before anything else. The connection is the parent's, and so are the spans."""
        self._lock = RLock()
        self._leave()

    def _leave(self):
        self._pid = os.getpid()
        if self._connection:
            self._connection.leave()
        self._drop()
        self._live = {}
        self._backoff_s = BACKOFF_MIN_S
        self._next_try = 0.0
        self._publish(WORD_CLOSED, 0.0)

    def _is_forked(self):
        """A fork that Python was not told of."""
        return os.getpid() != self._pid

    # ---- the connection ----

    def _publish(self, word, next_look):
        """`word`: all that came before the daemon set the page to that was read."""
        self.quiet_word = -1 if self._operations else word
        self._seen_word = word
        self.next_look = next_look

    def _drop(self):
        self._connection = None
        if self._page:
            self._page.leave()
        self._page, self.word = None, _NO_PAGE
        self._operations = None
        self.followed = False

    def _disconnect(self):
        """Or the try to make a connection has failed."""
        if self._connection:
            self._connection.close()
        self._drop()
        for span in list(self._live.values()):
            span._told = False
        self._next_try = monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)
        self._publish(WORD_CLOSED, self._next_try)

    def _connect(self, now):
        service, instance, agent, path = self.arguments
        try:
            self._connection = Connection(path)
        except OSError:
            self._disconnect()
            return
        if instance is None:
            host = os.uname().nodename
            instance = f"{os.getpid()}@{host if _wire.fits(host, 64) else 'localhost'}"
        self._hello_at = now
        self._send(_wire.hello(service, instance, "python", f"swprof {__version__}", agent))

    def _send(self, packet):
        """If there is no room for it, the connection is given up, because what the daemon believes would stay wrong.
        Return: whether it was sent."""
        try:
            if self._connection and self._connection.send(packet):
                return True
        except Broken:
            pass
        self._disconnect()
        return False

    def _take(self, packet, fd):
        """Raises Broken, WireError, OSError where the daemon does not keep to the protocol."""
        kind, value = _wire.parse(packet)
        if kind == _wire.WELCOME:
            if self._page or value != _wire.PROTOCOL or fd < 0:
                raise Broken("not a welcome")
            self._page = Page(fd)
            self.word = self._page.word
        elif kind == _wire.WATCH:
            if not self._page:
                raise Broken("a list without a welcome")
            self._operations = value
            self._backoff_s = BACKOFF_MIN_S
            return True
        elif kind == _wire.ERROR:
            raise Broken(value)
        return False

    def _receive(self):
        """Return: None: there is nothing more; whether a list came. Raises as _take()."""
        received = self._connection.receive()
        if not received:
            return None
        packet, fd = received
        try:
            return self._take(packet, fd)
        finally:
            if fd >= 0:
                os.close(fd)

    def _read(self, now):
        """Reads what there is."""
        listed = False
        try:
            for _ in range(PACKETS_PER_LOOK):
                # Before each read: what led to this word is in the socket, or was read.
                word = self.word[0]
                came = self._receive()
                if came is None:
                    break
                listed = listed or came
            else:
                word = WORD_CLOSED - 1      # there may be more
        except (Broken, OSError, ValueError):
            self._disconnect()
            return
        if (self._page and word == WORD_CLOSED) or (
                self._operations is None and now > self._hello_at + WELCOME_TIMEOUT_S):
            self._disconnect()
            return
        waiting = self._operations is None or word == WORD_CLOSED - 1
        self._publish(word, now + (WELCOME_POLL_S if waiting else CHECK_INTERVAL_S))
        if listed:
            for span in list(self._live.values()):
                if not span._told:
                    self._announce(span)

    def _update(self, now):
        if self._is_forked():
            self._leave()
        if not self._connection and now >= self._next_try:
            self._connect(now)
        if self._connection:
            self._read(now)
        self._follow()

    def look(self):
        """Looks after the connection when it is time to. Return: whether any operation is watched."""
        now = monotonic()
        # Somebody else who is at it does it for us, too.
        if (self.word[0] != self._seen_word or now >= self.next_look) and self._lock.acquire(False):
            try:
                self._update(now)
            finally:
                self._lock.release()
        return bool(self._operations)

    def close(self):
        """For the daemon, the live spans end now."""
        with self._lock:
            self._live = {}
            if self._is_forked():
                self._leave()
            else:
                self._disconnect()
            self.next_look = self._next_try = float("inf")

    # ---- spans; with the lock held ----

    def _follow(self):
        operations = self._operations
        self.followed = bool(operations) and any(
            span._told and span._root.operation in operations for span in list(self._live.values()))

    def _announce(self, span):
        """Tells of the span, if it is to be told of. Return: whether it is told now."""
        parent = span._parent
        if parent is None:
            if span.operation not in (self._operations or ()):
                return False
            packet = _wire.start(span._segment, span.operation, span._tid, span._start_ns, span.trace_id)
        else:
            if not parent._told:
                return False
            packet = _wire.continued(parent._segment, span._segment, span._tid, span._start_ns, span.operation)
        # A start that is lost costs a profile; a stop that is lost, a wrong one.
        if not self._connection.has_room():
            return False
        try:
            if not self._connection.send(packet):
                return False
        except Broken:
            self._disconnect()
            return False
        span._told = True
        span._let_go = False
        return True

    def _add(self, span):
        """A span that is watched, as far as it looks."""
        if span._tid is None:
            span._tid = get_native_id()
        if len(self._live) >= RECORDS_MAX or span.segment_id in self._live:
            return
        self._live[span._segment] = span
        span._client = self
        # Not for want of a daemon: it is not told later either.
        if not self._announce(span) and self._operations is not None:
            del self._live[span._segment]
            span._client = None

    def _has(self, span):
        """Not after a fork or a close."""
        return self._live.get(span._segment) is span and not self._is_forked()

    # ---- spans ----

    def watches(self, operation):
        """None: any."""
        return self.look() and (operation is None or operation in (self._operations or ()))

    def start(self, span):
        if not self.look():
            return
        span._start_ns = span._start_ns or monotonic_ns()
        if span.operation not in (self._operations or ()):
            return
        with self._lock:
            self._add(span)
            self._follow()

    def continue_segment(self, span, parent):
        if not self.look():
            return
        span._start_ns = monotonic_ns()
        with self._lock:
            if isinstance(parent, str):
                parent = self._live.get(parent)
            if parent is None or not self._has(parent):
                return
            span._parent, span._root = parent, parent._root
            self._add(span)
            self._follow()

    def rename(self, span, operation):
        """Of a span that is live."""
        self.look()
        with self._lock:
            if not self._has(span):
                return
            watched = operation in (self._operations or ())
            span.operation = operation
            if span._told:
                self._send(_wire.rename(span._segment, operation))
            # If the daemon has let it go meanwhile, the name alone does not bring it back.
            if self._connection and (not span._told or (watched and span._let_go)):
                self._announce(span)
            span._let_go = span._told and not watched
            self._follow()

    def switch(self, span, tid, stack, at_mono_ns):
        self.look()
        with self._lock:
            span._tid = tid
            if self._has(span) and span._told:
                # Rather a wait without its stack than a daemon that does not learn of one.
                if stack and not self._connection.has_room():
                    stack = None
                self._send(_wire.switch(span._segment, tid, at_mono_ns, stack))
                self._follow()

    def stop(self, span, error):
        with self._lock:
            if not self._has(span):
                return
            del self._live[span._segment]
            if span._told:
                span._told = False
                self._send(_wire.stop(span._segment, monotonic_ns(), error))
            self._follow()

    def may_follow(self, span):
        """Without the lock. Also while the daemon is away: it may come back, and is told then where the span is."""
        operations = self._operations
        return operations is None or span._root.operation in operations

    def is_watched(self, span):
        with self._lock:
            return span._told and self._has(span) and span._root.operation in (self._operations or ())
