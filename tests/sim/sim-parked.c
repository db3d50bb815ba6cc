/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "core/counter.h"
#include "sim.h"

/* Segments that wait on no thread, with the stack at which they left it. The task of most is that
 * of sim_with_task(). */

static int64_t wall_ms(const Sim *s, int64_t ms)
{
        return s->wall_offset_ms + 5000000 + ms;
}

/* From begin to end, also between due times. */
Test(sim, parked)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 25 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 303);
        sim_park(s, "x");
        sim_to(s, 400);
        cr_assert_eq(sim_active_targets(s), 0);
        sim_to(s, 607);
        sim_switch(s, "x", 101);
        sim_to(s, 705);
        sim_stop(s, "x");
        sim_to(s, 2000);
        /* 25, 30 … 300; 303, 310 … 600, 607; 640 … 700 */
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 29 + 32 + 7);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_PARKED), 32);
        cr_assert_eq(sim_span(s, "x")->report.times.blocked_ns, 304 * NS_PER_MS);
        sim_finish(s);
}

/* Nothing is ever made of what turns out to be fast, and nothing of times before the threshold is
 * lost of what is not. */
Test(sim, parked_from_the_beginning)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "fast", "/slow", 0);
        sim_park(s, "fast");
        sim_start(s, 1, "slow", "/slow", 0);
        sim_park(s, "slow");
        sim_to(s, 200);
        sim_stop(s, "fast");
        cr_assert_eq(counter_get(COUNTER_SAMPLES_PARKED), 0);
        /* Delivered while it waits, as far as events may be late. */
        sim_to(s, 700);
        cr_assert_eq(sim_span(s, "slow")->first_wall_ms, wall_ms(s, 0));
        cr_assert_eq(sim_span(s, "slow")->last_wall_ms, wall_ms(s, 600));
        cr_assert_eq(sim_span(s, "slow")->n_snapshots, 61);
        sim_stop(s, "slow");
        /* As of the end, 1 ns before: of the same millisecond as the wire counts. */
        cr_assert_eq(sim_span(s, "slow")->last_wall_ms, wall_ms(s, 699));
        cr_assert_eq(sim_span(s, "slow")->n_snapshots, 71);
        sim_finish(s);
}

/* A request that gives way all the time has no more samples than one that does not. */
Test(sim, parked_all_the_time)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/slow", 100);
        sim_pass_ns(s, 123);
        for (int n = 0; n < 1000; n++) {
                sim_pass_ns(s, 600000);
                sim_park(s, "x");
                sim_pass_ns(s, 400000);
                sim_switch(s, "x", 100);
        }
        sim_stop(s, "x");
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 101);
        sim_finish(s);
}

/* As a thread that sleeps between two due times: not seen. */
Test(sim, parked_between_due_times)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/slow", 100);
        for (int ms = 300; ms < 400; ms += 10) {
                sim_to(s, ms + 1);
                sim_park(s, "x");
                sim_to(s, ms + 9);
                sim_switch(s, "x", 100);
        }
        cr_assert_eq(counter_get(COUNTER_SAMPLES_PARKED), 0);
        /* Of one shorter than the wire's unit at a due time: that one. */
        sim_to(s, 410);
        sim_pass_ns(s, 1);
        sim_park(s, "x");
        sim_to(s, 420);
        sim_pass_ns(s, NS_PER_MS / 2);
        sim_switch(s, "x", 100);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_PARKED), 2);
        sim_finish(s);
}

/* What was delivered of a wait is never after its end, though the word of that comes late. */
Test(sim, parked_with_late_events)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 100 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        for (int n = 0; n < 40; n++) {
                sim_pass_ns(s, 13 * NS_PER_MS + 123456);
                sim_park(s, "x");
                sim_pass_ns(s, 27 * NS_PER_MS + 654321);
                sim_switch(s, "x", 100);
        }
        cr_assert_gt(sim_span(s, "x")->n_snapshots, 100);
        sim_finish(s);
}

/* From one wait into the next, and out of any. */
Test(sim, parked_anew)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/slow", 0);
        sim_park(s, "x");
        sim_to(s, 105);
        sim_park(s, "x");
        sim_to(s, 205);
        sim_switch(s, "x", 0);
        sim_to(s, 305);
        sim_stop(s, "x");
        /* 0, 10 … 100, 105⁻; 105, 110 … 200, 205⁻ */
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 12 + 12);
        cr_assert_eq(sim_span(s, "x")->last_wall_ms, wall_ms(s, 204));
        sim_finish(s);
}

