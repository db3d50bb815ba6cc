/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "unwind/types.h"

/*
 * A thread of another process, stopped for a moment by ptrace. The kernel ties it to the thread of
 * ours that seized it: all calls come from that one, and when that one ends all are let go. Private
 * to this folder.
 */

typedef struct Tracee {
        pid_t pid, tid;
        pid_t wait_tid; /* tid, or after an exec by that thread pid */
        bool seized;
        int signal; /* stopped: to be delivered when it goes on, 0: none */
} Tracee;

#define TRACEE_INIT(_pid, _tid)              \
        {                                    \
                .pid = (_pid), .tid = (_tid) \
        }

enum {
        _TRACEE_E_SUCCESS,
        TRACEE_E_GONE,    /* it has ended */
        TRACEE_E_DENIED,  /* it has ended, has another tracer, or a security module forbids it */
        TRACEE_E_RUNNING, /* it has not stopped yet: to be asked for again, until it has */
};

/* Has it stop (if that is not under way), and waits so long for that at most. Return: 0, TRACEE_E_*,
 * -errno. */
int tracee_stop(Tracee *t, uint64_t wait_ns);

typedef struct TraceeRegs {
        UnwindRegs regs;
        uint64_t fsbase;
        int64_t syscall; /* -1: none */
        uint64_t args[6];
} TraceeRegs;

/* Of a stopped one. Return: whether it is a 64-bit thread, and could be read. */
bool tracee_read_regs(const Tracee *t, TraceeRegs *ret);

/* Lets a stopped one go on as if nothing had been: the signal that it was stopped at is delivered,
 * one that was stopped by job control stays so. If it was killed meanwhile, `seized` stays set, and
 * tracee_stop() will find it gone. */
void tracee_resume(Tracee *t);
