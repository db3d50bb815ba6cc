# SPDX-License-Identifier: Apache-2.0
"""demo.py [SERVICE [INSTANCE]]: a slow endpoint, /song, as packaging/demo/demo.c has it, in Python."""

import sys
import time

import swprof


def method1():
    time.sleep(0.02)


def method2():
    time.sleep(0.04)
    method1()


def method3():
    time.sleep(0.06)
    method2()


def handler():
    time.sleep(0.5)
    method3()


def serve():
    with swprof.span("/song"):
        handler()


def main():
    while True:
        serve()


if __name__ == "__main__":
    swprof.init(*sys.argv[1:3] or ["demo"])
    main()
