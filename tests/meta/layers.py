#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""layers.py [ROOT]: who includes what. Print what breaks the rules of the architecture:
includes go down only, middle folders do not know each other, and each third-party header is known in
one or two files."""

import fnmatch
import pathlib
import re
import sys

# folder of daemon/ -> folders of daemon/ that it may include, beside itself
MIDDLE = ["client", "capture", "unwind", "runtime", "symbol", "oap", "local", "store", "control"]
LAYERS = {
    "util": [],
    "core": ["util"],
    **{folder: ["util", "core"] for folder in MIDDLE},
    "manager": ["util", "core", *MIDDLE],
    "report": ["util"],
    "ctl": ["util", "report"],
}
# The mains, and single headers that may be included from the side.
MAINS = {"daemon/swprofd.c": ["util", "core", "manager"], "daemon/swprofctl.c": ["util", "ctl"]}
SIDEWAYS = {"capture": ["unwind/types.h"], "runtime": ["unwind/types.h", "unwind/module.h"]}

# (headers, files that may include them); the first that fits decides. `*` spans folders.
OWNERS = [
    ("grpc/*", ["daemon/oap/rpc*"]),
    ("openssl/*", ["daemon/oap/certificate.c"]),
    ("skywalking.pb-c.h", ["daemon/oap/codec.c"]),
    ("*/*.pb-c.h", ["daemon/oap/codec.c"]),
    ("span.pb-c.h", ["daemon/client/*"]),
    ("control.pb-c.h", ["daemon/control/*", "daemon/ctl/*", "daemon/manager/*"]),
    ("profile.pb-c.h", ["daemon/report/profile.h", "daemon/manager/observed.c", "daemon/store/results-profile.c"]),
    ("pprof.pb-c.h", ["daemon/report/export-pprof.c"]),
    ("protobuf-c/*", ["daemon/client/*", "daemon/control/*", "daemon/ctl/*", "daemon/oap/codec.c"]),
    ("google/protobuf-c/*", []),
    ("bpf/bpf_*.h", ["bpf/*"]),
    ("bpf/*", ["daemon/capture/*"]),
    ("*.skel.h", ["daemon/capture/*"]),
    ("python-abi.h", ["bpf/*", "daemon/capture/*", "daemon/runtime/*", "daemon/manager/module-cache.h"]),
    ("swprof-abi.h", ["bpf/*", "daemon/capture/*"]),
    ("kernel-min.h", ["bpf/*"]),
    ("linux/bpf.h", ["bpf/*", "daemon/capture/*"]),
    ("linux/perf_event.h", ["daemon/capture/*"]),
    ("libelf.h", ["daemon/unwind/*", "daemon/symbol/*", "daemon/runtime/cpython-binary.[ch]"]),
    ("gelf.h", ["daemon/unwind/*", "daemon/symbol/*", "daemon/runtime/cpython-binary.c"]),
    ("elfutils/*", ["daemon/unwind/cfi-elf.h", "daemon/symbol/*"]),
    ("dwarf.h", ["daemon/unwind/cfi-*.c", "daemon/symbol/*"]),
    ("zlib.h", ["daemon/report/export-pprof.c"]),
    ("lzma.h", ["daemon/symbol/*"]),
    ("*demangle.h", ["daemon/symbol/demangle.c"]),
    ("yaml.h", ["daemon/core/config*.c"]),
    ("sqlite3.h", ["daemon/store/database*", "daemon/store/record.c", "daemon/store/results.c"]),
    ("json-c/*", ["daemon/ctl/*"]),
    ("systemd/*", ["daemon/client/*", "daemon/control/*", "daemon/manager/*", "daemon/swprofd.c"]),
    ("version.h", ["daemon/*", "lib/*"]),
    ("syscall-names.h", ["daemon/symbol/wait.c"]),
    ("swprof.h", ["lib/*", "packaging/demo/*"]),
]
# What the C library and the kernel bring along.
SYSTEM = {
    "assert.h", "byteswap.h", "ctype.h", "dirent.h", "dlfcn.h", "elf.h", "endian.h", "errno.h",
    "fcntl.h", "getopt.h", "grp.h", "inttypes.h", "limits.h", "link.h", "locale.h", "math.h",
    "netdb.h", "poll.h", "pthread.h", "pwd.h", "sched.h", "setjmp.h", "signal.h", "spawn.h", "stdalign.h",
    "stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h",
    "string.h", "strings.h", "syslog.h", "threads.h", "time.h", "ucontext.h", "unistd.h",
}
SYSTEM_FOLDERS = ("sys/", "linux/", "asm/", "arpa/", "net/", "netinet/")

SOURCES = ("daemon", "lib", "bpf", "packaging")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def owners(header):
    for pattern, files in OWNERS:
        if fnmatch.fnmatchcase(header, pattern):
            return files
    return None


def fits(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def check_project_include(path, header):
    """Of a header of daemon/, written from there. Return: what is wrong, or None."""
    target = header.split("/")[0]
    if not path.startswith("daemon/"):
        return "is the daemon's"
    if path in MAINS:
        return None if target in MAINS[path] else "is not for a main program"
    folder = path.split("/")[1]
    if target == folder or target in LAYERS[folder] or header in SIDEWAYS.get(folder, []):
        return None
    return f"may not be included from {folder}/"


def check_include(root, path, quoted, header):
    """Return: what is wrong, or None."""
    files = owners(header)
    if files is not None:
        return None if fits(path, files) else "belongs to " + (", ".join(files) or "nobody")
    if header in SYSTEM or header.startswith(SYSTEM_FOLDERS):
        return None
    if header.split("/")[0] in LAYERS:
        return check_project_include(path, header)
    beside = (root / path).parent / header
    if quoted and "/" not in header and beside.exists() and not path.startswith("daemon/"):
        return None
    return "is nobody's: tests/meta/layers.py must say whose it is"


def violations(root):
    root = pathlib.Path(root)
    found = []
    for folder in SOURCES:
        for file in sorted((root / folder).rglob("*")):
            if file.suffix not in (".c", ".h"):
                continue
            path = file.relative_to(root).as_posix()
            text = file.read_text()
            parts = path.split("/")
            if parts[0] == "daemon" and path not in MAINS and parts[1] not in LAYERS:
                found.append(f"{path}: {parts[1]}/ is no layer that tests/meta/layers.py knows")
                continue
            for match in INCLUDE.finditer(text):
                wrong = check_include(root, path, match[1] == '"', match[2])
                if wrong:
                    line = text.count("\n", 0, match.start(2)) + 1
                    found.append(f"{path}:{line}: {match[2]} {wrong}")
    return found


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    found = violations(root)
    print("\n".join(found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
