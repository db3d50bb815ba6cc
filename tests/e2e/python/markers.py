# SPDX-License-Identifier: Apache-2.0
"""Functions whose names tell requests apart, for servers with many requests on one thread. The fastest part of each is
to do something, the slowest to wait."""

import time

N = 20


def spin(ms):
    end = time.monotonic() + ms / 1000
    while time.monotonic() < end:
        pass


def make(source):
    """marker_0, marker_1, ... of source code that has an N in place of the number. Its lines are as in this text."""
    names = {}
    for n in range(N):
        exec(compile(source.replace("_N", f"_{n}"), __file__, "exec"), names)
    return [names[f"marker_{n}"] for n in range(N)]
