# SPDX-License-Identifier: Apache-2.0
"""A WSGI application whose requests, each with a function of its own, all wait at once."""

import json
import os
import time

import markers
import swprof

swprof.init("greenlets", "one")
MARKERS = markers.make("def marker_N(wait): return wait()")


def wait():
    waits = []
    for _ in range(3):
        begin = time.monotonic()
        time.sleep(0.1)
        waits.append(1000 * (time.monotonic() - begin))
        markers.spin(2)
    return waits


def application(environ, start_response):
    number = environ["PATH_INFO"].lstrip("/")
    begin = time.time()
    if number == "":
        answer = {"pid": os.getpid(), "watched": swprof.watched("/wait")}
    elif number == "hook":
        import greenlet
        answer = {"hook": repr(greenlet.gettrace())}
    else:
        with swprof.span("/wait") as span:
            answer = {"waits": MARKERS[int(number)](wait), "segment": span.segment_id, "watched": span.watched}
    answer.update(start=1000 * begin, stop=1000 * time.time())
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
