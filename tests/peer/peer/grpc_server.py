# SPDX-License-Identifier: Apache-2.0
"""The gRPC side of an OAP: profiling, registration, trace segments."""

import concurrent.futures
import functools
import threading

import grpc

from . import proto

MAX_MESSAGE_BYTES = 50 * 1024 * 1024   # an OAP's default
MAX_CALLS = 200                        # at once; each one takes a thread


class _Handlers:
    """One method for each message that may come: (call, message) -> commands."""

    def __init__(self, store):
        self._store = store

    def getProfileTaskCommands(self, _call, query):
        return self._store.take_commands(query.service, query.serviceInstance,
                                         query.lastCommandTime)

    def collectSnapshot(self, call, snapshot):
        self._store.add("snapshots", taskId=snapshot.taskId, segmentId=snapshot.traceSegmentId,
                        time=snapshot.time, sequence=snapshot.sequence,
                        stack=list(snapshot.stack.codeSignatures), stream=call["id"])

    def reportTaskFinish(self, _call, report):
        self._store.finish(report.service, report.serviceInstance, report.taskId)

    def keepAlive(self, _call, ping):
        self._store.add("keepalives", service=ping.service, instance=ping.serviceInstance,
                        layer=ping.layer)

    def reportInstanceProperties(self, _call, report):
        self._store.add("properties", service=report.service, instance=report.serviceInstance,
                        properties=[[p.key, p.value] for p in report.properties],
                        layer=report.layer)

    def collect(self, _call, segment):
        self._store.add("segments", **proto.plain(segment))

    def collectInSync(self, call, collection):
        for segment in collection.segments:
            self.collect(call, segment)


def _commands(commands):
    return proto.Commands(commands=[
        {"command": name, "args": [{"key": k, "value": v} for k, v in args.items()]}
        for name, args in commands or ()
    ])


class _ClientGone(grpc.RpcError):
    """Also what reading the requests of such a call raises, by its base."""


class _Call:
    """A call in progress: keeps its record and plays the fault meant for it."""

    def __init__(self, store, method, context):
        metadata = dict(context.invocation_metadata())
        self.record = store.begin_call(method, metadata.get("authentication"))
        self._store = store
        self._context = context
        self._fault = store.take_fault(method)
        self._gone = threading.Event()
        context.add_callback(self._end)

    def _end(self):
        self._gone.set()
        if self.record["status"] is None:
            self._store.update_call(self.record, status="CANCELLED")
        elif self.record["status"] == "OK" and self._was_cancelled():
            # The iterator of a cancelled call's requests may end as if the client had closed
            # its side: grpc learns of the end of the messages first, of the reason after that.
            self._store.update_call(self.record, closed=False, status="CANCELLED")

    def _was_cancelled(self):
        """Nothing public tells once the handler has returned."""
        return self._context._state.client == "cancelled"

    def received(self):
        self._store.update_call(self.record, messages=self.record["messages"] + 1)

    def closed(self):
        self._store.update_call(self.record, closed=True)

    def succeeded(self):
        self._store.update_call(self.record, status="OK")

    def fail(self, *, closing=False):
        """Play the fault if it is due: after its number of messages, or at the
        latest when the client has closed its side."""
        fault = self._fault
        if not fault or not closing and self.record["messages"] < fault["after_messages"]:
            return
        self._fault = None
        if self._gone.wait(None if fault["hang"] else fault["delay_ms"] / 1000):
            raise _ClientGone
        if fault["status"]:
            self._store.update_call(self.record, status=fault["status"])
            self._context.abort(grpc.StatusCode[fault["status"]], "asked for by the test")


def _unary(store, method, handle, request, context):
    call = _Call(store, method, context)
    call.received()
    call.closed()
    try:
        call.fail(closing=True)
    except grpc.RpcError:
        return proto.Commands()
    reply = _commands(handle(call.record, request))
    call.succeeded()
    return reply


def _stream(store, method, handle, requests, context):
    call = _Call(store, method, context)
    try:
        call.fail()
        for request in requests:
            call.received()
            handle(call.record, request)
            call.fail()
        call.closed()
        call.fail(closing=True)
    except grpc.RpcError:
        return proto.Commands()
    call.succeeded()
    return proto.Commands()


def _service(store, handlers, name, methods):
    rpcs = {}
    for method, (request, streams) in methods.items():
        make = (grpc.stream_unary_rpc_method_handler if streams
                else grpc.unary_unary_rpc_method_handler)
        behavior = functools.partial(_stream if streams else _unary, store, method,
                                     getattr(handlers, method))
        rpcs[method] = make(behavior, request.FromString, proto.Commands.SerializeToString)
    return grpc.method_handlers_generic_handler(name, rpcs)


class _Authentication(grpc.ServerInterceptor):
    """As an OAP: every call without the token ends before it begins."""

    def __init__(self, token):
        self._token = token

        def refuse(_request, context):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "Authentication failed")
        self._refuse = grpc.unary_unary_rpc_method_handler(refuse)
        self._refuse_stream = grpc.stream_unary_rpc_method_handler(refuse)

    def intercept_service(self, continuation, details):
        if dict(details.invocation_metadata).get("authentication") == self._token:
            return continuation(details)
        handler = continuation(details)
        return self._refuse_stream if handler and handler.request_streaming else self._refuse


def _credentials(tls):
    """`tls`: files of the certificate, its key, and, to ask clients for theirs, their authority."""
    certificate, key, ca = tls
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())],
                                       ca and ca.read_bytes(), ca is not None)


def start(store, port, *, tls=None, token=None):
    """Listen on 127.0.0.1. Return: the server and its port."""
    pool = concurrent.futures.ThreadPoolExecutor(MAX_CALLS)
    server = grpc.server(pool, interceptors=[_Authentication(token)] if token else [], options=[
        ("grpc.so_reuseport", 0),   # a port in use is an error
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ])
    handlers = _Handlers(store)
    server.add_generic_rpc_handlers([
        _service(store, handlers, name, methods) for name, methods in proto.SERVICES.items()
    ])
    address = f"127.0.0.1:{port}"
    if tls:
        port = server.add_secure_port(address, _credentials(tls))
    else:
        port = server.add_insecure_port(address)
    if port == 0:
        raise OSError("cannot listen for gRPC")
    server.start()
    return server, port
