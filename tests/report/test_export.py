#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `swprofctl export` writes is what other programs read, with the same sums. Environment: SWPROFCTL."""

import gzip
import json
import os
import pathlib
import random
import re
import shutil
import stat
import subprocess
import unittest

import profiles
from profile_case import Case, run

HERE = pathlib.Path(__file__).parent
FLAMEGRAPH = "/usr/share/perl5/Devel/NYTProf/flamegraph.pl"     # Debian's
NASTY = "a;b <img src=x onerror=alert(1)> \"q\" \\ \x1b[31m\n\u2028\u009b2J\x7f end"


def folded(text):
    """{stack: µs}"""
    found = {}
    for line in text.decode().split("\n")[:-1]:
        stack, n = line.rsplit(" ", 1)
        found[tuple(stack.split(";"))] = int(n)
    return found


def expected(samples, period_us=10000):
    """{stack: µs}: each sample lasts until the next one of the sequence, else for a period."""
    found, first = {}, {}
    for s in samples:
        first.setdefault(s[0], s)
    for sequence, time, stack, *_ in first.values():
        after = first.get(sequence + 1)
        weight = max(after[1] - time, 0) if after else period_us
        if stack and weight:
            found[tuple(stack)] = found.get(tuple(stack), 0) + weight
    return found


