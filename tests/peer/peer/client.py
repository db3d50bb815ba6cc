# SPDX-License-Identifier: Apache-2.0
"""A client of an OAP's HTTP side, for a real OAP and for the peer alike."""

import base64
import json
import time
import urllib.error
import urllib.request

CREATE = """mutation ($creationRequest: ProfileTaskCreationRequest!) {
  createProfileTask(creationRequest: $creationRequest) { errorReason id } }"""
LIST = """query ($serviceId: ID) {
  getProfileTaskList(serviceId: $serviceId) {
    id serviceId serviceName endpointName startTime duration minDurationThreshold dumpPeriod
    maxSamplingCount } }"""
LOGS = """query ($taskID: String) {
  getProfileTaskLogs(taskID: $taskID) {
    id instanceId instanceName operationType operationTime } }"""
SEGMENTS = """query ($taskID: ID!) {
  getProfileTaskSegments(taskID: $taskID) {
    traceId instanceId instanceName endpointNames duration start
    spans { spanId parentSpanId segmentId refs { traceId parentSegmentId parentSpanId type }
      serviceCode serviceInstanceName startTime endTime endpointName type peer component isError
      layer tags { key value } logs { time data { key value } } profiled } } }"""
ANALYZE = """query ($queries: [SegmentProfileAnalyzeQuery!]!) {
  getSegmentsProfileAnalyze(queries: $queries) {
    tip trees { elements {
      id parentId codeSignature duration durationChildExcluded count } } } }"""


class OapError(Exception):
    """The server could not be asked, or refused."""


def service_id(name):
    return base64.b64encode(name.encode()).decode() + ".1"


class Client:
    def __init__(self, address):
        self.address = address

    def request(self, path, value=None):
        """POST a value as JSON, or GET if there is none."""
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data,
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as e:
            raise OapError(f"{path}: {e.code} {e.read().decode(errors='replace')}") from e
        except OSError as e:
            raise OapError(f"http://{self.address}: {e}") from e

    # what every OAP has

    def graphql(self, query, variables=None):
        """Return: the value of the operation's only field."""
        reply = self.request("/graphql", {"query": query, "variables": variables or {}})
        if reply.get("errors"):
            raise OapError("; ".join(e["message"] for e in reply["errors"]))
        return next(iter(reply["data"].values()))

    def version(self):
        return self.graphql("query { version }")

    def create_task(self, service, endpoint, *, duration=1, threshold=0, period=10, count=5,
                    start=None):
        """Return: the task's id. Raise OapError if the OAP refuses it."""
        result = self.graphql(CREATE, {"creationRequest": {
            "serviceId": service_id(service),
            "endpointName": endpoint,
            "startTime": start,
            "duration": duration,
            "minDurationThreshold": threshold,
            "dumpPeriod": period,
            "maxSamplingCount": count,
        }})
        if result["errorReason"]:
            raise OapError(result["errorReason"])
        return result["id"]

    def tasks(self, service=None):
        return self.graphql(LIST, {"serviceId": service and service_id(service)})

    def logs(self, task):
        return self.graphql(LOGS, {"taskID": task})

    def segments(self, task):
        return self.graphql(SEGMENTS, {"taskID": task})

    def analyze(self, segment, start, end):
        """One segment only: with several an OAP mixes up their snapshots."""
        return self.analyze_queries([(segment, start, end)])

    def analyze_queries(self, queries):
        return self.graphql(ANALYZE, {"queries": [
            {"segmentId": segment, "timeRange": {"start": start, "end": end}}
            for segment, start, end in queries
        ]})

    # what only the peer has

    def recorded(self):
        return self.request("/recorded")

    def inject_task(self, service, **values):
        return self.request("/tasks", {"service": service, **values})["id"]

    def fail(self, method="*", **fault):
        self.request("/fail", {"method": method, **fault})

    def reset(self):
        self.request("/reset", {})


def profiled_windows(segments):
    """{segment id: (start, end, the trace it is in)} of the profiled segments."""
    windows = {}
    for trace in segments:
        for span in trace["spans"]:
            if span["profiled"]:
                start, end, _ = windows.get(span["segmentId"], (1 << 62, 0, None))
                windows[span["segmentId"]] = (min(start, span["startTime"]),
                                              max(end, span["endTime"]), trace)
    return windows


def wait_until(predicate, timeout=10, interval=0.05):
    """Return: what the predicate gives once that is true. Raise TimeoutError."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s")
        time.sleep(interval)
