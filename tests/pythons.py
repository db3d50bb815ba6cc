# SPDX-License-Identifier: Apache-2.0
"""The CPythons that are to be had here: python3.N of PATH, of pyenv where that is installed, the system's, and what
SWPROFD_TEST_PYTHONS names (paths, separated by colons); the newest, else, of a later Debian (see fetch-python)."""

import functools
import os
import pathlib
import re
import shutil
import subprocess

MINORS = range(8, 15)
SYSTEM = "/usr/bin/python3"


def version(python):
    """The minor version of a CPython 3 with a GIL, or None."""
    code = ("import sys, sysconfig; print(sys.implementation.name, *sys.version_info[:2], "
            "sysconfig.get_config_var('Py_GIL_DISABLED') or 0)")
    try:
        out = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60).stdout.split()
    except OSError:
        return None
    return int(out[2]) if out[:2] == ["cpython", "3"] and out[3] == "0" else None


def candidates():
    yield from filter(None, os.environ.get("SWPROFD_TEST_PYTHONS", "").split(":"))
    yield SYSTEM
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
        yield from sorted(map(str, pathlib.Path(root).glob("versions/3.*/bin/python3")))
    yield from filter(None, (shutil.which(f"python3.{minor}") for minor in MINORS))


@functools.cache
def fetch(name):
    """Return: (the path of one beside the system's, "") or (None, why there is none)."""
    if name not in ("3.13", "3.14"):
        return None, "not here"
    done = subprocess.run([pathlib.Path(__file__).with_name("fetch-python"), name], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return done.stdout.strip(), ""
    return None, (done.stderr.strip().splitlines() or ["fetch-python failed"])[-1].replace("SKIP: ", "")


def find():
    """Return: ({name: path}: one of each version, and the system's as well; the versions that are not here, and why)."""
    found = {}
    for python in candidates():
        minor = version(python)
        name = f"3.{minor}" + ("-system" if python == SYSTEM else "")
        if minor in MINORS:
            found.setdefault(name, python)
    missing = []
    for name in (f"3.{minor}" for minor in MINORS):
        if not any(re.fullmatch(rf"{name}(-system)?", other) for other in found):
            python, reason = fetch(name)
            if python:
                found[name] = python
            else:
                missing.append(f"{name} ({reason})")
    return found, missing
