/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * Real-time scheduling (SCHED_FIFO) of threads that must run on time: while they would not without,
 * since all CPUs are busy. On other hosts an ordinary thread is woken up on an idle CPU, and a
 * real-time one where it ran last, in the place of what runs there.
 *
 * They are modest: one that has had its share of a second is scheduled like any other thread, with
 * its niceness, until it needs less again. Not by RLIMIT_RTTIME, which kills: its time goes on over
 * phases of ordinary scheduling, and a daemon that is flooded must live.
 */

typedef struct Realtime {
        const char *name; /* the thread's, for messages; borrowed */
        uint64_t share_ns;
        bool on;
        bool denied;
        bool immodest;                        /* in this second, or the one before */
        uint64_t begin_mono_ns, begin_cpu_ns; /* of this second */
} Realtime;

/*
 * Of the calling thread, as all later calls. `nice`: for when it is not real-time. `share_ns`: CPU
 * time of each second that it may have as a real-time one. Threads that it starts later are
 * ordinary ones, of niceness 0. Logs what is not granted.
 */
void realtime_init(Realtime *r, const char *name, bool allowed, int nice, uint64_t share_ns);
/* Once a round. `cpu_ns`: CPU time of the thread (CLOCK_THREAD_CPUTIME_ID). */
void realtime_step(Realtime *r, bool needed, uint64_t cpu_ns, uint64_t now_mono_ns);

/* Whether it is needed, as a thread that sleeps to given times finds out. */
typedef struct RealtimeNeed {
        uint64_t until_mono_ns, hold_ns;
} RealtimeNeed;

/* Woke up so late. Return: whether it needs it now: for 10 s, and for longer each time that it
 * was late again soon after these. */
bool realtime_need(RealtimeNeed *n, uint64_t late_ns, uint64_t now_mono_ns);
