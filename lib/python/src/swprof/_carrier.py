# SPDX-License-Identifier: Apache-2.0
"""What carries a watched span: its thread, or on that thread an asyncio task or a greenlet, which shares it with others.

A carrier reports when the span leaves the thread, with the stack at which it does, and when it comes back. Hooks are
where watched spans are, and as long as these live.
"""

import sys
from time import monotonic_ns


def attach(span):
    """The span was told to the daemon; it has started here."""
    try:
        _attach(span)
    except Exception:
        # What is not known to be the span's is not to be taken for it.
        tell(span, 0, None, monotonic_ns())


def _attach(span):
    events = sys.modules.get("asyncio.events")
    if events is not None:
        loop = events._get_running_loop()
        if loop is not None:
            from . import _asyncio
            span._carrier = _asyncio.attach(span, loop)
            return
    if "greenlet" in sys.modules:
        from . import _greenlet
        span._carrier = _greenlet.attach(span)


def tell(span, tid, stack, at_mono_ns):
    """The span is on the thread, or on none (0)."""
    client = span._client
    if client is None:
        return
    if client.may_follow(span):
        client.switch(span, tid, stack, at_mono_ns)
    elif span._carrier is not None:
        span._carrier.detach(span)
        span._carrier = None
