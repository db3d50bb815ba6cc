# SPDX-License-Identifier: Apache-2.0
"""Virtual environments with the package as it is built here, kept in the build directory for the next run. What is not
here or cannot be had is a reason to skip."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ["SWPROFD_BUILD"])
sys.path.insert(0, str(SOURCE / "tests/unit/python"))

import interpreters  # noqa: E402

PACKAGE = SOURCE / "lib/python"
AGENT = "apache-skywalking==1.2.0"
INTERPRETERS = interpreters.find()
# The newest that the agent is for.
BUILDER = next((v for v in [(3, 13), (3, 12), (3, 11), (3, 10), (3, 14)] if INTERPRETERS[v]), None)
MIDDLE = next((v for v in ((3, 11), (3, 10), (3, 12)) if INTERPRETERS[v]), (3, 11))


def run(*command, **options):
    """Return: its output. Fails with it."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=1500, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}")
    return done.stdout


class Venv:
    def __init__(self, folder):
        self.bin = folder / "bin"
        self.python = str(self.bin / "python")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SW", "PYTHON", "GRPC"))}
        self.env["PATH"] = f"{self.bin}:{self.env['PATH']}"

    def pip(self, *arguments):
        return run(self.python, "-m", "pip", "--disable-pip-version-check", *arguments, env=self.env)


def make(name, version, requirements):
    """Raises SkipTest."""
    program = INTERPRETERS.get(version)
    if not program:
        raise unittest.SkipTest(interpreters.why_not(version))
    folder = BUILD / "python-venvs" / f"{name}-{interpreters.name(version)}"
    venv, done = Venv(folder), folder / "requirements"
    wanted = "\n".join(requirements)
    if not done.exists() or done.read_text() != wanted:
        run(program, "-m", "venv", "--clear", folder)
        try:
            if requirements:
                venv.pip("install", "-q", *requirements)
        except AssertionError as e:
            last = str(e).strip().splitlines()[-1]
            raise unittest.SkipTest(f"{', '.join(requirements)} cannot be installed: {last}") from None
        done.write_text(wanted)
    return venv


_built = None


def build():
    """Return: (sdist, wheel); the wheel is made of the sdist."""
    global _built
    if _built is None:
        venv = make("build", BUILDER, ["hatchling"])
        folder = BUILD / "python-dist"
        run("rm", "-rf", folder)
        run(venv.python, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=PACKAGE, env=venv.env)
        sdist, = folder.glob("*.tar.gz")
        run("tar", "xzf", sdist, "-C", folder)
        unpacked, = (p for p in folder.iterdir() if p.is_dir())
        run(venv.python, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=unpacked, env=venv.env)
        wheel, = folder.glob("*.whl")
        _built = sdist, wheel
    return _built


def _has(venv, wheel):
    """It was installed of just that."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return any(json.loads(p.read_text())["archive_info"].get("hash") == f"sha256={digest}"
               for p in venv.bin.parent.glob("lib/python*/site-packages/swprof-*.dist-info/direct_url.json"))


def make_with_package(name, version, requirements=()):
    venv, wheel = make(name, version, requirements), build()[1]
    if not _has(venv, wheel):
        venv.pip("install", "-q", "--no-deps", "--no-index", "--force-reinstall", wheel)
    return venv


def with_agent(version, *requirements):
    if version >= (3, 14):
        raise unittest.SkipTest("apache-skywalking 1.2.0 is for Python 3.8 to 3.13")
    return make_with_package("-".join(["agent", *requirements]), version, [AGENT, *requirements])
