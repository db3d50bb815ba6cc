# SPDX-License-Identifier: Apache-2.0
"""Which reported segments a task has profiled, the way an OAP lists them."""


def _spans(segment, profiled):
    return [{
        "spanId": span["spanId"],
        "parentSpanId": span["parentSpanId"],
        "segmentId": segment["traceSegmentId"],
        "refs": [{
            "traceId": ref["traceId"],
            "parentSegmentId": ref["parentTraceSegmentId"],
            "parentSpanId": ref["parentSpanId"],
            "type": "CROSS_THREAD",
        } for ref in span["refs"] if ref["refType"] == "CrossThread"],
        "serviceCode": segment["service"],
        "serviceInstanceName": segment["serviceInstance"],
        "startTime": span["startTime"],
        "endTime": span["endTime"],
        "endpointName": span["operationName"],
        "type": span["spanType"],
        "peer": span["peer"],
        "component": "N/A",   # of component 0; the list of components is not here
        "isError": span["isError"],
        "layer": span["spanLayer"],
        "tags": span["tags"],
        "logs": [{"time": log["time"], "data": log["data"]} for log in span["logs"]],
        "profiled": profiled,
    } for span in segment["spans"]]


def _entry(segment, instance_id):
    start = min(s["startTime"] for s in segment["spans"])
    end = max(s["endTime"] for s in segment["spans"])
    return {
        "traceId": segment["traceId"],
        "instanceId": instance_id,
        "instanceName": segment["serviceInstance"],
        "endpointNames": [min(segment["spans"], key=lambda s: s["spanId"])["operationName"]],
        "duration": end - start,
        "start": str(start),
        "spans": [],
    }


def _head(segment, family):
    """The segment of the same process that this one continues, or itself."""
    for span in segment["spans"]:
        for ref in span["refs"][:1]:
            parent = family.get(ref["parentTraceSegmentId"])
            if ref["refType"] == "CrossThread" and parent:
                return _head(parent, family)
    return segment


def profiled_segments(task_id, snapshots, segments, instance_id):
    """Answer getProfileTaskSegments.

    A segment counts as profiled if snapshot 0 of it was stored and the segment
    itself was reported. Segments of the same trace and instance come along;
    those that continue another one on a further thread are folded into it.
    """
    profiled = {s["segmentId"] for s in snapshots if s["taskId"] == task_id and s["sequence"] == 0}
    families = {}
    for segment in segments:
        if segment["spans"]:
            key = segment["traceId"], instance_id(segment)
            families.setdefault(key, {})[segment["traceSegmentId"]] = segment

    result = []
    for (_, instance), family in families.items():
        entries = {}
        for name, segment in family.items():
            head = _head(segment, family)
            entry = entries.setdefault(head["traceSegmentId"], _entry(head, instance))
            entry["spans"] += _spans(segment, name in profiled)
        result += [e for e in entries.values() if any(s["profiled"] for s in e["spans"])]
    return result
