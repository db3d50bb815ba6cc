# SPDX-License-Identifier: Apache-2.0
"""The span protocol for programs of tests, in the least Python that every version from 3.8 on knows."""

import json
import os
import socket
import sys
import threading
import time
import uuid


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value if isinstance(value, bytes) else value.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


class Spans:
    def __init__(self, service, operation):
        self.operation = operation
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(os.environ["SWPROFD_SOCKET"])
        self.send(1, field(1, 1) + field(2, service) + field(3, "one") + field(4, "python"))
        # The watch list names an operation once a task for it is live.
        while operation.encode() not in self.socket.recv(65536):
            pass

    def send(self, kind, message):
        self.socket.send(field(kind, message))

    def start(self):
        segment = uuid.uuid4().hex
        self.send(2, field(1, segment) + field(2, self.operation) + field(3, threading.get_native_id()) +
                  field(4, time.monotonic_ns()))
        return segment

    def stop(self, segment):
        self.send(4, field(1, segment) + field(2, time.monotonic_ns()))

    def run(self, name, function, seconds):
        """The function, which is to end then, within a span; what is known of it goes to standard output as a line of
        JSON."""
        start = time.time() * 1000
        segment = self.start()
        try:
            function(time.monotonic() + seconds)
        finally:
            self.stop(segment)
        line = json.dumps({"name": name, "segment": segment, "start": start, "stop": time.time() * 1000})
        sys.stdout.write(line + "\n")   # at once: other threads write, too
        sys.stdout.flush()
