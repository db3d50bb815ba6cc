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

        realtime_init(&r, "test", true, 0);
        if (r.denied)
                cr_skip_test("SCHED_FIFO is denied here");
        now = r.begin_mono_ns;
        cpu = r.begin_cpu_ns;
        cr_assert_eq(policy(), SCHED_FIFO);
        /* A third of each second is its own. */
        for (int i = 0; i < 10; i++) {
                realtime_account(&r, cpu += third, now + NS_PER_S / 2);
                cr_assert_eq(policy(), SCHED_FIFO);
                realtime_account(&r, cpu, now += NS_PER_S);
        }
        realtime_account(&r, cpu += third + 1, now + 1);
        cr_assert_eq(policy(), SCHED_OTHER);
        /* It was too much in this second, and is in the next one. */
        realtime_account(&r, cpu, now += NS_PER_S);
        cr_assert_eq(policy(), SCHED_OTHER);
        realtime_account(&r, cpu += third + 1, now += NS_PER_S);
        cr_assert_eq(policy(), SCHED_OTHER);
        realtime_account(&r, cpu += third, now += NS_PER_S);
        cr_assert_eq(policy(), SCHED_FIFO);
}

Test(realtime, only_if_wanted)
{
        Realtime r;

        realtime_init(&r, "test", false, 0);
        cr_assert_eq(policy(), SCHED_OTHER);
        realtime_account(&r, r.begin_cpu_ns, r.begin_mono_ns + 10 * NS_PER_S);
        cr_assert_eq(policy(), SCHED_OTHER);
}
