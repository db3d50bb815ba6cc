/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/sched-clock.h"

#include "util/time.h"

/* Some wake-ups of each are quick; the clocks drift apart by less than a wake-up's time. */
#define WINDOW_NS NS_PER_S

void sched_clock_note(SchedClock *c, uint64_t mono_ns, uint64_t sched_ns)
{
        int64_t difference = (int64_t)(mono_ns - sched_ns);

        if (mono_ns - c->begin_mono_ns >= WINDOW_NS) {
                /* What is older than two windows tells nothing any more. */
                c->least_before = mono_ns - c->begin_mono_ns < 2 * WINDOW_NS ? c->least : INT64_MAX;
                c->least = INT64_MAX;
                c->begin_mono_ns = mono_ns;
        }
        if (difference < c->least)
                c->least = difference;
}

uint64_t sched_clock_mono_ns(const SchedClock *c, uint64_t sched_ns, uint64_t now_mono_ns)
{
        int64_t least = c->least < c->least_before ? c->least : c->least_before;
        uint64_t mono_ns = sched_ns + (uint64_t)least;

        if (least == INT64_MAX)
                return 0;
        return mono_ns < now_mono_ns ? mono_ns : now_mono_ns;
}