/* A task that comes to run finds a segment that waits, and one that ends leaves it. */
Test(sim, parked_longer_than_the_task)
{
        Sim *s = sim_new();

        sim_task(s, sim_attach(s, 1, "a", false), "task", "/slow", 1000, 1, 205, 50, 5);
        sim_start(s, 1, "x", "/slow", 0);
        sim_park(s, "x");
        sim_to(s, 70000);
        /* 1000, 1005, 1055 … 60955, and when the task was over. */
        cr_assert_eq(sim_span(s, "x")->first_wall_ms, wall_ms(s, 1000));
        cr_assert_eq(sim_span(s, "x")->last_wall_ms, wall_ms(s, 60999));
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 1 + 1200 + 1);
        sim_finish(s);
}

/* More than may be held: the runs' ends stay. */
Test(sim, parked_beyond_what_is_held)
{
        Sim *s = sim_with_task(NULL);

        s->config.profile_max_pending_samples = 4;
        s->config.profile_max_parallel = 1;
        sim_start(s, 1, "first", "/slow", 100);
        sim_start(s, 1, "x", "/slow", 0);
        sim_park(s, "x");
        sim_to(s, 5000);
        sim_stop(s, "first");
        sim_to(s, 5001);
        sim_stop(s, "x");
        cr_assert_leq(sim_span(s, "x")->n_snapshots, 4);
        cr_assert_eq(sim_span(s, "x")->first_wall_ms, wall_ms(s, 0));
        cr_assert_eq(sim_span(s, "x")->last_wall_ms, wall_ms(s, 5000));
        sim_finish(s);
}

/* A wait that is said to be older than its span is not. */
Test(sim, parked_before_the_beginning)
{
        Sim *s = sim_with_task(NULL);
        Stack *stack = stack_new();

        cr_assert_eq(stack_set_ready(stack, 1, (const char *[]){"0 0 0"}), 0);
        sim_to(s, 300);
        sim_start(s, 1, "x", "/slow", 0);
        cr_assert_eq(core_span_switch(s->core, 1, "x", 0, stack, sim_ns(s, 100), sim_now(s)), 0);
        sim_to(s, 400);
        cr_assert_eq(core_span_switch(s->core, 1, "x", 0, NULL, sim_ns(s, 400), sim_now(s)), 0);
        /* 300, 310 … 390, 400⁻ */
        cr_assert_eq(counter_get(COUNTER_SAMPLES_PARKED), 11);
        stack_unref(stack);
        sim_stop(s, "x");
        sim_finish(s);
}

/* Times that go back make no sample twice, and none out of order. */
Test(sim, parked_times_that_go_back)
{
        Sim *s = sim_with_task(NULL);
        Stack *stack = stack_new();

        cr_assert_eq(stack_set_ready(stack, 1, (const char *[]){"0 0 0"}), 0);
        sim_start(s, 1, "x", "/slow", 0);
        sim_to(s, 1000);
        for (int n = 0; n < 10; n++) {
                cr_assert_eq(
                        core_span_switch(s->core, 1, "x", 0, stack, sim_ns(s, 100), sim_now(s)), 0);
                cr_assert_eq(
                        core_span_switch(s->core, 1, "x", 0, NULL, sim_ns(s, 500), sim_now(s)), 0);
        }
        cr_assert_eq(counter_get(COUNTER_SAMPLES_PARKED), 41);
        /* Nor what was delivered meanwhile. The sim does not know that it waits. */
        sim_span(s, "x")->n_valid = 1000;
        for (int n = 0; n < 100; n++) {
                cr_assert_eq(
                        core_span_switch(s->core, 1, "x", 0, stack, sim_ns(s, 900), sim_now(s)), 0);
                sim_pass_ns(s, 20 * NS_PER_MS);
        }
        cr_assert_leq(counter_get(COUNTER_SAMPLES_PARKED), 41 + 300);
        stack_unref(stack);
        sim_stop(s, "x");
        sim_finish(s);
}

/* From one task to the next: it waits on. */
Test(sim, parked_and_renamed)
{
        Instance *i;
        Sim *s = sim_with_task(&i);

        cr_assert_eq(sim_task(s, i, "next", "/next", 60000, 1, 100, 10, 5), 0);
        sim_to(s, 59900);
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 59950);
        sim_park(s, "x");
        sim_rename(s, "x", "/next");
        sim_to(s, 61000);
        cr_assert_eq(sim_active_targets(s), 0);
        sim_stop(s, "x");
        sim_to(s, 61200);
        cr_assert_str_eq(sim_span(s, "x")->task, "next");
        cr_assert_eq(sim_span(s, "x")->first_wall_ms, wall_ms(s, 60000));
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 101);
        sim_finish(s);
}
