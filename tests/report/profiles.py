# SPDX-License-Identifier: Apache-2.0
"""Profiles (proto/swprof/profile.proto) made by hand or by chance."""

import pathlib
import subprocess
import tempfile

from google.protobuf import descriptor_pb2, message_factory

ROOT = pathlib.Path(__file__).resolve().parents[2] / "proto" / "swprof"
UNKNOWN, PYTHON, NATIVE, KERNEL, WAITING, ANONYMOUS = range(6)
RUNNING, RUNNABLE, BLOCKED = range(3)


def _classes():
    with tempfile.TemporaryDirectory() as out:
        path = pathlib.Path(out) / "descriptors"
        subprocess.run(["protoc", f"-I{ROOT}", f"--descriptor_set_out={path}", "profile.proto", "pprof.proto"],
                       check=True)
        return message_factory.GetMessages(descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file)


MESSAGES = _classes()
Profile = MESSAGES["swprof.profile.Profile"]
Pprof = MESSAGES["swprof.pprof.Profile"]


def kind_of(signature):
    if signature.startswith("["):
        return WAITING
    if ".py." in signature:
        return PYTHON
    if signature.startswith("kernel."):
        return KERNEL
    return NATIVE


class Builder:
    """Collects segments; a stack is a tuple of signatures, outermost first."""

    def __init__(self, tool="swprofd 0.1.0", host="shop-7"):
        self.message = Profile(format=1, tool=tool, host=host, strings=[""])
        self.strings = {"": 0}
        self.frames = {}
        self.stacks = {}
        self.last = ()
        self.tasks = {}

    def string(self, text):
        if text not in self.strings:
            self.strings[text] = len(self.message.strings)
            self.message.strings.append(text)
        return self.strings[text]

    def frame(self, signature, **more):
        if signature not in self.frames:
            self.frames[signature] = len(self.message.frames)
            texts = {key: self.string(more.pop(key)) for key in ("function", "file") if key in more}
            self.message.frames.add(signature=self.string(signature),
                                    kind=more.pop("kind", kind_of(signature)), **texts, **more)
        return self.frames[signature]

    def stack(self, stack):
        if stack not in self.stacks:
            shared = 0
            while shared < min(len(stack), len(self.last)) and stack[shared] == self.last[shared]:
                shared += 1
            self.stacks[stack] = len(self.message.stack_shared)
            self.message.stack_shared.append(shared)
            self.message.stack_added.append(len(stack) - shared)
            self.message.stack_frames.extend(self.frame(s) for s in stack[shared:])
            self.last = stack
        return self.stacks[stack]

    def task(self, name, endpoint="/cart", service="shop"):
        if name not in self.tasks:
            self.tasks[name] = len(self.message.tasks)
            self.message.tasks.add(id=name, service=service, endpoint=endpoint, period_ms=10, duration_s=300)
        return self.tasks[name]

    def segment(self, name, samples, task="t1", endpoint="/cart", period_us=10000, losses=None, **more):
        """samples: (sequence, time in us, stack, state)"""
        s = self.message.segments.add(
            segment=name, task=self.task(task), service=self.string("shop"), instance=self.string("shop@7"),
            endpoint=self.string(endpoint), thread=self.string(more.pop("thread", "worker")), pid=more.pop("pid", 41),
            tid=more.pop("tid", 42), start_wall_ms=more.pop("start_wall_ms", 1700000000000), period_us=period_us,
            duration_ns=more.pop("duration_ns", 0), **more)
        sequence, time = -1, 0
        for sample in samples:
            s.sequence.append(sample[0] - sequence - 1)
            s.time_us.append(sample[1] - time)
            s.stack.append(self.stack(tuple(sample[2])))
            s.state.append(sample[3] if len(sample) > 3 else RUNNING)
            sequence, time = sample[:2]
        for cause, n in (losses or {}).items():
            s.losses.add(cause=self.string(cause), samples=n)
        return s

    def write(self, path):
        pathlib.Path(path).write_bytes(self.message.SerializeToString())
        return path


