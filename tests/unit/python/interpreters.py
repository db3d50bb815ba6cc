# SPDX-License-Identifier: Apache-2.0
"""The Python interpreters that this machine has."""

import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import pythons  # noqa: E402

VERSIONS = [(3, minor) for minor in range(8, 15)]


def _candidates(version):
    program = "python{}.{}".format(*version)
    yield from filter(None, [shutil.which(program, path="/usr/bin:/usr/local/bin"), shutil.which(program)])
    root = os.environ.get("PYENV_ROOT")
    if not root and shutil.which("pyenv"):
        done = subprocess.run(["pyenv", "root"], stdout=subprocess.PIPE, text=True, check=False)
        root = done.stdout.strip()
    if root:
        yield from sorted(pathlib.Path(root, "versions").glob("{}.{}.*/bin/python".format(*version)))
    yield from filter(None, [pythons.fetch(name(version))[0]])


def _version(program):
    """Of shims there are some for versions that are not there."""
    code = "import ensurepip, sys, venv; print(*sys.version_info[:2])"
    done = subprocess.run([program, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def find():
    """{(major, minor): path, None where there is none that can make virtual environments}."""
    return {v: next((str(p) for p in _candidates(v) if _version(p) == v), None) for v in VERSIONS}


def why_not(version):
    """Of one that is not here."""
    return f"Python {name(version)}: {pythons.fetch(name(version))[1] or 'cannot make virtual environments'}"


def name(version):
    return "{}.{}".format(*version)
