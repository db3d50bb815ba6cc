# SPDX-License-Identifier: Apache-2.0
"""A request that has C functions work: numpy's and zlib's. Prints its segment."""

import os
import time
import zlib

import swprof

import numpy

N = 300
MATRIX = numpy.random.default_rng(1).random((N, N))
TEXT = os.urandom(1 << 16) * 4


def multiply(until):
    while time.monotonic() < until:
        numpy.matmul(MATRIX, MATRIX)


def compress(until):
    while time.monotonic() < until:
        zlib.compress(TEXT)


swprof.init("native", "one")
while not swprof.watched("/native"):
    time.sleep(0.01)
with swprof.span("/native") as span:
    multiply(time.monotonic() + 0.3)
    compress(time.monotonic() + 0.3)
print(span.segment_id, flush=True)
