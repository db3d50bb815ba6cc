# SPDX-License-Identifier: Apache-2.0
"""The socket and the daemon's page. Nothing here waits.

A program that becomes a daemon may close all its descriptors, ours too, and use the numbers again: what is
ours is known by its inode, and another file is left alone.
"""

import _socket      # not socket: what gevent puts in its place would switch
import array
import errno
import fcntl
import mmap
import os
import struct
import sys
import termios

from . import _wire

# The kernel allows twice that, for its own needs; no more is had by default. Packets that begin something have the
# first half.
_SEND_BUFFER = 212992

_F_GET_SEALS = 1034
_F_SEAL_SHRINK = 2
_NOT_NOW = (errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM)

# What could not be let go without closing a file that is not ours.
_abandoned = []


class Broken(Exception):
    """The connection is of no use any more."""


def _inode(fd):
    try:
        st = os.fstat(fd)
    except OSError:
        return None
    return st.st_dev, st.st_ino


class Page:
    """The page in which the daemon keeps its generation: page.word[0]."""

    def __init__(self, fd):
        """Maps it; the descriptor stays the caller's. A file that somebody could shorten is not mapped: reading what
        is no more would be a SIGBUS. Raises Broken, OSError."""
        if not fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK or os.fstat(fd).st_size < mmap.PAGESIZE:
            raise Broken("the page is not sealed")
        self._copy = None
        if sys.version_info >= (3, 13):
            self._map = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, trackfd=False)
        else:
            # It keeps a copy of the descriptor, whose number it does not tell: the least that is free, like this one.
            copy = os.dup(fd)
            os.close(copy)
            self._map = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
            self._copy = copy
            self._inode = _inode(fd)
        self.word = memoryview(self._map).cast("Q")

    def leave(self):
        if self._copy is not None and _inode(self._copy) != self._inode:
            _abandoned.append((self._map, self.word))


class Connection:
    def __init__(self, path):
        """Raises OSError: not now."""
        self._socket = _socket.socket(_socket.AF_UNIX,
                                      _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
        self._inode = _inode(self._socket.fileno())
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        try:
            self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _SEND_BUFFER)
        except OSError:
            pass    # the default is as good

    def _is_ours(self):
        return _inode(self._socket.fileno()) == self._inode

    def leave(self):
        """Closes the copy of a child: the parent's connection goes on."""
        if self._is_ours():
            self._socket.close()
        else:
            self._socket.detach()

    def close(self):
        """Ends it, also where a child of a fork holds a copy of the socket."""
        if self._is_ours():
            try:
                self._socket.shutdown(_socket.SHUT_RDWR)
            except OSError:
                pass    # the daemon was first
        self.leave()

    def has_room(self):
        """Whether a packet that begins something may be sent: the rest of the room is for their ends."""
        try:
            used = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return True
        return struct.unpack("i", used)[0] < _SEND_BUFFER

    def send(self, packet):
        """Return: False: there is no room. Raises Broken."""
        if not self._is_ours():
            raise Broken("closed by the program")
        try:
            self._socket.send(packet, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError as e:
            if e.errno in _NOT_NOW:
                return False
            raise Broken(str(e)) from None
        return True

    def receive(self):
        """Return: None: there is nothing; (packet, descriptor or -1). Raises Broken."""
        if not self._is_ours():
            raise Broken("closed by the program")
        try:
            packet, control, flags, _ = self._socket.recvmsg(
                _wire.RECEIVE_MAX, _socket.CMSG_LEN(4), _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC)
        except OSError as e:
            if e.errno in _NOT_NOW:
                return None
            raise Broken(str(e)) from None
        fds = array.array("i")
        for level, kind, data in control:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
        if not packet or flags & _socket.MSG_TRUNC or len(fds) > 1:
            for fd in fds:
                os.close(fd)
            raise Broken("hung up" if not packet else "no packet of the protocol")
        return packet, fds[0] if fds else -1
