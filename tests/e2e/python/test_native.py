# SPDX-License-Identifier: Apache-2.0
"""C functions that Python calls, among its own: of a library from PyPI, and of the system's."""

import re
import unittest

import venvs
from agent_test import PERIOD_MS, AgentTest


class Native(AgentTest):
    daemon_config = "python: {stacks: mixed}"

    def setUp(self):
        self.venv = venvs.make("numpy", venvs.MIDDLE, ["numpy"])
        super().setUp()

    def test(self):
        self.peer.create_task("native", "/native", period=PERIOD_MS, count=5)
        env = self.environment(self.venv, PYTHONPATH=str(venvs.PACKAGE / "src"), OPENBLAS_NUM_THREADS="1")
        program = self.begin([self.venv.python, "native.py"], env)
        stacks = [s["stack"] for s in self.settled_snapshots(self.line(program).strip())]
        self.assertEqual(program.wait(30), 0)
        for function, called in (("multiply", r"_multiarray_umath\S*\.DOUBLE_matmul\S* .*blas\S*gemm"),
                                 ("compress", r"libz\.so\S*\.deflate")):
            within = [re.split(rf"/native\.py\.{function}: \d+ ", " ".join(s))[1:] for s in stacks]
            within = [text[0] for text in within if text]
            self.assertGreater(len(within), 5)
            self.assertGreaterEqual(sum(bool(re.search(called, text)) for text in within), 0.8 * len(within), within)


if __name__ == "__main__":
    unittest.main(verbosity=2)
