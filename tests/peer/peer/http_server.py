# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: GraphQL as an OAP has it, and the controls of the tests.

    POST /graphql   see graphql.py
    GET  /recorded  all that came, by kind, in order
    POST /tasks     a task without any check: {"service": name, and any of id,
                    endpointName, startTime, duration, minDurationThreshold,
                    dumpPeriod, maxSamplingCount, createTime, command,
                    args: {key: value}}
    POST /fail      how coming calls of a method are to fail, see FAULT
    POST /reset     forget everything
    POST /stop      end the process
"""

import http.server
import json
import threading

import grpc

from . import graphql, proto
from .store import service_id

# A fault: after `after_messages` of a call, wait `delay_ms`, hang until the
# client gives up, and end with `status` (none: go on as if nothing had been).
FAULT = {
    "method": "*",
    "status": None,
    "after_messages": 0,
    "count": 1,
    "delay_ms": 0,
    "hang": False,
}
_METHODS = {"*"} | {name for methods in proto.SERVICES.values() for name in methods}


def _fail(store, request):
    fault = {**FAULT, **request}
    if fault.keys() - FAULT.keys():
        raise ValueError(f"unknown: {', '.join(fault.keys() - FAULT.keys())}")
    if fault["method"] not in _METHODS:
        raise ValueError(f"no method {fault['method']}")
    if fault["status"] and fault["status"] not in grpc.StatusCode.__members__:
        raise ValueError(f"no status {fault['status']}")
    store.add_fault(fault)
    return {}


def _inject(store, request):
    service = service_id(request.pop("service"))
    return {"id": store.add_task(service, **request)["id"]}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer({"/recorded": self.server.store.recorded})

    def do_POST(self):
        store = self.server.store
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            request = json.loads(body or b"{}")
        except ValueError as e:
            self._send(400, {"error": str(e)})
            return
        self._answer({
            "/graphql": lambda: graphql.answer(store, request),
            "/tasks": lambda: _inject(store, request),
            "/fail": lambda: _fail(store, request),
            "/reset": lambda: store.reset() or {},
            "/stop": lambda: self.server.stop() or {},
        })

    def _answer(self, routes):
        if self.path not in routes:
            self._send(404, {"error": f"no {self.path}"})
            return
        try:
            self._send(200, routes[self.path]())
        except (KeyError, TypeError, ValueError) as e:
            self._send(400, {"error": repr(e)})

    def _send(self, status, value):
        body = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        """Requests are no news."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def start(store, port, stop):
    """Listen on 127.0.0.1 and call stop() when asked to. Return: the port."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.store = store
    server.stop = stop
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]
