# SPDX-License-Identifier: Apache-2.0
"""The few GraphQL operations of an OAP that the tests use.

The operation is told by its first field. Its arguments must be variables, and
the selection of sub-fields is ignored: the answer always has all of them.
"""

import re

from .store import now_ms

VERSION = "10.1.0-peer"
MINUTE_MS = 60_000

_FIELD = re.compile(r"{\s*(?:(?P<alias>\w+)\s*:\s*)?(?P<name>\w+)\s*(?:\((?P<args>[^)]*)\))?")
_ARGUMENT = re.compile(r"(\w+)\s*:\s*(\$?)(\w*)")


class GraphQLError(Exception):
    """What the client did wrong."""


def _refusal(store, request):
    """An OAP's own checks of a new task. Return: why not, or None."""
    if not request["endpointName"]:
        return "endpoint name cannot be empty"
    if not 1 <= request["duration"] <= 15:
        return "monitor duration must be 1 to 15 minutes"
    if request["minDurationThreshold"] < 0:
        return "min duration threshold must be 0 or more"
    if request["dumpPeriod"] < 10:
        return "dump period must be 10 milliseconds or more"
    if not 0 < request["maxSamplingCount"] < 10:
        return "max sampling count must be 1 to 9"

    # One task per service at a time; only the latest of those that start before
    # this one's end, in whole minutes, is looked at.
    start = request["startTime"]
    last_minute = (start + request["duration"] * MINUTE_MS) // MINUTE_MS
    others = [t for t in store.tasks(request["serviceId"])
              if t["startTime"] // MINUTE_MS <= last_minute]
    if others:
        latest = max(others, key=lambda t: t["startTime"])
        if latest["startTime"] + latest["duration"] * MINUTE_MS >= start:
            return "current service already has monitor task execute at this time"
    return None


def _create_task(store, creationRequest):
    request = {"startTime": None, **creationRequest}
    for name in ("serviceId", "endpointName", "duration", "minDurationThreshold", "dumpPeriod",
                 "maxSamplingCount"):
        if request.get(name) is None:
            raise GraphQLError(f"creationRequest.{name} is missing")
    if not (request["startTime"] or 0) > 0:
        request["startTime"] = now_ms()
    refusal = _refusal(store, request)
    if refusal:
        return {"errorReason": refusal, "id": None}
    request["endpointName"] = request["endpointName"].strip()
    return {"errorReason": None, "id": store.add_task(request.pop("serviceId"), **request)["id"]}


def _task_list(store, serviceId=None, endpointName=None):
    return [{**task, "logs": store.logs(task["id"])}
            for task in store.tasks(serviceId, endpointName)]


_OPERATIONS = {
    "version": lambda store: VERSION,
    "createProfileTask": _create_task,
    "getProfileTaskList": _task_list,
    "getProfileTaskLogs": lambda store, taskID: store.logs(taskID),
    "getProfileTaskSegments": lambda store, taskID: store.profiled_segments(taskID),
    "getSegmentsProfileAnalyze": lambda store, queries: store.analyze(queries),
}


def _run(store, query, variables):
    field = _FIELD.search(re.sub(r"#.*", "", query))
    if not field or field["name"] not in _OPERATIONS:
        raise GraphQLError("no operation that this server knows")
    arguments = {}
    for name, dollar, variable in _ARGUMENT.findall(field["args"] or ""):
        if not dollar:
            raise GraphQLError(f"argument {name} must be a variable")
        if variables.get(variable) is not None:
            arguments[name] = variables[variable]
    try:
        value = _OPERATIONS[field["name"]](store, **arguments)
    except (TypeError, KeyError, ValueError) as e:
        raise GraphQLError(f"bad arguments of {field['name']}: {e!r}") from e
    return {field["alias"] or field["name"]: value}


def answer(store, request):
    """Return: the answer to a request, {"data": …} or {"errors": …}."""
    try:
        return {"data": _run(store, request.get("query") or "", request.get("variables") or {})}
    except GraphQLError as e:
        return {"errors": [{"message": str(e)}]}
