/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "sim.h"

/* The wall clock steps, and hosts are suspended. */

Test(sim, steps_forward)
{
        Instance *i;
        Sim *s = sim_with_task(&i);

        sim_task(s, i, "next", "/next", 120000, 1, 0, 10, 5);
        sim_task(s, i, "skipped", "/skipped", 60000, 1, 0, 10, 5);
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 1000);
        s->wall_offset_ms += 130000;
        sim_to(s, 1050);
        cr_assert_eq(sim_active_targets(s), 0);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 0); /* settles */
        cr_assert_eq(sim_find_task(s, "skipped")->n_finished, 1);
        sim_to(s, 1300);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 1);
        cr_assert_eq(i->n_watch, 1);
        cr_assert_str_eq(i->watch[0], "/next");
        sim_start(s, 1, "y", "/next", 101);
        cr_assert_eq(sim_active_targets(s), 1);
        sim_finish(s);
}

Test(sim, steps_back)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 1000);
        s->wall_offset_ms -= 3600 * 1000;
        sim_to(s, 5000);
        /* Still runs, though its start is in the future again; times do not go back. */
        cr_assert_eq(sim_active_targets(s), 1);
        cr_assert_eq(sim_span(s, "x")->first_wall_ms, s->wall_offset_ms + 3600 * 1000 + 5000000);
        sim_to(s, 59999);
        cr_assert_eq(sim_active_targets(s), 1);
        sim_to(s, 60000);
        cr_assert_eq(sim_active_targets(s), 0);
        sim_finish(s);
}

/* A task ends at the time that the wall clock says, so a host that sleeps through most of it has
 * little left to do; a request goes on over it, and the time between is in its report. */
Test(sim, suspended)
{
        Sim *s = sim_with_task(NULL);
        const SimSpan *x;

        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 1000);
        sim_suspend(s, 50000);
        sim_to(s, 2000);
        sim_stop(s, "x");
        sim_to(s, 2200);
        x = sim_span(s, "x");
        cr_assert_eq(x->n_snapshots, 200);
        cr_assert_eq(x->last_wall_ms - x->first_wall_ms, 1990 + 50000);
        cr_assert_eq(x->n_done, 1);
        cr_assert_geq(x->report.end_wall_ms, x->last_wall_ms);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 0);
        sim_to(s, 10200);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 1);
        sim_finish(s);
}

/* It is over when the host wakes up: within the second that it takes to see that, and with what
 * was taken before. */
Test(sim, suspended_beyond_the_end)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 30000);
        sim_start(s, 1, "y", "/slow", 101);
        sim_to(s, 30100);
        sim_suspend(s, 8 * 3600 * 1000);
        sim_to(s, 31200);
        cr_assert_eq(sim_active_targets(s), 0);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 1);
        cr_assert_geq(sim_span(s, "x")->n_snapshots, 3010);
        cr_assert_leq(sim_span(s, "x")->n_snapshots, 3110);
        cr_assert_eq(sim_span(s, "y")->n_snapshots, 0);
        sim_finish(s);
}

/* What is under way when it falls asleep counts by the time at which it happened. */
Test(sim, suspended_with_events_under_way)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 50 * NS_PER_MS;
        s->sample_latency_ns = 30 * NS_PER_MS;
        s->stack_latency_ns = 300 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_start(s, 1, "fast", "/slow", 101);
        sim_to(s, 190);
        sim_stop(s, "fast");
        sim_suspend(s, 10000);
        sim_to(s, 300);
        sim_stop(s, "x");
        sim_to(s, 2000);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 25);
        cr_assert_eq(sim_span(s, "fast")->n_snapshots, 0);
        sim_finish(s);
}