def demo(seed=1, n_segments=3):
    """A profile that looks like one of a web service in Python with native parts."""
    import random
    r = random.Random(seed)
    b = Builder()
    base = ["/usr/lib/python3.11/threading.py.Thread._bootstrap:966", "/srv/shop/server.py.Server.serve:88",
            "/srv/shop/handlers.py.cart:41"]
    parts = [
        (5, ["/srv/shop/pricing.py.total:17", "/srv/shop/pricing.py.discount:63", "/srv/shop/rules.py.Rule.match:210",
             "_sre.cpython-311.so.sre_ucs1_match"], 0),
        (3, ["/srv/shop/pricing.py.total:17", "/srv/shop/pricing.py.tax:91"], 0),
        (7, ["/srv/shop/db.py.query:120", "/usr/lib/python3/dist-packages/psycopg2/extras.py.DictCursor.execute:236",
             "libpq.so.5.PQexec", "libpq.so.5.pqWait", "libc.so.6.poll", "[poll]"], 2),
        (2, ["/srv/shop/db.py.query:120", "/srv/shop/db.py.rows:140", "libpq.so.5.PQgetvalue"], 0),
        (3, ["/srv/shop/render.py.page:30", "/usr/lib/python3/dist-packages/jinja2/environment.py.Template.render:1291",
             "/usr/lib/python3/dist-packages/markupsafe/_speedups.c.escape_unicode:84"], 0),
        (1, ["/srv/shop/render.py.page:30", "libz.so.1.deflate", "libz.so.1.longest_match"], 0),
        (1, ["/srv/shop/log.py.write:9", "libc.so.6.write", "kernel.ksys_write", "kernel.ext4_file_write_iter",
             "[run queue]"], 1),
        (1, ["/srv/shop/cache.py.Cache.lock:55", "libc.so.6.pthread_mutex_lock", "[futex_wait]"], 2),
        (1, ["/srv/shop/plugin.py.<img src=x onerror=alert(1)>:1", "libplugin.so.std::vector<int>::push_back(int&&)"], 0),
        (1, ["[anonymous].[unknown]", "libjit.so.enter"], 0),
    ]
    for part in parts:
        for signature in part[1]:
            if ".py." in signature and ":" in signature:
                file, rest = signature.split(".py.", 1)
                function, line = rest.rsplit(":", 1)
                b.frame(signature, function=function, file=file + ".py", line=int(line))
    b.frame("[anonymous].[unknown]", kind=ANONYMOUS)
    for k in range(n_segments):
        samples, at, sequence = [], 0, 0
        while len(samples) < 220:
            _, stack, state = r.choices(parts, [p[0] for p in parts])[0]
            for _ in range(r.randint(2, 14)):
                cut = stack[:r.randint(max(1, len(stack) - 1), len(stack))]
                samples.append((sequence, at, base + cut, state))
                sequence += 1
                at += 10000
        b.segment(f"{k + 1}a9c77e0.41.170000", samples, start_wall_ms=1700000000000 + 5000 * k, duration_ns=at * 1000,
                  on_cpu_ns=at * 520, run_queue_ns=at * 20, blocked_ns=at * 460, tid=42 + k,
                  losses={"stack copy torn": 2} if k == 0 else None)
    return b


def large(n_stacks=100000, n_samples=1000000, n_segments=20, seed=3):
    """Many distinct stacks, many samples."""
    import random
    r = random.Random(seed)
    b = Builder()
    names = [f"/srv/app/module_{i % 97}.py.function_{i}:{i % 500 + 1}" if i % 3 else f"libapp.so.ns::part_{i}(int, char const*)"
             for i in range(5000)]
    stacks = [("/srv/app/main.py.main:1",)]
    seen = set(stacks)
    while len(stacks) < n_stacks:
        base = stacks[min(int(r.expovariate(1 / (len(stacks) * 0.3))), len(stacks) - 1)]
        stack = base[:40] + tuple(r.choice(names) for _ in range(r.randint(1, 4)))
        if stack not in seen:
            seen.add(stack)
            stacks.append(stack)
    stacks.sort()
    per_segment = max(n_samples // n_segments, 1)
    k = 0
    for s in range(n_segments):
        samples, at = [], 0
        for i in range(per_segment):
            if i % 3 == 0:
                k = r.randrange(len(stacks))
            if s * per_segment + i < len(stacks):
                k = s * per_segment + i
            at += r.randint(9000, 11000)
            samples.append((i, at, stacks[k], r.choice((0, 0, 1, 2))))
        b.segment(f"seg-{s}", samples, duration_ns=at * 1000, tid=100 + s)
    return b


if __name__ == "__main__":
    import sys
    {"demo": demo, "large": large}[sys.argv[1]]().write(sys.argv[2])
