# SPDX-License-Identifier: Apache-2.0
"""Requests that need a CPU, with the SkyWalking agent. A line "/OPERATION ROUNDS N": one of N times that
many rounds of work, and how long each time took, less what the thread waited for a CPU."""

import json
import sys
import time

from skywalking.trace.context import get_context


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


class Box:
    def __init__(self, x):
        self.x = x

    def __lt__(self, other):
        return self.x < other.x


def work(rounds):
    for _ in range(rounds):
        fib(12)
        sorted(map(Box, range(200, 0, -1)))
        max([4], key=lambda n: sum(map(fib, range(n))))


def queued_ns():
    """For how long this thread has wanted a CPU that others had."""
    with open("/proc/thread-self/schedstat", encoding="ascii") as f:
        return int(f.read().split()[1])


def measured_ns(rounds):
    queued, begin = queued_ns(), time.monotonic_ns()
    work(rounds)
    return time.monotonic_ns() - begin - (queued_ns() - queued)


print("{}", flush=True)
for line in sys.stdin:
    operation, rounds, n = line.split()
    work(int(rounds))       # so that no request finds the caches colder than another
    with get_context().new_entry_span(operation):
        begin = time.time()
        times = [measured_ns(int(rounds)) for _ in range(int(n))]
        end = time.time()
    print(json.dumps({"begin_ms": 1000 * begin, "end_ms": 1000 * end, "ns": times}), flush=True)
