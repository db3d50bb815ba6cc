/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "capture/sched-clock.h"
#include "util/time.h"

#define ORIGIN (1000 * NS_PER_S) /* of the scheduler's clock, on the other one; or before it */
#define WAKE   (10 * NS_PER_US)

static uint64_t sched(uint64_t mono_ns)
{
        return mono_ns - ORIGIN;
}

Test(sched_clock, the_quickest_wake_up_counts)
{
        SchedClock c = SCHED_CLOCK_INIT;
        uint64_t now = 5000 * NS_PER_S;

        cr_assert_eq(sched_clock_mono_ns(&c, 1, now), 0, "nothing is known yet");
        sched_clock_note(&c, now, sched(now - 3 * NS_PER_MS));
        sched_clock_note(&c, now + 1, sched(now + 1 - WAKE));
        sched_clock_note(&c, now + 2, sched(now + 2 - NS_PER_MS));
        now += NS_PER_MS;
        cr_assert_eq(sched_clock_mono_ns(&c, sched(now - NS_PER_MS / 2), now),
                now - NS_PER_MS / 2 + WAKE);
        cr_assert_eq(sched_clock_mono_ns(&c, sched(now - 1), now), now, "not later than now");
}

Test(sched_clock, may_be_ahead)
{
        SchedClock c = SCHED_CLOCK_INIT;
        uint64_t now = 5 * NS_PER_S;

        sched_clock_note(&c, now, now + ORIGIN - WAKE);
        cr_assert_eq(sched_clock_mono_ns(&c, now + ORIGIN - NS_PER_S, now), now - NS_PER_S + WAKE);
}

Test(sched_clock, follows_drift_and_steps)
{
        SchedClock c = SCHED_CLOCK_INIT;
        uint64_t now = 5000 * NS_PER_S;
        uint64_t drift = 0, found;

        for (int i = 0; i < 1000; i++) {
                now += 10 * NS_PER_MS;
                drift += 5 * NS_PER_US;
                sched_clock_note(&c, now, sched(now - WAKE) - drift);
        }
        found = sched_clock_mono_ns(&c, sched(now - NS_PER_MS) - drift, now);
        cr_assert_leq(found, now - NS_PER_MS + WAKE);
        cr_assert_geq(found, now - NS_PER_MS + WAKE - NS_PER_MS, "two windows of 500 ppm");
        /* A step that makes the difference greater is known after two windows, or a pause. */
        now += 10 * NS_PER_S;
        sched_clock_note(&c, now, sched(now - WAKE) - NS_PER_S);
        cr_assert_eq(sched_clock_mono_ns(&c, sched(now - NS_PER_MS) - NS_PER_S, now),
                now - NS_PER_MS + WAKE);
}