class TestExport(Case):
    def test_folded(self):
        r = random.Random(5)
        for _ in range(20):
            samples = [(i, i * 10000 + r.randrange(2000), tuple(r.choice("abc") for _ in range(r.randrange(4))))
                       for i in range(r.randrange(50)) if r.random() > 0.2]
            b = profiles.Builder()
            b.segment("s", samples)
            self.assertEqual(folded(self.show(b, "export", "--format=folded")), expected(samples))

    def test_folded_names(self):
        b = profiles.Builder()
        b.segment("s", [(0, 0, (NASTY, "x"))])
        self.assertEqual(self.show(b, "export", "-f", "folded").decode().count("\n"), 1)
        (stack, n), = folded(self.show(b, "export", "-f", "folded")).items()
        self.assertEqual((len(stack), stack[1], n), (2, "x", 10000))

    def test_flamegraph(self):
        tool = shutil.which("inferno-flamegraph") or shutil.which("flamegraph.pl") or shutil.which(FLAMEGRAPH)
        if not tool:
            self.skipTest("neither inferno nor flamegraph.pl is installed; libdevel-nytprof-perl has the latter")
        b = profiles.demo()
        text = self.show(b, "export", "--format=folded")
        svg = subprocess.run([tool], input=text, check=True, capture_output=True).stdout.decode()
        total = self.report(b)["sampled_us"]
        self.assertIn(f"{total:,}", svg)
        self.assertIn("psycopg2", svg)

    def check_speedscope(self, b):
        document = json.loads(self.show(b, "export", "--format=speedscope"))
        for p in document["profiles"]:
            self.assertEqual(len(p["samples"]), len(p["weights"]))
            self.assertEqual(sum(p["weights"]), p["endValue"] - p["startValue"])
            for stack in p["samples"]:
                self.assertLess(max(stack), len(document["shared"]["frames"]))
        return document

    def test_speedscope(self):
        b = profiles.demo()
        document = self.check_speedscope(b)
        self.assertEqual(len(document["profiles"]), 3)
        self.assertEqual(sum(p["endValue"] for p in document["profiles"]), self.report(b)["sampled_us"])
        found = {}
        for p in document["profiles"]:
            for stack, weight in zip(p["samples"], p["weights"]):
                names = tuple(document["shared"]["frames"][i]["name"] for i in stack)
                found[names] = found.get(names, 0) + weight
        self.assertEqual(found, folded(self.show(b, "export", "-f", "folded")))
        b = profiles.Builder()
        b.segment(NASTY, [(0, 0, (NASTY,)), (1, 10000, ()), (2, 20000, ("x",))])
        document = self.check_speedscope(b)
        self.assertEqual(document["shared"]["frames"][0]["name"], NASTY)

    def test_schema_of_speedscope(self):
        """Speedscope 1.25.0's own."""
        try:
            import jsonschema
        except ImportError:
            self.skipTest("python3-jsonschema is not installed")
        schema = json.loads((HERE / "speedscope/file-format-schema.json").read_text())
        jsonschema.validate(self.check_speedscope(profiles.demo()), schema)

    def test_pprof(self):
        b = profiles.demo()
        m = profiles.Pprof.FromString(gzip.decompress(self.show(b, "export", "--format=pprof")))
        names = m.string_table
        types = [(names[t.type], names[t.unit]) for t in m.sample_type]
        self.assertEqual(types, [("samples", "count")] + [(n, "nanoseconds")
                                                          for n in ("wall", "cpu", "runqueue", "blocked")])
        self.assertEqual(names[m.default_sample_type], "wall")
        report = self.report(b)
        sums = [sum(s.value[i] for s in m.sample) for i in range(5)]
        self.assertEqual(sums, [report["samples"]] + [report[f"sampled_{s}us"] * 1000
                                                      for s in ("", "running_", "runnable_", "blocked_")])
        functions = {f.id: names[f.name] for f in m.function}
        locations = {place.id: functions[place.line[0].function_id] for place in m.location}
        found = {tuple(locations[i] for i in reversed(s.location_id)): s.value[1] // 1000 for s in m.sample}
        self.assertEqual(found, folded(self.show(b, "export", "-f", "folded")))

    def test_go_tool_pprof(self):
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if not go:
            self.skipTest("go is not installed: packaging/setup programs installs it")
        b = profiles.demo()
        path = self.dir / "p.pprof"
        self.assertEqual(run("export", "-f", "pprof", "-i", self.write(b), "-o", path).returncode, 0)
        for index, key in (("wall", "sampled_us"), ("cpu", "sampled_running_us"), ("blocked", "sampled_blocked_us")):
            out = subprocess.run([go, "tool", "pprof", "-top", "-unit=us", f"-sample_index={index}", path],
                                 check=True, text=True, capture_output=True).stdout
            total = re.search(r"of (\d+)us total", out)
            self.assertIsNotNone(total, out)
            self.assertEqual(int(total[1]), self.report(b)[key])
            if index == "wall":
                self.assertIn("[poll]", out)

    def test_html(self):
        b = profiles.Builder(host=NASTY)
        b.segment("</script><!--", [(0, 0, (NASTY, "</script>"))])
        page = self.show(b, "export", "--format=html").decode()
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
        self.assertNotRegex(data, "[<>&\u2028]")
        data = json.loads(data)
        self.assertEqual((data["host"], [f[0] for f in data["frames"]]), (NASTY, [NASTY, "</script>"]))
        self.assertEqual(page.count("<script"), 2)
        self.assertNotIn("http", page.replace("http-equiv", ""))

    def test_page_has_the_same_sum(self):
        b = profiles.demo()
        page = self.show(b, "export", "--format=html").decode()
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
        sums = [sum(sum(s["times"][k::5]) for s in data["segments"]) for k in (1, 2, 3, 4)]
        report = self.report(b)
        self.assertEqual(sums, [report[f"sampled_{s}us"] for s in ("running_", "runnable_", "blocked_")] +
                         [report["samples"]])

    def test_no_format_steers_terminals(self):
        b = profiles.Builder(host=NASTY)
        b.segment(NASTY, [(0, 0, (NASTY,))], endpoint=NASTY, thread=NASTY)
        for name in ("html", "folded", "speedscope"):
            text = self.show(b, "export", "-f", name).decode()
            self.assertEqual(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), [], name)

    def test_output(self):
        path = self.write(profiles.demo())
        there = self.dir / "out"
        self.assertEqual(run("export", "-f", "folded", "-i", path, "-o", there).returncode, 0)
        self.assertEqual(there.read_bytes(), run("export", "-f", "folded", "-i", path).stdout)
        self.assertIn("No such file", self.fails(1, "export", "-f", "folded", "-i", path, "-o", self.dir / "no" / "o"))

    def test_full_disk(self):
        """What is removed then is a file, never a device: there is a second name for one here."""
        full = self.dir / "full"
        try:
            os.mknod(full, 0o600 | stat.S_IFCHR, os.stat("/dev/full").st_rdev)
            full.open("wb").close()
        except PermissionError:
            self.skipTest("no device can be made here: be root")
        path = self.write(profiles.demo())
        self.assertIn("No space left", self.fails(1, "export", "-f", "html", "-i", path, "-o", full))
        self.assertTrue(full.exists())

    def test_usage(self):
        path = self.write(profiles.demo())
        self.assertIn("needs --format", self.fails(2, "export", "-i", path))
        self.assertIn("needs --format", self.fails(2, "export", "-i", path, "--format=svg"))
        self.assertIn("no task or segment", self.fails(1, "export", "-i", path, "-f", "html", "nothing"))
        self.assertIn("not running", self.fails(3, "export", "-f", "html", f"--socket={self.dir}/none"))


if __name__ == "__main__":
    unittest.main()
