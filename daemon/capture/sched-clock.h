/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/*
 * The scheduler's clock, on which the kernel notes when threads come and go, and CLOCK_MONOTONIC:
 * both count nanoseconds, from different origins, and drift apart by what the time of day is
 * corrected (500 ppm at most). A thread that reads CLOCK_MONOTONIC has come onto its CPU a moment
 * before: the least difference seen in the last seconds is the clocks' own plus that of the
 * quickest wake-up, some 10 µs. What is converted is late by so much, or early by the drift of two
 * seconds.
 */
typedef struct SchedClock {
        uint64_t begin_mono_ns;      /* of the newest window */
        int64_t least, least_before; /* mono - sched, in that window and the one before; INT64_MAX:
                                        none */
} SchedClock;

#define SCHED_CLOCK_INIT ((SchedClock){.least = INT64_MAX, .least_before = INT64_MAX})

/* At mono_ns ran a thread that had come onto its CPU at sched_ns. */
void sched_clock_note(SchedClock *c, uint64_t mono_ns, uint64_t sched_ns);

/* That time on CLOCK_MONOTONIC, `now_mono_ns` at most. 0: not known. */
uint64_t sched_clock_mono_ns(const SchedClock *c, uint64_t sched_ns, uint64_t now_mono_ns);
