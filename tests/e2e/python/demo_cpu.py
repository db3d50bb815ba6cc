# SPDX-License-Identifier: Apache-2.0
"""The demo, with work in place of sleep: a request answers how long (ms) each of its calls took, also of CPU time."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


def work(ms):
    end = time.monotonic() + ms / 1000
    while time.monotonic() < end: pass      # noqa: E701: one line, one node


def timed(times, name, function, *arguments):
    begin, cpu_begin = time.monotonic(), time.thread_time()
    function(*arguments)
    times[name] = 1000 * (time.monotonic() - begin), 1000 * (time.thread_time() - cpu_begin)


def method1(times):
    timed(times, "work1", work, 20)


def method2(times):
    timed(times, "work2", work, 20)
    timed(times, "method1", method1, times)


def method3(times):
    timed(times, "work3", work, 20)
    timed(times, "method2", method2, times)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        times = {}
        timed(times, "work", work, 500)
        timed(times, "method3", method3, times)
        body = json.dumps(times).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
