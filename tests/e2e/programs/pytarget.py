# SPDX-License-Identifier: Apache-2.0
"""pytarget.py SERVICE CASE SECONDS [THREADS]: functions whose call paths are known, each within a span.

A line that ends with "# at NAME" is one at which the function may be met; test_python.py looks for these marks.
"""

import asyncio
import gc
import re
import sys
import textwrap
import threading
import time

from pyspan import Spans


# ---- what a path ends with ----

def leaf_wait(end):
    while time.monotonic() < end:
        time.sleep(0.03)  # at leaf_wait


def leaf_burn(end):
    n = 0
    while time.monotonic() < end:  # at leaf_burn
        for i in range(1000):  # at leaf_burn
            n += i  # at leaf_burn
    return n  # at leaf_burn


def wait(end):
    leaf_wait(end)  # at wait


def burn(end):
    leaf_burn(end)  # at burn


# ---- C in between ----

def nested(end):
    by_sort(end)  # at nested


def by_sort(end):
    def key(item):
        return by_map(end)  # at key

    sorted([1], key=key)  # at by_sort


def by_map(end):
    def mapped(item):
        by_sub(end)  # at mapped

    return list(map(mapped, [1]))  # at by_map


def by_sub(end):
    def replace(match):
        return Called()(end)  # at replace

    re.sub("a", replace, "a")  # at by_sub


class Called:
    def __call__(self, end):
        half = (time.monotonic() + end) / 2
        leaf_wait(half)  # at __call__
        leaf_burn(end)  # at __call__
        return "b"


class Made:
    def __init__(self, end):
        leaf_burn(end)  # at __init__


def construct(end):
    # Specialised calls of __init__ have a frame of their own since 3.12.
    while time.monotonic() < end:
        Made(time.monotonic() + 0.002)  # at construct


# ---- generators and coroutines ----

def generate(end):
    for _ in inner_generator(end):  # at generate
        pass


def inner_generator(end):
    yield from innermost_generator(end)  # at inner_generator


def innermost_generator(end):
    while time.monotonic() < end:
        leaf_burn(time.monotonic() + 0.02)  # at innermost_generator
        yield 1


def coroutines(end):
    asyncio.run(outer_coroutine(end))


async def outer_coroutine(end):
    await inner_coroutine(end)  # at outer_coroutine


async def inner_coroutine(end):
    while time.monotonic() < end:
        leaf_burn(time.monotonic() + 0.02)  # at inner_coroutine
        await asyncio.sleep(0)


# ---- depth ----

def deep(end, depth=500):
    if depth > 1:
        return deep(end, depth - 1)  # at deep
    return leaf_wait(end)  # at deep


# ---- code that comes and goes ----

SOURCE = """
def f{n:06d}(end, burn):
    g{n:06d}(end, burn)


def g{n:06d}(end, burn):
    while burn() < end:
        pass
"""


def codes(end):
    """Functions that live for a moment, with names of one length, at addresses that others had before. File, lines and
    names all tell the number."""
    n = threading.get_native_id() % 1000 * 1000
    while time.monotonic() < end:
        n += 1
        space = {}
        exec(compile("\n" * (n % 1000) + SOURCE.format(n=n), "<h%06d>" % n, "exec"), space)
        space["f%06d" % n](time.monotonic() + 0.001, time.monotonic)
        del space
        if n % 50 == 0:
            gc.collect()


# ---- another interpreter in the same thread ----

def interpreter(end):
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    leaf_wait(time.monotonic() + 0.2)   # the thread is known without the other one
    new = interpreters.create()
    source = textwrap.dedent("""
        import time
        def in_other(end):
            while time.monotonic() < end:
                time.sleep(0.03)
        in_other(%r)
    """) % max(end, time.monotonic() + 0.7)     # also where all until now took its time
    run = getattr(interpreters, "run_string")
    run(new, source)  # at interpreter


CASES = {f.__name__: f for f in (wait, burn, nested, construct, generate, coroutines, deep, codes, interpreter)}


def main():
    service, case, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    n_threads = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    sys.setrecursionlimit(2000)
    spans = Spans(service, "/" + service)

    def run():
        spans.run(case, CASES[case], seconds)

    threads = [threading.Thread(target=run) for _ in range(n_threads)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if not threads:
        run()


if __name__ == "__main__":
    main()
