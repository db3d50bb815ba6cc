#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The flame graph page in a headless Chromium; its pictures stay in $REPORT_OUTPUT. Environment: SWPROFCTL."""

import json
import os
import pathlib
import sys
import time
import unittest

import browser
import profiles
from profile_case import Case

OUTPUT = pathlib.Path(os.environ.get("REPORT_OUTPUT", "."))
NASTY = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'&amp;\u2028"


def setUpModule():
    global page
    page = browser.Browser()


def tearDownModule():
    page.close()


class TestPage(Case):
    def open(self, profile):
        path = self.dir / "page.html"
        path.write_bytes(self.show(profile, "export", "--format=html"))
        page.scheme("light")
        page.resize(1400, 800)
        started = time.monotonic()
        page.open(path)
        page.frames()
        self.addCleanup(self.check_quiet)
        return time.monotonic() - started

    def check_quiet(self):
        """No error, no dialog, no request but that for the file itself (and data: of the browser's own)."""
        self.assertEqual(page.seen("Runtime.exceptionThrown"), [])
        self.assertEqual([e["entry"]["text"] for e in page.seen("Log.entryAdded")], [])
        self.assertEqual(page.seen("Page.javascriptDialogOpening"), [])
        self.assertEqual([u for e in page.seen("Network.requestWillBeSent")
                          if not (u := e["request"]["url"]).endswith("page.html") and not u.startswith("data:")], [])

    def text(self, id_):
        return page.evaluate(f"document.getElementById('{id_}').textContent")

    def find(self, signature):
        return page.evaluate(f"[...Array(tree.n).keys()].find(i => i && nameOf(i) === {json.dumps(signature)})")

    def picture(self, name):
        page.screenshot(OUTPUT / f"{name}.png")

    def test_pictures(self):
        self.open(profiles.demo())
        self.picture("light")
        page.scheme("dark")
        self.picture("dark")
        page.scheme("light")
        page.mouse("mouseMoved", 700, 260)
        self.picture("hover")
        page.mouse("mouseMoved", 5, 5)
        page.call("Emulation.setEmulatedVisionDeficiency", type="achromatopsia")
        self.picture("grey")
        page.call("Emulation.setEmulatedVisionDeficiency", type="none")
        page.evaluate("zoom(tree.parent[heaviest(heaviest(heaviest(heaviest(heaviest(0)))))])")
        page.evaluate("document.getElementById('search').value = 'rule'; search()")
        self.picture("search")
        page.evaluate("goBack(); goBack()")
        page.resize(420, 700)
        self.picture("narrow")

    def test_sums(self):
        b = profiles.demo()
        report = self.report(b)
        self.open(b)
        for mode, keys in {"wall": ["sampled_us"], "cpu": ["sampled_running_us"],
                           "blocked": ["sampled_blocked_us"]}.items():
            page.evaluate(f"document.querySelector('input[value={mode}]').click()")
            self.assertEqual(page.evaluate("tree.total[0]"), sum(report[k] for k in keys))
        page.evaluate("document.querySelector('input[value=wall]').click()")
        sums = []
        for i in range(3):
            page.evaluate(f"$('segments').value = {i}; choose()")
            sums.append(page.evaluate("tree.total[0]"))
        self.assertEqual(sum(sums), report["sampled_us"])
        self.assertEqual(sums[1], self.report(b, "2a9c77e0.41.170000")["sampled_us"])

    def test_matched_share(self):
        b = profiles.demo()
        stacks = [line.rsplit(" ", 1) for line in self.show(b, "export", "-f", "folded").decode().splitlines()]
        matched = sum(int(n) for stack, n in stacks if "libpq" in stack)
        self.open(b)
        page.evaluate("$('search').value = 'LibPQ'; search()")
        self.assertEqual(self.text("matched"), f"{100 * matched / sum(int(n) for _, n in stacks):.1f} % matched")
        page.evaluate("$('search').value = 'nothing such'; search()")
        self.assertEqual(self.text("matched"), "0.0 % matched")

    def test_names_are_text(self):
        b = profiles.Builder(host=NASTY)
        b.frame(NASTY + "g", function=NASTY, file=NASTY, line=3)
        b.segment(NASTY, [(i, i * 10000, (NASTY + "f", NASTY + "g")) for i in range(5)], endpoint=NASTY, thread=NASTY)
        b.segment("other", [(0, 0, (NASTY + "f",))])
        self.open(b)
        inner = page.evaluate("heaviest(heaviest(0))")
        page.evaluate(f"hover({{clientX: 300, clientY: 200}}); zoom({inner})")
        page.evaluate("$('segments').value = 0; choose()")
        page.frames()
        self.assertIn(NASTY + "g", self.text("details"))
        self.assertIn(NASTY + ":3", self.text("details"))
        self.assertIn(NASTY, self.text("title"))
        self.assertIn(NASTY, self.text("segments"))
        self.assertIn(NASTY, self.text("path"))
        self.assertEqual(page.evaluate("[document.images.length, document.scripts.length, window.hacked || 0]"),
                         [0, 2, 0])

    def test_keyboard(self):
        self.open(profiles.demo())
        page.key("/")
        self.assertEqual(page.evaluate("document.activeElement.id"), "search")
        for letter in "psycopg":
            page.key(letter)
        self.assertIn("matched", self.text("matched"))
        page.key("Enter", "\r")
        self.assertEqual(page.evaluate("document.activeElement.id"), "graph")
        page.key("Escape")
        self.assertEqual((self.text("matched"), page.evaluate("$('search').value")), ("", ""))
        for _ in range(4):
            page.key("ArrowDown")
        self.assertIn("pricing.py.total", self.text("details"))
        page.key("ArrowRight")
        self.assertIn("db.py.query", self.text("details"))
        page.key("ArrowLeft")
        page.key("ArrowDown")
        page.key("ArrowUp")
        page.key("Enter", "\r")
        self.assertIn("pricing.py.total", page.evaluate("nameOf(view.root)"))
        self.assertIn("total", self.text("path"))
        self.assertFalse(page.evaluate("$('reset').disabled"))
        page.key("Escape")
        self.assertEqual(page.evaluate("view.root"), 0)
        page.evaluate("document.activeElement.blur()")
        reached = []
        for _ in range(7):
            page.key("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
        self.assertEqual([i for i in ("mode", "segments", "search", "graph") if i not in reached], [])

    def test_pointer(self):
        self.open(profiles.demo())
        x, y = page.evaluate("(() => { const b = canvas.getBoundingClientRect();"
                             " return [b.left + 40, b.top + 3 * ROW + 5]; })()")
        page.mouse("mouseMoved", x, y)
        self.assertIn("pricing.py.total", self.text("tip"))
        self.assertIn("/srv/shop/pricing.py:17", self.text("details"))
        page.mouse("mousePressed", x, y)
        page.mouse("mouseReleased", x, y)
        self.assertIn("pricing.py.total", page.evaluate("nameOf(view.root)"))
        page.evaluate("$('path').querySelector('button').click()")
        self.assertEqual(page.evaluate("view.root"), 0)

    def test_empty(self):
        self.open(profiles.Builder())
        self.assertEqual(self.text("empty"), "There are no samples.")

    def test_large(self):
        seconds = self.open(profiles.large(n_samples=200000, n_segments=5))
        self.assertGreater(page.evaluate("tree.n"), 100000)
        own = page.evaluate("performance.now()")
        print(f"100000 stacks: open and drawn in {seconds:.2f} s ({own:.0f} ms by the page's clock)", file=sys.stderr)
        self.picture("large")
        zooms = page.evaluate("""(async () => {
            const times = [];
            let place = 0;
            for (let i = 0; i < 12; i++) {
              place = i % 6 === 5 ? 0 : heaviest(place);
              const started = performance.now();
              zoom(place);
              draw();
              times.push(performance.now() - started);
              await new Promise(requestAnimationFrame);
            }
            const started = performance.now();
            $('search').value = 'function_12';
            search();
            draw();
            times.push(performance.now() - started);
            return times;
        })()""")
        print(f"zooms: at most {max(zooms[:-1]):.0f} ms; search: {zooms[-1]:.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    if not browser.PROGRAM:
        print("chromium is not installed", file=sys.stderr)
        sys.exit(77)
    unittest.main(verbosity=2)
