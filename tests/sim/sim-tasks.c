/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "sim.h"

/* The life of tasks, and the end of the core: one rule each. The task of most is that of
 * sim_with_task(). */

Test(sim, daemon_starts_late)
{
        Sim *s = sim_new();
        Instance *i = sim_attach(s, 1, "a", false);

        cr_assert_eq(sim_task(s, i, "task", "/slow", -30000, 1, 200, 10, 5), 0);
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 29999);
        cr_assert_eq(sim_active_targets(s), 1);
        sim_to(s, 30000);
        cr_assert_eq(sim_active_targets(s), 0);
        sim_to(s, 31000);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 1);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 3000);
        /* The request goes on: its report waits, the task did not. */
        cr_assert_eq(sim_span(s, "x")->n_done, 0);
        sim_to(s, 45000);
        sim_stop(s, "x");
        cr_assert_eq(sim_span(s, "x")->n_done, 1);
        cr_assert_eq(sim_span(s, "x")->report.end_wall_ms - sim_span(s, "x")->report.start_wall_ms,
                45000);
        sim_finish(s);
}

/* A span that never ends is not waited for longer than ten minutes. */
Test(sim, report_waits_so_long)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 60000 + 599000);
        cr_assert_eq(sim_span(s, "x")->n_done, 0);
        sim_to(s, 60000 + 601000);
        cr_assert_eq(sim_span(s, "x")->n_done, 1);
        sim_finish(s);
}

Test(sim, task_over_on_arrival)
{
        Sim *s = sim_new();
        Instance *i = sim_attach(s, 1, "a", false);

        cr_assert_eq(sim_task(s, i, "over", "/slow", -60000, 1, 200, 10, 5), CORE_E_OVER);
        cr_assert_eq(sim_find_task(s, "over")->n_finished, 1);
        cr_assert_eq(i->n_watch, 0);
        cr_assert_eq(s->n_prepares, 0);
        sim_finish(s);
}

Test(sim, task_waits_for_its_start)
{
        Sim *s = sim_new();
        Instance *i = sim_attach(s, 1, "a", false);

        cr_assert_eq(sim_task(s, i, "task", "/slow", 5000, 1, 200, 10, 5), 0);
        cr_assert_eq(s->n_watch_changes, 1);
        cr_assert_eq(s->n_prepares, 1);
        cr_assert_eq(i->n_watch, 1);
        cr_assert_str_eq(i->watch[0], "/slow");
        sim_to(s, 4000);
        sim_start(s, 1, "before", "/slow", 101);
        sim_start(s, 1, "across", "/slow", 100);
        cr_assert_eq(sim_active_targets(s), 0);
        sim_to(s, 4900);
        sim_stop(s, "before");
        sim_to(s, 5000);
        /* The threshold counts from the task's start. */
        cr_assert_eq(sim_target(s)->first_mono_ns, sim_ns(s, 5200));
        sim_to(s, 5300);
        sim_stop(s, "across");
        cr_assert_eq(sim_span(s, "across")->n_snapshots, 30);
        cr_assert_eq(sim_span(s, "across")->first_wall_ms, s->wall_offset_ms + 5005000);
        sim_to(s, 64999);
        cr_assert_eq(i->n_watch, 1);
        sim_to(s, 65001);
        cr_assert_eq(i->n_watch, 0);
        cr_assert_eq(s->n_watch_changes, 2);
        sim_finish(s);
}

/* Two tasks, the later of them listed first, and the clock jumps into it. */
Test(sim, later_start_stops_the_earlier)
{
        Sim *s = sim_new();
        Instance *i = sim_attach(s, 1, "a", false);

        cr_assert_eq(sim_task(s, i, "later", "/later", 60000, 1, 0, 10, 5), 0);
        cr_assert_eq(sim_task(s, i, "earlier", "/slow", 0, 1, 0, 10, 5), 0);
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 60200);
        cr_assert_eq(sim_find_task(s, "earlier")->n_finished, 1);
        cr_assert_eq(sim_find_task(s, "later")->n_finished, 0);
        sim_finish(s);
}

Test(sim, task_outlives_the_clients)
{
        Sim *s = sim_with_task(NULL);

        sim_to(s, 1000);
        sim_client_gone(s, 1);
        sim_detach(s, 1);
        cr_assert_not_null(core_instance_first(s->core));
        sim_to(s, 59000);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 0);
        sim_to(s, 60001);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 1);
        /* It is remembered, lest the task is carried out again; sim_finish() sees it go. */
        cr_assert_not_null(core_instance_first(s->core));
        sim_finish(s);
}

Test(sim, report_is_wanted_without_an_agent_only)
{
        Sim *s = sim_new();
        Instance *a = sim_attach(s, 1, "a", false), *b = sim_attach(s, 2, "b", true);

        sim_task(s, a, "ta", "/slow", 0, 1, 0, 10, 5);
        sim_task(s, b, "tb", "/slow", 0, 1, 0, 10, 5);
        sim_start(s, 1, "a", "/slow", 100);
        sim_start(s, 2, "b", "/slow", 101);
        sim_to(s, 100);
        sim_stop(s, "a");
        sim_stop(s, "b");
        sim_to(s, 300);
        cr_assert(sim_span(s, "a")->report_wanted);
        cr_assert_eq(sim_span(s, "b")->n_done, 1);
        cr_assert_not(sim_span(s, "b")->report_wanted);
        sim_finish(s);
}

/* ---- shutdown ---- */

Test(sim, flush)
{
        Sim *s = sim_with_task(NULL);

        s->stack_latency_ns = 15 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 100);
        sim_start(s, 1, "pending", "/slow", 101);
        sim_to(s, 255);
        core_flush(s->core, sim_now(s));
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 25); /* 250 has no name yet */
        cr_assert_eq(sim_span(s, "x")->n_done, 1);
        cr_assert_eq(sim_span(s, "pending")->n_snapshots, 0);
        cr_assert_eq(sim_active_targets(s), 0);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 0);
        sim_free(s);
}

/* Freed in the middle of everything: the sanitizers look on. */
Test(sim, free_in_the_middle)
{
        Sim *s = sim_with_task(NULL);

        s->stack_latency_ns = NS_PER_S;
        sim_start(s, 1, "x", "/slow", 100);
        sim_continue(s, 1, "x", "y", 101);
        sim_to(s, 500);
        sim_free(s);
}
