# SPDX-License-Identifier: Apache-2.0
"""A Flask application with the SkyWalking agent, whose requests, each with a function of its own, all wait at once. It
starts the agent itself, in the worker that gevent has patched: started sooner, as by `sw-python run -p`, the agent's own
profiler takes greenlets for threads and has no snapshots."""

import time

import markers
from flask import Flask, request
from skywalking import agent
from skywalking.trace.context import get_context

agent.start()

app = Flask(__name__)
MARKERS = markers.make("def marker_N(wait): return wait()")
KNOWN = {}


def wait():
    waited_ms = 0
    for _ in range(3):
        begin = time.monotonic()
        time.sleep(0.1)
        waited_ms += 1000 * (time.monotonic() - begin)
        markers.spin(2)
    return waited_ms


@app.route("/wait")
def serve():
    n, begin = int(request.args["n"]), time.time()
    segment, waited_ms = str(get_context().segment.segment_id), MARKERS[n](wait)
    KNOWN[n] = {"number": n, "segment": segment, "waited_ms": waited_ms, "begin": 1000 * begin,
                "end": 1000 * time.time()}
    return "done"


@app.route("/known")
def known():
    """Also of those that have failed since."""
    return list(KNOWN.values())
