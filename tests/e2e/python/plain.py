# SPDX-License-Identifier: Apache-2.0
"""A request without an agent: it gets its name late, a thread works for it, and it waits on no thread for a while. Prints
what was when (in ms), one JSON object. With an argument: the request lasts until the program gets a byte."""

import json
import os
import sys
import threading
import time

import swprof

said = {}


def note(key):
    said[key] = int(time.time() * 1000)


def work(span):
    with swprof.continue_segment(span) as sub:
        said["sub"] = sub.segment_id
        time.sleep(0.2)


def request():
    note("start")
    with swprof.span("/{any}", trace_id="trace") as span:
        said["segment"] = span.segment_id
        time.sleep(0.1)
        note("renamed")
        span.rename("/plain")
        thread = threading.Thread(target=work, args=(span,))
        thread.start()
        thread.join()
        span.switch(0)
        time.sleep(0.1)
        span.switch(threading.get_native_id())
        time.sleep(0.1)
    note("stop")
    print(json.dumps(said), flush=True)


def long_request():
    with swprof.span("/plain") as span:
        print(span.segment_id, flush=True)
        end = []
        threading.Thread(target=lambda: end.append(os.read(0, 1))).start()
        while not end:
            swprof.watched()
            time.sleep(0.01)


swprof.init("plain", "one")
while not swprof.watched("/plain"):
    time.sleep(0.01)
if sys.argv[1:]:
    long_request()
else:
    request()
