# SPDX-License-Identifier: Apache-2.0
"""The smallest agent: sends by gRPC what a test wants an OAP to get."""

import grpc

from . import proto

DEADLINE_S = 30


class Agent:
    """`tls`: the authority, the key and the certificate, in PEM. `token`: what each call brings."""

    def __init__(self, address, service="svc", instance="inst", tls=None, token=None):
        self.service = service
        self.instance = instance
        self._channel = (grpc.secure_channel(address, grpc.ssl_channel_credentials(*tls)) if tls
                         else grpc.insecure_channel(address))
        self._metadata = [("authentication", token)] if token else None

    def close(self):
        self._channel.close()

    def _call(self, service, method, request, timeout=DEADLINE_S, metadata=None):
        streams = proto.SERVICES[proto.PACKAGE + service][method][1]
        make = self._channel.stream_unary if streams else self._channel.unary_unary
        return make(f"/{proto.PACKAGE}{service}/{method}",
                    request_serializer=lambda m: m.SerializeToString(),
                    response_deserializer=proto.Commands.FromString)(
                        request, timeout=timeout, metadata=metadata or self._metadata)

    def poll(self, last_command_time=-1, **options):
        """Return: the commands as (name, {key: value})."""
        query = proto.message("ProfileTaskCommandQuery")(
            service=self.service, serviceInstance=self.instance,
            lastCommandTime=last_command_time)
        reply = self._call("ProfileTask", "getProfileTaskCommands", query, **options)
        return [(c.command, {a.key: a.value for a in c.args}) for c in reply.commands]

    def send_snapshots(self, task, segment, samples, **options):
        """samples: (sequence, time in ms, stack) each."""
        snapshot = proto.message("ThreadSnapshot")
        self._call("ProfileTask", "collectSnapshot", (
            snapshot(taskId=task, traceSegmentId=segment, time=time, sequence=sequence,
                     stack={"codeSignatures": stack})
            for sequence, time, stack in samples), **options)

    def finish(self, task, **options):
        report = proto.message("ProfileTaskFinishReport")(
            service=self.service, serviceInstance=self.instance, taskId=task)
        self._call("ProfileTask", "reportTaskFinish", report, **options)

    def keep_alive(self, layer=""):
        ping = proto.message("InstancePingPkg")(
            service=self.service, serviceInstance=self.instance, layer=layer)
        self._call("ManagementService", "keepAlive", ping)

    def report_properties(self, *properties):
        report = proto.message("InstanceProperties")(
            service=self.service, serviceInstance=self.instance,
            properties=[{"key": k, "value": v} for k, v in properties])
        self._call("ManagementService", "reportInstanceProperties", report)

    def segment(self, trace, segment, start, end, operation="/x", parent=None):
        """A segment of one span; with a parent segment it goes on from there on
        another thread."""
        span = {"parentSpanId": -1, "startTime": start, "endTime": end,
                "operationName": operation, "spanType": "Entry", "spanLayer": "Http"}
        if parent:
            span["spanType"] = "Local"
            span["refs"] = [{"refType": "CrossThread", "traceId": trace,
                             "parentTraceSegmentId": parent, "parentService": self.service,
                             "parentServiceInstance": self.instance,
                             "parentEndpoint": operation}]
        return proto.message("SegmentObject")(
            traceId=trace, traceSegmentId=segment, service=self.service,
            serviceInstance=self.instance, spans=[span])

    def send_segments(self, *segments):
        self._call("TraceSegmentReportService", "collect", iter(segments))

    def send_segments_in_sync(self, *segments):
        collection = proto.message("SegmentCollection")(segments=segments)
        self._call("TraceSegmentReportService", "collectInSync", collection)
