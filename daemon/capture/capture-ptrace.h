/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "swprof-abi.h"
#include "util/cleanup.h"

/*
 * Answers the requests that the BPF programs answer (struct swp_slot), by stopping the thread for a
 * moment where it cannot be avoided. Has no shots: a thread that runs is stopped like any other.
 * Kernel frames are not to be had: /proc gives their names only. Private to this folder.
 *
 * A thread that was copied before is not stopped again while it has not been given a CPU since it
 * was seen waiting; nor if it has, but waits in the same system call with the same arguments at the
 * same place, and its stack holds the same bytes: interrupting a call makes the thread run, so that
 * counting alone would find each stop of ours. (Registers that callees save are not compared. The
 * same return addresses lie at the same places, so they would have to differ, be needed to find
 * those, and lead to the same ones.)
 */

typedef struct CapturePtrace CapturePtrace;

/* Return: 0, -errno. */
int capture_ptrace_new(CapturePtrace **ret, unsigned n_slots);
/* Threads that have not stopped yet stay seized until the calling thread ends. */
CapturePtrace *capture_ptrace_free(CapturePtrace *p);
DEFINE_CLEANUP(CapturePtrace *, capture_ptrace_free)

struct swp_slot *capture_ptrace_slot(CapturePtrace *p, uint32_t slot);
struct swp_python *capture_ptrace_python(CapturePtrace *p, uint32_t slot);
uint8_t *capture_ptrace_buffer(CapturePtrace *p, uint32_t buffer); /* a struct swp_buffer */

/* From now on that slot is this thread's. Return: 0, -ESRCH: it is gone, -errno. */
int capture_ptrace_follow(CapturePtrace *p, uint32_t slot, pid_t pid, pid_t tid);
/* Undoes that; a slot without a thread is left alone. */
void capture_ptrace_leave(CapturePtrace *p, uint32_t slot);

/* Answers the request in the slot. Waits for nothing long: a thread that does not stop at once, as
 * one that waits for a disk, is SWP_UNSTABLE, and let go when it does stop. */
void capture_ptrace_pull(CapturePtrace *p, uint32_t slot);

/* Readable while there are such: capture_ptrace_let_go() is to be called. */
int capture_ptrace_fd(const CapturePtrace *p);
void capture_ptrace_let_go(CapturePtrace *p);
