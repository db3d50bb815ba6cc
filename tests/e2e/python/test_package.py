# SPDX-License-Identifier: Apache-2.0
"""The wheel and the sdist, built and installed."""

import re
import tarfile
import unittest
import zipfile

import venvs
from venvs import BUILDER, PACKAGE, SOURCE, run

SOURCES = {p.name for p in (PACKAGE / "src/swprof").glob("*.py")}


class Package(unittest.TestCase):
    def test_sdist(self):
        with tarfile.open(venvs.build()[0]) as sdist:
            names = {"/".join(n.split("/")[1:]) for n in sdist.getnames()}
        self.assertLessEqual({"pyproject.toml", "LICENSE", "README.md", "PKG-INFO", "src/swprof.pth",
                              *(f"src/swprof/{n}" for n in SOURCES)}, names)

    def test_wheel(self):
        wheel = venvs.build()[1]
        self.assertTrue(wheel.name.endswith("-py3-none-any.whl"))
        with zipfile.ZipFile(wheel) as z:
            names = {n for n in z.namelist() if ".dist-info/" not in n}
            metadata = z.read(next(n for n in z.namelist() if n.endswith("/METADATA"))).decode()
            licence = z.read(next(n for n in z.namelist() if n.endswith("/LICENSE"))).decode()
        self.assertEqual(names, {"swprof.pth", *(f"swprof/{n}" for n in SOURCES)})
        self.assertEqual(licence, (SOURCE / "LICENSE").read_text())
        self.assertNotIn("Requires-Dist", metadata)
        self.assertIn("Requires-Python: >=3.8\n", metadata)

    def test_version(self):
        wanted = re.search(r"version: '([\d.]+)'", (SOURCE / "meson.build").read_text())[1]
        self.assertIn(f"swprof-{wanted}-", venvs.build()[1].name)

    def test_installed(self):
        venv = venvs.make_with_package("package", BUILDER)
        for command in ([str(venv.bin / "swprof")], [venv.python, "-m", "swprof"]):
            self.assertRegex(run(*command, "--version", env=venv.env), r"^swprof \d")
            self.assertIn("Usage: swprof run", run(*command, "--help", env=venv.env))
        with self.assertRaisesRegex(AssertionError, "no command to run"):
            run(venv.bin / "swprof", "run", "-p", env=venv.env)
        with self.assertRaisesRegex(AssertionError, "sw-python is not there"):
            run(venv.bin / "swprof", "run", "true", env=dict(venv.env, PATH=str(venv.bin)))

    def test_start_of_python(self):
        """Without SWPROF nothing is loaded; with it, and without an agent, little, and nothing happens."""
        venv = venvs.make_with_package("package", BUILDER)
        code = "import sys; print(sorted(n for n in sys.modules if 'swprof' in n or n in ('logging', 're')))"
        for value in (None, "", "0"):
            env = dict(venv.env, **({} if value is None else {"SWPROF": value}))
            self.assertEqual(run(venv.python, "-c", code, env=env), "[]\n")
        loaded = run(venv.python, "-W", "error", "-c", code, env=dict(venv.env, SWPROF="1"))
        self.assertIn("swprof.skywalking", loaded)
        self.assertNotIn("logging", loaded)

    def test_uninstalled(self):
        venv = venvs.make_with_package("package", BUILDER)
        venv.pip("uninstall", "-q", "-y", "swprof")
        self.assertEqual([p for p in venv.bin.parent.rglob("*swprof*")], [])


if __name__ == "__main__":
    unittest.main()
