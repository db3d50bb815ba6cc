# SPDX-License-Identifier: Apache-2.0
"""Stacks of what waits, as a packet has them: encoded code signatures, outermost first.

A signature is encoded once for each place in the code: what a switch costs is to walk the frames.
"""

import gc
import types

from . import _wire

# Deeper ones lose what is outermost; a packet holds fewer.
DEPTH_MAX = 1024
# When there are more of them, it starts anew.
_CODES_MAX = 8192

_Coroutine, _Generator, _AsyncGenerator = types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType
# What stands between two coroutines, and does not say for whom.
_WRAPPERS = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable")

# By the code's id, which is quicker than the code: the code, which so stays alive, and its signatures by instruction.
_codes = {}


def _encode(frame, code):
    line = frame.f_lineno
    text = f"{code.co_filename}.{code.co_name}: {0 if line is None else line}"
    return _wire.signature(text)


def _new(frame, code):
    if len(_codes) >= _CODES_MAX:
        _codes.clear()
    encoded = _encode(frame, code)
    _codes[id(code)] = (code, {frame.f_lasti: encoded})
    return encoded


def of_frame(frame):
    """The frame and its callers."""
    stack = []
    add = stack.append
    codes = _codes
    while frame is not None:
        code = frame.f_code
        known = codes.get(id(code))
        if known is None:
            add(_new(frame, code))
        else:
            encoded = known[1].get(frame.f_lasti)
            if encoded is None:
                encoded = known[1][frame.f_lasti] = _encode(frame, code)
            add(encoded)
        if len(stack) == DEPTH_MAX:
            break
        frame = frame.f_back
    stack.reverse()
    return stack


def _behind(awaitable):
    """What a wrapper stands for, or None."""
    if type(awaitable).__name__ in _WRAPPERS:
        for o in gc.get_referents(awaitable):
            if isinstance(o, (_Coroutine, _Generator, _AsyncGenerator)):
                return o
    return None


def add_awaiting(stack, awaitable):
    """What a coroutine waits at, and those that it waits for."""
    codes = _codes
    while awaitable is not None and len(stack) < DEPTH_MAX:
        kind = type(awaitable)
        if kind is _Coroutine:
            frame, awaited = awaitable.cr_frame, awaitable.cr_await
        elif kind is _Generator:
            frame, awaited = awaitable.gi_frame, awaitable.gi_yieldfrom
        elif kind is _AsyncGenerator:
            frame, awaited = awaitable.ag_frame, awaitable.ag_await
        elif hasattr(awaitable, "cr_await"):    # a compiled one
            frame, awaited = getattr(awaitable, "cr_frame", None), awaitable.cr_await
        else:
            awaitable = _behind(awaitable)
            continue
        if frame is not None:
            code = frame.f_code
            known = codes.get(id(code))
            encoded = known[1].get(frame.f_lasti) if known is not None else _new(frame, code)
            if encoded is None:
                encoded = known[1][frame.f_lasti] = _encode(frame, code)
            stack.append(encoded)
        awaitable = awaited
    return stack
