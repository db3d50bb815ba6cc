# SPDX-License-Identifier: Apache-2.0
"""For each code object of some modules: the input of lines-probe, and behind a tab what it should say."""

import dis
import sys
import sysconfig

MINOR = sys.version_info[1]
FOLDER = sysconfig.get_paths()["stdlib"]


def line_of_units(code):
    n = len(code.co_code) // 2
    if MINOR >= 10:
        lines = [code.co_firstlineno] * n
        for start, end, line in code.co_lines():
            for unit in range(start // 2, end // 2):
                lines[unit] = code.co_firstlineno if line is None else line
        return lines
    starts = dict(dis.findlinestarts(code))
    lines, line = [], code.co_firstlineno
    for unit in range(n):
        line = starts.get(2 * unit, line)
        lines.append(line)
    return lines


def dump(code):
    table = code.co_linetable if MINOR >= 10 else code.co_lnotab
    lines = line_of_units(code)
    print(MINOR, code.co_firstlineno, len(lines), table.hex() or "-", sep=" ", end="\t")
    print(*lines)
    for const in code.co_consts:
        if hasattr(const, "co_code"):
            dump(const)


for name in ("argparse", "typing", "dataclasses", "tarfile", "inspect", "turtle", "this"):
    try:
        with open("%s/%s.py" % (FOLDER, name), encoding="utf-8") as f:
            source = f.read()
    except OSError:
        continue
    dump(compile(source, name, "exec"))
# Steps of lines and of bytes that take more than one entry.
dump(compile("a = (\n" + "\n" * 70000 + "b,\n" + "\n" * 300 + "c(" + "\n" * 200 + "d))\n" + "e = f" + "+f" * 2000 + "\ng",
             "steps", "exec"))
