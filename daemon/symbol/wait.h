/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * What a thread off the CPU waits for: for a CPU, or in the system call that its registers name.
 * Codes are stable: the same wait has the same one.
 */

/* `blocked`: it waits for something other than a CPU. `syscall`: the number of the system call
 * it is in, -1: none (it waits for a page). `arg0`, `arg1`: that call's first arguments. */
uint64_t wait_code(bool blocked, int64_t syscall, uint64_t arg0, uint64_t arg1);

/* "[read fd 7]", "[futex_wait]", "[clock_nanosleep]", "[page fault]", "[run queue]"; "[syscall
 * 999]" for one that is not known. malloc'ed; NULL: no memory. */
char *wait_signature(uint64_t code);
