# SPDX-License-Identifier: Apache-2.0
"""The daemon's side of the span protocol, in the test's own process: it does what it is told, when it is told."""

import array
import fcntl
import mmap
import os
import socket
import struct
import tempfile

WORD_CLOSED = 2 ** 64 - 1
PAGE = mmap.PAGESIZE
F_ADD_SEALS = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE = 1, 2, 4, 16

NAMES = {1: "hello", 2: "start", 3: "rename", 4: "stop", 5: "continued", 6: "switched"}
# field number -> name, of each message; texts are decoded, numbers are numbers
FIELDS = {
    "hello": ["protocol", "service", "instance", "language", "client", "agent"],
    "start": ["segment", "operation", "tid", "start_mono_ns", "trace"],
    "rename": ["segment", "operation"],
    "stop": ["segment", "stop_mono_ns", "error"],
    "continued": ["parent", "segment", "tid", "start_mono_ns", "operation"],
    "switched": ["segment", "tid", "at_mono_ns", "stack"],
}


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7f | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    at = 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 0x7f) << shift
            shift += 7
            if not byte & 0x80:
                return n

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
        else:
            assert tag & 7 == 2, tag
            size = number()
            assert at + size <= len(data)
            yield tag >> 3, data[at:at + size]
            at += size


def decode(packet):
    """Return: (name, {field: value}). A field that comes more than once is a list."""
    ((kind, message),) = fields(packet)
    name, values = NAMES[kind], {}
    for n, value in fields(message):
        key = FIELDS[name][n - 1]
        value = value if isinstance(value, int) else value.decode()
        if key == "stack":
            values.setdefault(key, []).append(value)
        else:
            assert key not in values and value not in (0, ""), (key, value)
            values[key] = value
    return name, values


class FakeDaemon:
    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="swprof-test.")
        self.path = os.path.join(self._folder.name, "span.sock")
        self.listener = self.peer = self.page = None
        self.listen()

    def listen(self):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.listener.setblocking(False)

    def unlisten(self):
        self.listener.close()
        os.unlink(self.path)
        self.listener = None

    def close(self):
        self.hang_up()
        if self.listener:
            self.unlisten()
        self._folder.cleanup()

    def accept(self):
        """Return: whether somebody has connected."""
        try:
            peer, _ = self.listener.accept()
        except BlockingIOError:
            return False
        self.hang_up()
        self.peer = peer
        self.peer.setblocking(False)
        return True

    def send(self, message, fds=()):
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.peer.sendmsg([message], control)

    @staticmethod
    def make_page(seals=F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, size=PAGE):
        """Return: (descriptor, mapping that can be written)."""
        fd = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        page = mmap.mmap(fd, size)
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
        return fd, page

    def set_word(self, word):
        self.page[:8] = struct.pack("=Q", word)

    def welcome(self, protocol=1, **page):
        fd, self.page = self.make_page(**page)
        self.generation = 1
        self.set_word(self.generation)
        try:
            self.send(field(1, field(1, protocol) + field(2, b"fake")), [fd])
        finally:
            os.close(fd)

    def watch(self, *operations):
        self.generation += 1
        names = b"".join(field(2, o if isinstance(o, bytes) else o.encode()) for o in operations)
        self.send(field(3, field(1, self.generation) + names))
        self.set_word(self.generation)

    def hang_up(self, orderly=True):
        if self.page:
            if orderly:
                self.set_word(WORD_CLOSED)
            self.page.close()
            self.page = None
        if self.peer:
            self.peer.close()
            self.peer = None

    def receive(self):
        """Return: the next packet's (name, fields); None: there is none; "" after the end."""
        try:
            packet = self.peer.recv(65536)
        except BlockingIOError:
            return None
        return decode(packet) if packet else ""

    def received(self):
        """All that there are."""
        packets = []
        while True:
            packet = self.receive()
            if not packet:
                return packets
            packets.append(packet)
