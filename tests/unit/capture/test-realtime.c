/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <sched.h>

#include "manager/realtime.h"
#include "util/time.h"

static int policy(void)
{
        return sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;
}

Test(realtime, is_given_up_by_a_busy_thread)
{
        const uint64_t third = NS_PER_S / 3;
        uint64_t now, cpu;
        Realtime r;

        realtime_init(&r, "test", true, 0, NS_PER_S / 3);
        if (r.denied)
                cr_skip_test("SCHED_FIFO is denied here");
        now = r.begin_mono_ns;
        cpu = r.begin_cpu_ns;
        cr_assert_eq(policy(), SCHED_OTHER);
        realtime_step(&r, false, cpu, now);
        cr_assert_eq(policy(), SCHED_OTHER);
        /* A third of each second is its own. */
        for (int i = 0; i < 10; i++) {
                realtime_step(&r, true, cpu += third, now + NS_PER_S / 2);
                cr_assert_eq(policy(), SCHED_FIFO);
                realtime_step(&r, true, cpu, now += NS_PER_S);
        }
        realtime_step(&r, true, cpu += third + 1, now + 1);
        cr_assert_eq(policy(), SCHED_OTHER);
        /* It was too much in this second, and is in the next one. */
        realtime_step(&r, true, cpu, now += NS_PER_S);
        cr_assert_eq(policy(), SCHED_OTHER);
        realtime_step(&r, true, cpu += third + 1, now += NS_PER_S);
        cr_assert_eq(policy(), SCHED_OTHER);
        realtime_step(&r, true, cpu += third, now += NS_PER_S);
        cr_assert_eq(policy(), SCHED_FIFO);
        realtime_step(&r, false, cpu, now + 1);
        cr_assert_eq(policy(), SCHED_OTHER);
}

Test(realtime, only_if_allowed)
{
        Realtime r;

        realtime_init(&r, "test", false, 0, NS_PER_S / 3);
        realtime_step(&r, true, r.begin_cpu_ns, r.begin_mono_ns + 10 * NS_PER_S);
        cr_assert_eq(policy(), SCHED_OTHER);
}

Test(realtime, is_needed_while_wake_ups_are_late)
{
        const uint64_t late = 2 * NS_PER_MS;
        RealtimeNeed n = {0};
        uint64_t now = 100 * NS_PER_S;

        cr_assert_not(realtime_need(&n, NS_PER_MS / 2, now));
        cr_assert(realtime_need(&n, late, now));
        cr_assert(realtime_need(&n, 0, now + 9 * NS_PER_S));
        /* What comes late in spite of it makes it no longer. */
        cr_assert(realtime_need(&n, late, now + 9 * NS_PER_S));
        cr_assert_not(realtime_need(&n, 0, now += 10 * NS_PER_S));
        /* Late again: the CPUs are still busy. */
        cr_assert(realtime_need(&n, late, now += NS_PER_S));
        cr_assert(realtime_need(&n, 0, now + 19 * NS_PER_S));
        cr_assert_not(realtime_need(&n, 0, now += 20 * NS_PER_S));
        for (int i = 0; i < 10; i++) {
                cr_assert(realtime_need(&n, late, now));
                now = n.until_mono_ns;
        }
        cr_assert_eq(n.hold_ns, 600 * NS_PER_S);
        /* Much later. */
        cr_assert(realtime_need(&n, late, now += 20 * NS_PER_S));
        cr_assert_eq(n.hold_ns, 10 * NS_PER_S);
}
