# SPDX-License-Identifier: Apache-2.0
"""All that the peer knows: what it was sent, its tasks, and its faults to come."""

import base64
import json
import threading
import time
import uuid

from . import analysis, segments

KINDS = ("tasks", "snapshots", "finishes", "logs", "keepalives", "properties", "segments",
         "polls", "calls")


def now_ms():
    return time.time_ns() // 1_000_000


def _encode(name):
    return base64.b64encode(name.encode()).decode()


def service_id(name):
    """".1" says that the service is a real one, not guessed from traffic."""
    return _encode(name) + ".1"


def instance_id(service, instance):
    return service_id(service) + "_" + _encode(instance)


class Store:
    """Each kind is a list in order of arrival. Any thread may call."""

    def __init__(self, cache_delay_ms=0, journal=None):
        """`journal`: a file that gets each snapshot as a line of JSON, at once."""
        self._cache_delay_ms = cache_delay_ms
        self._journal = journal
        self._lock = threading.RLock()
        self.reset()

    def reset(self):
        """Forget everything, tasks and faults included."""
        with self._lock:
            self._data = {kind: [] for kind in KINDS}
            self._faults = []
            self._n_calls = 0

    def recorded(self):
        """Return: everything as JSON."""
        with self._lock:
            return json.dumps(self._data)

    def _list(self, kind):
        with self._lock:
            return list(self._data[kind])

    def add(self, kind, **values):
        with self._lock:
            self._data[kind].append({**values, "arrival_ms": now_ms()})
            if self._journal and kind == "snapshots":
                print(json.dumps(values), file=self._journal, flush=True)
            return self._data[kind][-1]

    # calls and faults

    def begin_call(self, method, authentication):
        """A gRPC call: `messages` received so far; `closed` once the client has
        closed its side; `status` once it has ended."""
        with self._lock:
            self._n_calls += 1
            return self.add("calls", id=self._n_calls, method=method, messages=0, closed=False,
                            status=None, authentication=authentication)

    def update_call(self, call, **values):
        with self._lock:
            call.update(values)

    def add_fault(self, fault):
        """`count` 0 takes the method's faults back, -1 means for ever."""
        with self._lock:
            if fault["count"] == 0:
                self._faults = [f for f in self._faults
                                if fault["method"] not in ("*", f["method"])]
            else:
                self._faults.append(dict(fault))

    def take_fault(self, method):
        with self._lock:
            for fault in self._faults:
                if fault["method"] in ("*", method):
                    fault["count"] -= fault["count"] > 0
                    if fault["count"] == 0:
                        self._faults.remove(fault)
                    return dict(fault)
            return None

    # tasks

    def add_task(self, service, *, command="ProfileTaskQuery", args=None, **values):
        """`args` replaces the command's arguments as a whole."""
        created = now_ms()
        task = {
            "serviceId": service,
            "endpointName": "",
            "startTime": created,
            "duration": 1,
            "minDurationThreshold": 0,
            "dumpPeriod": 10,
            "maxSamplingCount": 5,
            "createTime": created,
            **values,
            "command": command,
            "args": args,
        }
        task.setdefault("id", f"{task['createTime']}_{service}")
        task["serviceName"] = base64.b64decode(service.rpartition(".")[0]).decode()
        return self.add("tasks", **task)

    def tasks(self, service=None, endpoint=None):
        return [t for t in self._list("tasks")
                if service in (None, t["serviceId"]) and endpoint in (None, t["endpointName"])]

    def take_commands(self, service, instance, last_command_time):
        """The tasks of a service that are newer, as (command, arguments).

        As in an OAP, the instance is not looked up, and every answer says that
        the instance was notified. Unlike in an OAP, tasks do not drop out of
        sight 5 minutes before or after their start.
        """
        self.add("polls", service=service, instance=instance, lastCommandTime=last_command_time,
                 time=now_ms())
        result = []
        for task in self.tasks(service_id(service)):
            if task["arrival_ms"] + self._cache_delay_ms > now_ms():
                continue
            if task["createTime"] > last_command_time:
                self._add_log(task["id"], service, instance, "NOTIFIED")
                result.append((task["command"], self._arguments(task)))
        return result

    @staticmethod
    def _arguments(task):
        if task["args"] is not None:
            return {k: str(v) for k, v in task["args"].items()}
        return {
            "SerialNumber": str(uuid.uuid4()),
            "TaskId": task["id"],
            "EndpointName": task["endpointName"],
            "Duration": str(task["duration"]),
            "MinDurationThreshold": str(task["minDurationThreshold"]),
            "DumpPeriod": str(task["dumpPeriod"]),
            "MaxSamplingCount": str(task["maxSamplingCount"]),
            "StartTime": str(task["startTime"]),
            "CreateTime": str(task["createTime"]),
        }

    def finish(self, service, instance, task_id):
        """An OAP ignores the end of a task that it does not know."""
        self.add("finishes", service=service, instance=instance, taskId=task_id)
        if any(t["id"] == task_id for t in self.tasks()):
            self._add_log(task_id, service, instance, "EXECUTION_FINISHED")

    def _add_log(self, task_id, service, instance, operation):
        at = now_ms()
        instance_key = instance_id(service, instance)
        number = {"NOTIFIED": 1, "EXECUTION_FINISHED": 2}[operation]
        self.add("logs", id=f"profile_task_log_{task_id}_{instance_key}_{number}_{at}",
                 taskId=task_id, instanceId=instance_key, instanceName=instance, operationType=operation,
                 operationTime=at)

    def logs(self, task_id):
        """The newest first."""
        return [log for log in self._list("logs") if log["taskId"] == task_id][::-1]

    # reading back

    def profiled_segments(self, task_id):
        return segments.profiled_segments(
            task_id, self._list("snapshots"), self._list("segments"),
            lambda s: instance_id(s["service"], s["serviceInstance"]))

    def analyze(self, queries):
        return analysis.analyze(self._list("snapshots"), queries)
