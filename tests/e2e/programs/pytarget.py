# SPDX-License-Identifier: Apache-2.0
"""pytarget.py SERVICE CASE SECONDS: functions whose stacks are known, within a span."""

import sys
import time

from pyspan import Spans


def leaf_wait(end):
    while time.monotonic() < end:
        time.sleep(0.05)  # line: wait


def leaf_burn(end):
    n = 0
    while time.monotonic() < end:
        for i in range(1000):  # line: burn
            n += i  # line: burn
    return n


def wait(seconds):
    leaf_wait(time.monotonic() + seconds)  # line: call


def burn(seconds):
    leaf_burn(time.monotonic() + seconds)  # line: call


CASES = {"wait": wait, "burn": burn}


def main():
    service, case, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    Spans(service, "/" + service).run(CASES[case], seconds)


if __name__ == "__main__":
    main()
