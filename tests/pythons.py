# SPDX-License-Identifier: Apache-2.0
"""The CPythons that are to be had here: python3.N of PATH, of pyenv where that is installed, the system's, and what
SWPROFD_TEST_PYTHONS names (paths, separated by colons)."""

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


def find():
    """Return: ({name: path}: one of each version, and the system's as well; the versions that are not here)."""
    found = {}
    for python in candidates():
        minor = version(python)
        name = f"3.{minor}" + ("-system" if python == SYSTEM else "")
        if minor in MINORS:
            found.setdefault(name, python)
    missing = [f"3.{m}" for m in MINORS if not any(re.fullmatch(rf"3\.{m}(-system)?", name) for name in found)]
    return found, missing
