#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The call tree of `swprofctl report` is that of the OAP's analysis. Environment: SWPROFCTL."""

import pathlib
import random
import sys
import unittest

import profiles
from profile_case import Case, run

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "peer"))
from peer import analysis  # noqa: E402  the OAP's algorithm, held against an OAP by compare-real-oap


def paths(elements, key, parent, fields):
    """{path: fields of it}"""
    found, names = {}, {}
    for e in elements:
        names[e[key]] = names.get(e[parent], ()) + (e.get("signature") or e.get("codeSignature"),)
        found[names[e[key]]] = tuple(e[f] for f in fields)
    return found


def expected(samples):
    """What an OAP makes of one segment's samples, whose times are whole milliseconds; in µs."""
    snapshots = [{"segmentId": "s", "sequence": q, "time": t // 1000, "stack": stack} for q, t, stack, *_ in samples]
    span = {"start": -10 ** 15, "end": 10 ** 15}
    trees = analysis.analyze(snapshots, [{"segmentId": "s", "timeRange": span}], limit=10 ** 9)["trees"]
    found = {}
    for tree in trees:
        found |= paths(tree["elements"], "id", "parentId", ("duration", "durationChildExcluded", "count"))
    return {path: (d * 1000, s * 1000, n) for path, (d, s, n) in found.items()}


def added(trees):
    total = {}
    for tree in trees:
        for path, values in tree.items():
            total[path] = tuple(map(sum, zip(values, total.get(path, (0, 0, 0)))))
    return total


def random_samples(r):
    """Some lost, some twice, some late, some with a clock that went backwards, some without a stack."""
    n = r.randint(0, 40)
    samples, at = [], r.randint(-5, 100) * 1000
    for sequence in range(r.choice((0, 0, 3)), n):
        at += r.choice((10, 10, 10, 10, 9, 11, 250, 0, -7)) * 1000
        stack = tuple(r.choice("abc" if depth else "xy") for depth in range(r.choice((0, 1, 2, 3, 3, 4, 6))))
        samples.append((sequence, at, stack, r.randrange(3)))
    samples = [s for s in samples if r.random() > r.choice((0, 0.1, 0.4))]
    samples += [(s[0], s[1] + 3000, ("late",), 0) for s in samples if r.random() < 0.05]
    if r.random() < 0.5:
        for _ in range(len(samples) // 4):
            i, k = r.randrange(len(samples)), r.randrange(len(samples))
            samples[i], samples[k] = samples[k], samples[i]
    return samples


class TestAnalysis(Case):
    def tree(self, profile, *selection):
        return paths(self.report(profile, *selection)["elements"], "id", "parent_id",
                     ("duration_us", "self_us", "count"))

    def of(self, *samples):
        b = profiles.Builder()
        b.segment("s", samples)
        return self.tree(b)

    def test_run(self):
        self.assertEqual(self.of((0, 0, "ab"), (1, 10000, "ab"), (2, 20000, "ac"), (3, 30000, "ac")),
                         {("a",): (30000, 10000, 4), ("a", "b"): (10000, 10000, 2), ("a", "c"): (10000, 10000, 2)})

    def test_one_sample_takes_no_time(self):
        self.assertEqual(self.of((0, 5000, "ab")), {("a",): (0, 0, 1), ("a", "b"): (0, 0, 1)})

    def test_hole_ends_a_run(self):
        ten = [(i, i * 10000, "a") for i in range(10)]
        self.assertEqual(self.of(*ten), {("a",): (90000, 90000, 10)})
        self.assertEqual(self.of(*(s for s in ten if s[0] not in (3, 7))), {("a",): (50000, 50000, 8)})

    def test_runs_of_one_place_are_added_up(self):
        self.assertEqual(self.of((0, 0, "ab"), (1, 10000, "ab"), (2, 20000, "a"), (3, 30000, "ab"), (4, 45000, "ab"))
                         [("a", "b")], (25000, 25000, 4))

    def test_order_of_arrival_means_nothing(self):
        self.assertEqual(self.of((2, 20000, "a"), (0, 0, "a"), (1, 10000, "a")), {("a",): (20000, 20000, 3)})

    def test_first_of_equal_sequences(self):
        self.assertEqual(self.of((0, 0, "a"), (1, 10000, "a"), (1, 15000, "b")), {("a",): (10000, 10000, 2)})

    def test_each_outermost_frame_has_a_tree(self):
        self.assertEqual(self.of((0, 0, "a"), (1, 10000, "b"), (2, 20000, "b")),
                         {("a",): (0, 0, 1), ("b",): (10000, 10000, 2)})

    def test_empty_stack_is_a_hole(self):
        self.assertEqual(self.of((0, 0, "a"), (1, 10000, ""), (2, 20000, "a")), {("a",): (0, 0, 2)})

    def test_recursion(self):
        self.assertEqual(self.of((0, 0, "aa"), (1, 10000, "aaa")),
                         {("a",): (10000, 0, 2), ("a", "a"): (10000, 10000, 2), ("a", "a", "a"): (0, 0, 1)})

    def test_clock_backwards(self):
        self.assertEqual(self.of((0, 10000, "a"), (1, 4000, "a")), {("a",): (-6000, -6000, 2)})

    def test_equal_signatures_of_two_frames_are_one(self):
        b = profiles.Builder()
        b.segment("s", [(0, 0, "ab"), (1, 10000, "ab")])
        twin = len(b.message.frames)
        b.message.frames.add(signature=b.message.frames[b.frame("b")].signature, line=9)
        b.message.stack_shared.append(1)
        b.message.stack_added.append(1)
        b.message.stack_frames.append(twin)
        b.message.segments[0].stack[1] = 1
        self.assertEqual(self.tree(b), {("a",): (10000, 0, 2), ("a", "b"): (10000, 10000, 2)})

    def test_segments_do_not_hide_each_other(self):
        b = profiles.Builder()
        for name in "pq":
            b.segment(name, [(i, i * 10000, "ab") for i in range(5)])
        self.assertEqual(self.tree(b), {("a",): (80000, 0, 10), ("a", "b"): (80000, 80000, 10)})

    def test_selection(self):
        b = profiles.Builder()
        b.segment("p", [(0, 0, "a")], task="t1")
        b.segment("q", [(0, 0, "b")], task="t2")
        b.segment("r", [(0, 0, "b")], task="t2")
        self.assertEqual(self.tree(b, "t1"), {("a",): (0, 0, 1)})
        self.assertEqual(self.tree(b, "t2"), {("b",): (0, 0, 2)})
        self.assertEqual(self.tree(b, "r"), {("b",): (0, 0, 1)})
        path = self.write(b)
        self.assertIn("no task or segment 't3'", self.fails(1, "report", "-i", path, "t3"))

    def test_states(self):
        b = profiles.Builder()
        b.segment("s", [(0, 0, "ab", 0), (1, 10000, "ab", 2), (2, 30000, "a", 1), (4, 70000, "", 1)])
        report = self.report(b)
        self.assertEqual([(e["running"], e["runnable"], e["blocked"]) for e in report["elements"]],
                         [(1, 1, 1), (1, 0, 1)])
        # Until the next sample; and before a hole, for a period.
        self.assertEqual([report[f"sampled_{s}us"] for s in ("running_", "runnable_", "blocked_", "")],
                         [10000, 10000, 20000, 40000])
        self.assertEqual(report["samples"], 4)

    def test_like_an_oap(self):
        seed = random.SystemRandom().randrange(1 << 32)
        r = random.Random(seed)
        for i in range(150):
            b = profiles.Builder()
            wanted = []
            for k in range(r.choice((1, 1, 2, 5))):
                samples = random_samples(r)
                b.segment(f"s{k}", samples)
                wanted.append(expected(samples))
            with self.subTest(seed=seed, i=i):
                self.assertEqual(self.tree(b), added(wanted))

    def test_order_of_siblings(self):
        elements = self.report(profiles.demo())["elements"]
        last = {}
        for e in elements:
            self.assertGreaterEqual(last.get(e["parent_id"], e["duration_us"]), e["duration_us"])
            last[e["parent_id"]] = e["duration_us"]


class TestDamaged(Case):
    """Nothing of a profile is believed."""

    def damaged(self, change):
        b = profiles.Builder()
        b.segment("s", [(0, 0, "ab"), (1, 10000, "ac")], losses={"torn": 1})
        change(b.message)
        return self.fails(1, "report", "-i", self.write(b))

    def test_contradictions(self):
        def put(path, value):
            def change(m):
                *way, last = path
                for step in way:
                    m = m[step] if isinstance(step, int) else getattr(m, step)
                if isinstance(last, int):
                    m[last] = value
                else:
                    setattr(m, last, value)
            return change
        for path, value in [(("strings", 0), "x"), (("frames", 0, "signature"), 99), (("frames", 0, "function"), 99),
                            (("frames", 1, "file"), 99), (("stack_shared", 0), 1), (("stack_shared", 1), 3),
                            (("stack_added", 1), 7), (("stack_added", 1), 0xffffffff), (("stack_frames", 0), 50),
                            (("segments", 0, "task"), 1), (("segments", 0, "service"), 99),
                            (("segments", 0, "instance"), 99), (("segments", 0, "endpoint"), 99),
                            (("segments", 0, "thread"), 99), (("segments", 0, "period_us"), 0),
                            (("segments", 0, "losses", 0, "cause"), 99), (("segments", 0, "sequence", 0), -1),
                            (("segments", 0, "sequence", 1), 0x7fffffff), (("segments", 0, "stack", 0), 2),
                            (("segments", 0, "state", 1), 3), (("segments", 0, "state", 1), -1),
                            (("segments", 0, "time_us", 1), 1 << 39), (("segments", 0, "time_us", 1), -(1 << 63))]:
            with self.subTest(path=path, value=value):
                self.assertIn("no profile, or a damaged one", self.damaged(put(path, value)))

    def test_lists_of_different_length(self):
        for name in ("sequence", "time_us", "stack", "state"):
            with self.subTest(name=name):
                self.assertIn("damaged", self.damaged(lambda m: getattr(m.segments[0], name).append(0)))
        self.assertIn("damaged", self.damaged(lambda m: m.stack_shared.append(0)))
        self.assertIn("damaged", self.damaged(lambda m: m.ClearField("strings")))

    def test_other_format(self):
        self.assertIn("another format", self.damaged(lambda m: setattr(m, "format", 2)))

    def test_deep(self):
        b = profiles.Builder()
        b.segment("s", [(0, 0, "ab" * 2048)])
        self.assertEqual(len(self.report(b)["elements"]), 4096)
        b.segment("t", [(0, 0, "ab" * 2048 + "a")])
        self.assertIn("damaged", self.fails(1, "report", "-i", self.write(b)))

    def test_no_profile(self):
        whole = profiles.demo().message.SerializeToString()
        for bytes_ in (b"", b"hello, world\n", whole[:-3], b"\xff" * 100):
            self.fails(1, "report", "-i", self.write(bytes_))
        self.assertIn("No such file", self.fails(1, "report", "-i", self.dir / "none"))
        self.assertIn("directory", self.fails(1, "report", "-i", self.dir).lower())

    def test_cut_anywhere(self):
        whole = profiles.demo(n_segments=1).message.SerializeToString()
        for n in range(0, len(whole), 97):
            self.assertIn(run("export", "-f", "folded", "-i", self.write(whole[:n])).returncode, (0, 1))

    def test_empty(self):
        b = profiles.Builder()
        self.assertEqual(self.report(b)["elements"], [])
        for verb in ("report", "segments"):
            self.show(b, verb)
        for name in ("html", "folded", "speedscope", "pprof"):
            self.show(b, "export", "-f", name)


if __name__ == "__main__":
    unittest.main()
