/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * Real-time scheduling (SCHED_FIFO) of a thread that must run on time, as long as it is modest: one
 * that has had a third of a second of CPU time within a second is scheduled like any other thread,
 * with its niceness, until it needs less again. So the better part of each CPU is left to others. A
 * process one of whose real-time threads runs for seconds without a pause hangs, and the kernel
 * kills it (RLIMIT_RTTIME).
 */

typedef struct Realtime {
        const char *name; /* the thread's, for messages; borrowed */
        bool on;
        bool denied;
        uint64_t begin_mono_ns, begin_cpu_ns; /* of this second */
} Realtime;

/* Of the calling thread, as all later calls. `nice`: for when it is not real-time. Threads that it starts later are
 * ordinary ones. Logs what is not granted. */
void realtime_init(Realtime *r, const char *name, bool wanted, int nice);
/* Once a round. `cpu_ns`: CPU time of the thread (CLOCK_THREAD_CPUTIME_ID). */
void realtime_account(Realtime *r, uint64_t cpu_ns, uint64_t now_mono_ns);
