# SPDX-License-Identifier: Apache-2.0
"""The packets of the span protocol, by hand: the package needs nothing but Python."""

PROTOCOL = 1
NAME_MAX = 255          # bytes of names and segment ids
OPERATION_MAX = 1023    # bytes of an operation
PACKET_MAX = 32768      # bytes of a packet to the daemon
STACK_MAX = 1024        # code signatures of a stack
SIGNATURE_MAX = 1023    # bytes of one
RECEIVE_MAX = 65536     # bytes of one from it

# Field numbers of ClientPacket.
HELLO, START, RENAME, STOP, CONTINUE, SWITCH = range(1, 7)

# Field numbers of DaemonPacket.
WELCOME, ERROR, WATCH = range(1, 4)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """The daemon's packet is not one of the protocol."""


# ---- texts ----

def _is_bad(character):
    """Control characters, and the surrogates that stand for bytes that are not UTF-8."""
    c = ord(character)
    return c < 0x20 or 0x7f <= c < 0xa0 or 0xd800 <= c < 0xe000


def fits(text, limit):
    """Whether it is a text of 1 to `limit` bytes without control characters."""
    if not isinstance(text, str) or not 1 <= len(text) <= limit:
        return False
    if not text.isprintable() and any(map(_is_bad, text)):
        return False
    return text.isascii() or len(text.encode()) <= limit


def clean(text):
    """A text in which nothing is that the daemon would refuse."""
    if text.isprintable():
        return text
    return "".join("?" if _is_bad(c) else c for c in text)


# ---- to the daemon ----

def _varint(n):
    if n < 0x80:
        return bytes((n,))
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _number(field, n):
    """Values that are 0 or empty are not sent, as proto3 says."""
    return _varint(field << 3 | _VARINT) + _varint(n) if n else b""


def _chunk(field, content):
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _string(field, text):
    return _chunk(field, text.encode()) if text else b""


def hello(service, instance, language, client, agent):
    return _chunk(HELLO, _number(1, PROTOCOL) + _string(2, service) + _string(3, instance) + _string(4, language)
                  + _string(5, client) + _number(6, agent))


def start(segment, operation, tid, start_mono_ns, trace):
    return _chunk(START, _string(1, segment) + _string(2, operation) + _number(3, tid) + _number(4, start_mono_ns)
                  + _string(5, trace))


def rename(segment, operation):
    return _chunk(RENAME, _string(1, segment) + _string(2, operation))


def stop(segment, stop_mono_ns, error):
    return _chunk(STOP, _string(1, segment) + _number(2, stop_mono_ns) + _number(3, error))


def continued(parent, segment, tid, start_mono_ns, operation):
    return _chunk(CONTINUE, _string(1, parent) + _string(2, segment) + _number(3, tid) + _number(4, start_mono_ns)
                  + _string(5, operation))


def signature(text):
    """A code signature of a stack, encoded."""
    return _string(4, clean(text)[:SIGNATURE_MAX].encode()[:SIGNATURE_MAX].decode(errors="ignore") or "?")


def switch(segment, tid, at_mono_ns, stack):
    """`stack` may be empty or None. One that is too deep for a packet loses what is in its middle: its root tells trees
    apart, its end is where the span waits."""
    head = _string(1, segment) + _number(2, tid) + _number(3, at_mono_ns)
    frames = [frame if type(frame) is bytes else signature(frame) for frame in stack or ()]
    room = PACKET_MAX - 3 - len(head)
    if len(frames) > STACK_MAX or sum(map(len, frames)) > room:
        frames = _cut(frames, room)
    return _chunk(SWITCH, head + b"".join(frames))


def _cut(frames, room):
    mark = _string(4, "...")
    room -= len(mark)
    outer, inner = [], []
    while len(outer) + len(inner) < min(len(frames), STACK_MAX - 1):
        is_outer = len(outer) <= len(inner)
        frame = frames[len(outer)] if is_outer else frames[-1 - len(inner)]
        room -= len(frame)
        if room < 0:
            break
        (outer if is_outer else inner).append(frame)
    return [*outer, mark, *reversed(inner)]


# ---- from the daemon ----

def _get_varint(data, at):
    n = shift = 0
    while shift < 64:
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        n |= (byte & 0x7f) << shift
        if not byte & 0x80:
            return n, at
        shift += 7
    raise WireError("a number without end")


def _fields(data):
    """(number, type, value) of each field."""
    at = 0
    while at < len(data):
        tag, at = _get_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _get_varint(data, at)
        else:
            if kind == _BYTES:
                size, at = _get_varint(data, at)
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                raise WireError("a field of no type")
            if size > len(data) - at:
                raise WireError("a field that is longer than its packet")
            value = data[at:at + size]
            at += size
        yield tag >> 3, kind, value


def parse(data):
    """Return: (type, value): WELCOME and the protocol's number, ERROR and a text, WATCH and a frozenset of operations;
    (0, None): a packet of a later version, to be ignored. Raises WireError."""
    reply, message = 0, b""
    for number, kind, value in _fields(data):
        if kind == _BYTES and WELCOME <= number <= WATCH:
            reply, message = number, value
    fields = list(_fields(message))     # of those that a later version may have added, the form is looked at
    if reply == WELCOME:
        return reply, next((value for number, kind, value in fields if number == 1 and kind == _VARINT), 0)
    if reply == ERROR:
        return reply, b"".join(value for number, kind, value in fields if number == 1 and kind == _BYTES).decode(
            errors="replace")
    if reply == WATCH:
        return reply, frozenset(_operations(fields))
    return 0, None


def _operations(fields):
    for number, kind, value in fields:
        if number == 2 and kind == _BYTES:
            text = value.decode(errors="surrogateescape")
            if fits(text, OPERATION_MAX):
                yield text
