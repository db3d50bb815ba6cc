# SPDX-License-Identifier: Apache-2.0
"""Forks after a byte of input; then a request in each of the two processes. Prints a line before each waits for a byte,
and waits for another at its end."""

import os
import time

from skywalking.trace.context import get_context


def request():
    print(os.getpid(), flush=True)
    os.read(0, 1)
    with get_context().new_entry_span("/fork"):
        time.sleep(0.2)
    os.read(0, 1)


print("ready", flush=True)
os.read(0, 1)
pid = os.fork()
request()
failed = pid and os.waitpid(pid, 0)[1]
# Not as the interpreter ends: a thread of the agent that writes its last word to stderr then has it abort.
os._exit(bool(failed))
