# SPDX-License-Identifier: Apache-2.0
"""The SkyWalking agent's plug-in with the real agent, in each Python that is here; and with agents that it does not
know."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

import venvs
from venvs import BUILDER, INTERPRETERS, SOURCE, run

UNIT = SOURCE / "tests/unit/python/test_skywalking.py"


class Versions(unittest.TestCase):
    def check(self, version):
        venv = venvs.with_agent(version)
        env = dict(venv.env, PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=str(UNIT.parent))
        self.assertIn("\nOK\n", run(venv.python, UNIT, env=env))


def add(version):
    setattr(Versions, f"test_{version[0]}_{version[1]:02}", lambda self: self.check(version))


for found in INTERPRETERS:
    add(found)


class Others(unittest.TestCase):
    def start(self, venv, code="agent.start()", **more):
        """Return: (exit code, what was printed) by a program with an agent."""
        # It does not wait for threads of an agent, which may have the interpreter abort at its end.
        program = (f"import os; from skywalking import agent, config; {code}; "
                   "print('the program runs', config.agent_profile_active, flush=True); os._exit(0)")
        env = {**venv.env, "SWPROF": "1", **more}
        done = subprocess.run([venv.python, "-c", program], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=120, check=False)
        return done.returncode, done.stdout

    def test_1_3_0(self):
        try:
            venv = venvs.make_with_package("agent-1.3.0", BUILDER, ["apache-skywalking==1.3.0"])
        except AssertionError as e:
            self.skipTest(str(e))
        code, printed = self.start(venv)
        self.assertEqual(code, 1)
        self.assertTrue(printed.startswith(
            "swprof: apache-skywalking 1.3.0 cannot start, it lacks skywalking.protocol; 1.2.0 can\n"), printed)

    def fake(self, **files):
        """An agent of these files."""
        venv = venvs.make_with_package("package", BUILDER)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        package = pathlib.Path(folder.name, "skywalking")
        package.mkdir()
        for name, text in {"__init__": "", "config": "agent_profile_active = True\n", **files}.items():
            path = package / f"{name.replace('.', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return self.start(venv, PYTHONPATH=folder.name)

    AGENT = "class A:\n    def start(self): print('started')\nagent = A()\nstart = agent.start\n"

    def test_without_spans(self):
        code, printed = self.fake(agent=self.AGENT)
        self.assertEqual(code, 0)
        self.assertRegex(printed, r"^swprof: apache-skywalking of unknown version is not known here \(.*\): "
                                  r"its segments are not profiled by swprofd\nstarted\nthe program runs True\n$")

    def test_with_other_spans(self):
        code, printed = self.fake(agent=self.AGENT, **{
            "__init__": "class Kind: Entry = 1\n", "trace.__init__": "",
            "trace.context": "class SpanContext:\n    def start(self): pass\n    stop = continued = start\n"
                             "class NoopContext(SpanContext): pass\n",
            "trace.span": "class EntrySpan: pass\n"})
        self.assertEqual(code, 0)
        self.assertRegex(printed, "^swprof: .* is not known here .*\nstarted\nthe program runs True\n$")

    def test_without_a_start(self):
        code, printed = self.fake(agent="def start(): print('started')\n")
        self.assertEqual(code, 0)
        self.assertRegex(printed, "^swprof: .* is not known here .*\nstarted\nthe program runs True\n$")

    def test_agent_without_its_package(self):
        """No agent at all."""
        venv = venvs.make_with_package("package", BUILDER)
        code, printed = self.start(venv)
        self.assertEqual(code, 1)
        self.assertIn("No module named 'skywalking'", printed)

    def test_imported_too_late(self):
        """It works, but for the tasks that the agent's profiler goes on to ask for."""
        venv = venvs.with_agent(BUILDER)
        code, printed = self.start(
            venv, "agent.start(); import swprof.skywalking; swprof.skywalking.install()", SWPROF="0",
            SW_AGENT_LOGGING_LEVEL="CRITICAL", SW_AGENT_COLLECTOR_BACKEND_SERVICES="127.0.0.1:9")
        self.assertEqual(code, 0)
        self.assertIn("swprof: the agent was started before", printed)
        self.assertIn("the program runs False", printed)


if __name__ == "__main__":
    print("interpreters:", ", ".join(filter(None, INTERPRETERS.values())), file=sys.stderr)
    unittest.main(verbosity=2)
