/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "core/counter.h"
#include "sim.h"

/* What becomes of spans: one rule each. The task of most is that of sim_with_task(). */

/* ---- thresholds ---- */

Test(sim, slow_one_among_fast_ones)
{
        Sim *s = sim_with_task(NULL);
        char id[16];

        s->config.profile_max_parallel = 1;
        for (int n = 0; n < 50; n++) {
                snprintf(id, sizeof(id), "fast%d", n);
                sim_start(s, 1, id, "/slow", 100 + n);
        }
        sim_start(s, 1, "slow", "/slow", 200);
        cr_assert_eq(sim_active_targets(s), 51);
        sim_to(s, 100);
        for (int n = 0; n < 50; n++) {
                snprintf(id, sizeof(id), "fast%d", n);
                sim_stop(s, id);
        }
        sim_to(s, 1000);
        sim_stop(s, "slow");
        /* From its first moment on: 0, 10, …, 990. */
        cr_assert_eq(sim_span(s, "slow")->n_snapshots, 100);
        cr_assert_eq(sim_span(s, "slow")->first_wall_ms, s->wall_offset_ms + 5000000);
        cr_assert_eq(sim_span(s, "slow")->last_wall_ms, s->wall_offset_ms + 5000990);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_FAST), 50);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_NO_SLOT), 0);
        sim_finish(s);
}

Test(sim, threshold_is_strict)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "exact", "/slow", 100);
        sim_start(s, 1, "over", "/slow", 101);
        sim_to(s, 200);
        cr_assert_eq(sim_first_task(s)->n_slots, 0);
        sim_stop(s, "exact");
        sim_pass_ns(s, 1);
        cr_assert_eq(sim_first_task(s)->n_slots, 1);
        sim_stop(s, "over");
        cr_assert_eq(sim_span(s, "exact")->n_snapshots, 0);
        cr_assert_eq(sim_span(s, "over")->n_snapshots, 21); /* the one at 200 is within */
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_FAST), 1);
        sim_finish(s);
}

Test(sim, threshold_zero)
{
        Sim *s = sim_new();

        sim_task(s, sim_attach(s, 1, "a", false), "task", "/slow", 0, 1, 0, 10, 5);
        sim_start(s, 1, "instant", "/slow", 100);
        sim_stop(s, "instant");
        sim_start(s, 1, "any", "/slow", 101);
        sim_pass_ns(s, 1);
        cr_assert_eq(sim_first_task(s)->n_slots, 1);
        sim_stop(s, "any");
        cr_assert_eq(sim_span(s, "any")->n_snapshots, 1);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_FAST), 1);
        sim_finish(s);
}

Test(sim, samples_lie_on_the_grid_of_the_threshold)
{
        Sim *s = sim_new();
        const TargetSpec *spec;

        sim_task(s, sim_attach(s, 1, "a", false), "task", "/slow", 0, 1, 205, 50, 5);
        sim_to(s, 1003);
        sim_start(s, 1, "x", "/slow", 100);
        spec = sim_target(s);
        cr_assert_eq(spec->first_mono_ns, sim_ns(s, 1208));
        cr_assert_eq(spec->period_ns, 50 * NS_PER_MS);
        cr_assert_eq(spec->tid, 100);
        sim_to(s, 1300);
        sim_stop(s, "x");
        /* 1003 at once, then 1008, 1058, …, 1208, 1258. */
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 7);
        cr_assert_eq(sim_span(s, "x")->last_wall_ms, s->wall_offset_ms + 5001258);
        sim_finish(s);
}

/* The timer has made it PROFILING, the word of its stop was under way. */
Test(sim, late_stop_unpromotes)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 50 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 200);
        sim_stop(s, "x");
        sim_to(s, 240);
        cr_assert_eq(sim_first_task(s)->n_slots, 1);
        cr_assert_eq(sim_first_task(s)->n_reserved, 1);
        sim_to(s, 1000);
        cr_assert_eq(sim_first_task(s)->n_slots, 0);
        cr_assert_eq(sim_first_task(s)->n_reserved, 0);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_FAST), 1);
        sim_finish(s);
}

/* The core hears of the stop before its timer has come. */
Test(sim, stop_decides_without_the_timer)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 199);
        s->now_ns += 5 * NS_PER_MS;
        sim_stop(s, "x");
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 20);
        sim_finish(s);
}

Test(sim, nothing_is_sent_before_it_settles)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 300);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 0);
        /* 300 and a nanosecond, at the next multiple of 20 ms. */
        sim_to(s, 320);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 23); /* 0 … 220 */
        sim_stop(s, "x");
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 32); /* … 310, and not that at the stop */
        sim_finish(s);
}

Test(sim, samples_after_the_stop_are_dropped)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 60 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 505);
        sim_stop(s, "x");
        sim_to(s, 1000);
        /* 60 is the first, when the core heard of it; then … 500. */
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 45);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_AFTER_STOP), 6);
        sim_finish(s);
}

/* The task is over, then the earlier stop is heard of, then samples come that were taken between. */
Test(sim, samples_come_later_than_an_earlier_stop)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 40 * NS_PER_MS;
        s->sample_latency_ns = 70 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 59975);
        sim_stop(s, "x");
        sim_to(s, 61000);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 5994); /* 40 … 59970 */
        cr_assert_eq(counter_get(COUNTER_SAMPLES_AFTER_STOP), 3);
        sim_finish(s);
}

/* Samples that were taken before the stop and come after it are not lost. */
Test(sim, samples_come_late)
{
        Sim *s = sim_with_task(NULL);

        s->sample_latency_ns = 30 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 305);
        sim_stop(s, "x");
        cr_assert_eq(sim_span(s, "x")->n_done, 0);
        sim_to(s, 500);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 31);
        cr_assert_eq(sim_span(s, "x")->n_done, 1);
        sim_finish(s);
}

/* ---- slots and counts ---- */

Test(sim, slots)
{
        Sim *s = sim_with_task(NULL);

        s->config.profile_max_parallel = 2;
        sim_start(s, 1, "a", "/slow", 100);
        sim_start(s, 1, "b", "/slow", 101);
        sim_to(s, 1);
        sim_start(s, 1, "c", "/slow", 102);
        sim_to(s, 2);
        sim_start(s, 1, "d", "/slow", 103);
        sim_to(s, 500);
        cr_assert_eq(sim_first_task(s)->n_slots, 2);
        cr_assert_eq(sim_first_task(s)->n_pending, 2);
        /* The slot of the first that ends goes to the one that waited longest, with all it has. */
        sim_stop(s, "a");
        cr_assert_eq(sim_first_task(s)->n_slots, 2);
        sim_stop(s, "d");
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_NO_SLOT), 1);
        sim_to(s, 700);
        sim_stop(s, "b");
        sim_stop(s, "c");
        cr_assert_eq(sim_span(s, "a")->n_snapshots, 50);
        cr_assert_eq(sim_span(s, "c")->n_snapshots, 70);
        cr_assert_eq(sim_span(s, "d")->n_snapshots, 0);
        sim_finish(s);
}

Test(sim, sampling_count)
{
        Sim *s = sim_new();

        sim_task(s, sim_attach(s, 1, "a", false), "task", "/slow", 0, 1, 200, 10, 2);
        sim_start(s, 1, "a", "/slow", 100);
        sim_start(s, 1, "b", "/slow", 101);
        sim_start(s, 1, "c", "/slow", 102);
        sim_to(s, 250);
        /* Two are on their way: a third is not even followed. */
        sim_start(s, 1, "d", "/slow", 103);
        cr_assert_eq(s->result, CORE_E_LIMIT);
        cr_assert_eq(sim_first_task(s)->n_pending, 1);
        sim_to(s, 400);
        /* They have delivered: c has no hope. */
        cr_assert_eq(sim_first_task(s)->n_delivered, 2);
        cr_assert_eq(sim_first_task(s)->n_pending, 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_OVER_COUNT), 2);
        cr_assert_eq(sim_active_targets(s), 2);
        sim_finish(s);
}

/* A segment of which nothing could be delivered gives its count back. */
Test(sim, count_of_an_empty_segment)
{
        Sim *s = sim_new();

        sim_task(s, sim_attach(s, 1, "a", false), "task", "/slow", 0, 1, 200, 10, 1);
        s->stack_fails_one_in = 1;
        sim_start(s, 1, "a", "/slow", 100);
        sim_to(s, 300);
        s->stack_fails_one_in = 0;
        sim_stop(s, "a");
        cr_assert_eq(sim_first_task(s)->n_reserved, 1);
        sim_start(s, 1, "early", "/slow", 101);
        cr_assert_eq(s->result, CORE_E_LIMIT);
        sim_to(s, 420);
        cr_assert_eq(sim_first_task(s)->n_reserved, 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_EMPTY), 1);
        sim_start(s, 1, "b", "/slow", 102);
        sim_to(s, 1000);
        cr_assert_eq(sim_first_task(s)->n_delivered, 1);
        sim_finish(s);
}

Test(sim, quota_of_pending)
{
        Sim *s = sim_with_task(NULL);

        s->config.profile_max_pending = 2;
        sim_start(s, 1, "a", "/slow", 100);
        sim_start(s, 1, "b", "/slow", 101);
        sim_start(s, 1, "c", "/slow", 102);
        cr_assert_eq(s->result, CORE_E_LIMIT);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_OVER_PENDING), 1);
        cr_assert_eq(sim_active_targets(s), 2);
        sim_finish(s);
}

Test(sim, cut_at_the_maximum)
{
        Sim *s = sim_with_task(NULL);

        s->config.profile_max_duration_ms = 1000;
        s->config.profile_max_parallel = 1;
        sim_start(s, 1, "a", "/slow", 100);
        sim_to(s, 1300);
        cr_assert_eq(sim_first_task(s)->n_slots, 0);
        cr_assert_eq(sim_active_targets(s), 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_CUT), 1);
        /* Its true end is waited for. */
        sim_to(s, 3000);
        cr_assert_eq(sim_span(s, "a")->n_done, 0);
        sim_stop(s, "a");
        cr_assert_eq(sim_span(s, "a")->n_snapshots, 121);
        cr_assert_eq(sim_span(s, "a")->n_done, 1);
        cr_assert_eq(sim_span(s, "a")->report.end_wall_ms, s->wall_offset_ms + 5003000);
        sim_finish(s);
}

/* ---- continued segments ---- */

Test(sim, continued)
{
        Sim *s = sim_new();

        sim_task(s, sim_attach(s, 1, "a", false), "task", "/slow", 0, 1, 200, 10, 4);
        s->config.profile_max_parallel = 1;
        s->config.profile_max_sub_parallel = 2;
        sim_start(s, 1, "a", "/slow", 100);
        sim_to(s, 100);
        sim_continue(s, 1, "a", "a1", 101);
        sim_continue(s, 1, "a1", "a2", 102);
        sim_continue(s, 1, "a", "a3", 103);
        cr_assert_eq(s->result, CORE_E_LIMIT);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_OVER_SUB), 1);
        sim_to(s, 205);
        /* All at once: the threshold is the request's, and one slot is taken. */
        cr_assert_eq(sim_first_task(s)->n_slots, 1);
        cr_assert_eq(sim_first_task(s)->n_reserved, 3);
        sim_to(s, 400);
        sim_stop(s, "a");
        sim_to(s, 500);
        sim_stop(s, "a1");
        /* Room for a further one; it counts as sampled from the beginning. */
        sim_continue(s, 1, "a2", "a4", 104);
        cr_assert_eq(sim_first_task(s)->n_delivered + sim_first_task(s)->n_reserved, 4);
        sim_start(s, 1, "b", "/slow", 105);
        cr_assert_eq(s->result, CORE_E_LIMIT);
        sim_to(s, 600);
        sim_stop(s, "a2");
        sim_stop(s, "a4");
        cr_assert_eq(sim_span(s, "a")->n_snapshots, 40);
        cr_assert_eq(sim_span(s, "a1")->n_snapshots, 40);
        cr_assert_eq(sim_span(s, "a2")->n_snapshots, 50);
        cr_assert_eq(sim_span(s, "a4")->n_snapshots, 10);
        sim_finish(s);
}

Test(sim, continued_of_a_fast_one)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "a", "/slow", 100);
        sim_continue(s, 1, "a", "a0", 0);
        sim_continue(s, 1, "a", "a1", 101);
        sim_to(s, 150);
        sim_stop(s, "a");
        sim_to(s, 1000);
        cr_assert_eq(sim_active_targets(s), 0);
        cr_assert_eq(sim_first_task(s)->n_pending, 0);
        sim_stop(s, "a1");
        cr_assert_eq(s->result, CORE_E_UNKNOWN);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_FAST), 3);
        sim_continue(s, 1, "a", "a2", 102);
        cr_assert_eq(s->result, CORE_E_UNKNOWN);
        sim_finish(s);
}

/* Its stop is heard before the timer has found the first one slow. */
Test(sim, continued_stops_without_the_timer)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "a", "/slow", 100);
        sim_continue(s, 1, "a", "a1", 101);
        sim_to(s, 199);
        s->now_ns += 5 * NS_PER_MS;
        sim_stop(s, "a1");
        cr_assert_eq(sim_span(s, "a1")->n_snapshots, 20);
        sim_finish(s);
}

/* ---- changes of a span ---- */

Test(sim, rename_to_a_watched_name)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "x", "/other", 100);
        cr_assert_eq(s->result, CORE_E_UNWATCHED);
        sim_rename(s, "x", "/slow");
        cr_assert_eq(s->result, CORE_E_UNKNOWN);
        sim_start(s, 1, "y", "/slow", 101);
        sim_to(s, 100);
        sim_rename(s, "y", "/other");
        cr_assert_eq(sim_active_targets(s), 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_UNDECIDED), 1);
        /* Not followed: the client sends a start with the true time. */
        cr_assert_eq(core_span_start(s->core, sim_instance(s, 1), 1,
                             &(SpanStartEvent){.segment_id = "y",
                                     .operation = "/slow",
                                     .trace_id = "",
                                     .pid = 1,
                                     .uid = SIM_UID,
                                     .tid = 101,
                                     .start_mono_ns = sim_ns(s, 0)},
                             sim_now(s)),
                0);
        sim_to(s, 205);
        cr_assert_eq(sim_first_task(s)->n_slots, 1);
        /* A PROFILING one stays, under the name it has at last. */
        sim_rename(s, "y", "/other");
        sim_to(s, 1000);
        cr_assert_gt(sim_span(s, "y")->n_snapshots, 80);
        sim_finish(s);
}

Test(sim, rename_from_task_to_task)
{
        Instance *i;
        Sim *s = sim_with_task(&i);

        cr_assert_eq(sim_task(s, i, "next", "/next", 60000, 1, 100, 10, 5), 0);
        sim_to(s, 59900);
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 59950);
        sim_rename(s, "x", "/next");
        cr_assert_eq(s->result, 0);
        cr_assert_eq(sim_active_targets(s), 0);
        /* Counts from the task's start. */
        sim_to(s, 60000);
        cr_assert_eq(sim_target(s)->first_mono_ns, sim_ns(s, 60100));
        sim_to(s, 61000);
        sim_stop(s, "x");
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 100);
        cr_assert_str_eq(sim_span(s, "x")->task, "next");
        sim_finish(s);
}

Test(sim, switched)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 25 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 300);
        sim_switch(s, "x", 101);
        sim_to(s, 400);
        sim_switch(s, "x", 0);
        sim_to(s, 450);
        cr_assert_eq(sim_active_targets(s), 0);
        sim_to(s, 600);
        sim_switch(s, "x", 100);
        sim_to(s, 705);
        sim_stop(s, "x");
        sim_to(s, 2000);
        /* 25, 30 … 290; 330 … 390; 630 … 700 */
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 28 + 7 + 8);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_AFTER_STOP), 3 + 3 + 2);
        sim_finish(s);
}

/* The task was over before the core heard that the segment had left its thread. */
Test(sim, switched_before_the_end_of_the_task)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 50 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 59980);
        sim_switch(s, "x", 0);
        sim_to(s, 61000);
        /* 50 … 59970 */
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 5993);
        sim_finish(s);
}

/* Many switches: only so many former targets are remembered. */
Test(sim, switched_all_the_time)
{
        Sim *s = sim_with_task(NULL);

        s->sample_latency_ns = 300 * NS_PER_MS;
        sim_start(s, 1, "x", "/slow", 100);
        for (int n = 1; n < 500; n++) {
                sim_pass_ns(s, 3 * NS_PER_MS);
                sim_switch(s, "x", 100 + n % 7);
        }
        cr_assert_gt(counter_get(COUNTER_SAMPLES_UNCLAIMED), 100);
        sim_finish(s);
}

/* ---- losses ---- */

Test(sim, thread_gone)
{
        Sim *s = sim_with_task(NULL);

        sim_start(s, 1, "pending", "/slow", 100);
        sim_start(s, 1, "x", "/slow", 101);
        sim_to(s, 95);
        sim_thread_end(s, 100);
        sim_to(s, 300);
        sim_thread_end(s, 101);
        sim_to(s, 320);
        cr_assert_eq(sim_first_task(s)->n_slots, 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_GONE), 2);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_FAST), 1);
        sim_to(s, 600);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 31);
        cr_assert_eq(sim_span(s, "x")->n_done, 1);
        sim_finish(s);
}

/* The span's stop was under way when the thread was found to be gone. */
Test(sim, thread_gone_then_stop)
{
        Sim *s = sim_with_task(NULL);

        s->event_latency_ns = 50 * NS_PER_MS;
        sim_start(s, 1, "fast", "/slow", 100);
        sim_start(s, 1, "slow", "/slow", 101);
        sim_to(s, 195);
        sim_stop(s, "fast");
        sim_to(s, 203);
        sim_thread_end(s, 100);
        sim_to(s, 295);
        sim_stop(s, "slow");
        sim_thread_end(s, 101);
        sim_to(s, 1000);
        cr_assert_eq(sim_span(s, "fast")->n_snapshots, 0);
        cr_assert_eq(sim_span(s, "slow")->n_snapshots, 25); /* 50 … 290 */
        cr_assert_eq(sim_span(s, "slow")->report.end_wall_ms, s->wall_offset_ms + 5000295);
        cr_assert(sim_span(s, "slow")->report.error);
        sim_finish(s);
}

Test(sim, client_gone)
{
        Sim *s = sim_with_task(NULL);

        sim_attach(s, 2, "a", false);
        sim_start(s, 1, "pending", "/slow", 100);
        sim_start(s, 2, "other", "/slow", 102);
        sim_start(s, 1, "x", "/slow", 101);
        sim_to(s, 150);
        sim_stop(s, "pending");
        sim_start(s, 1, "late", "/slow", 103);
        sim_to(s, 305);
        sim_client_gone(s, 1);
        sim_detach(s, 1);
        cr_assert_eq(sim_first_task(s)->n_slots, 1);
        cr_assert_eq(sim_active_targets(s), 1);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 31);
        /* A client that connects again cannot make its sequence begin again. */
        sim_to(s, 1000);
        cr_assert_eq(sim_span(s, "x")->n_done, 1);
        cr_assert_eq(core_span_start(s->core, sim_instance(s, 2), 2,
                             &(SpanStartEvent){.segment_id = "x",
                                     .operation = "/slow",
                                     .trace_id = "",
                                     .pid = 1,
                                     .uid = SIM_UID,
                                     .tid = 101,
                                     .start_mono_ns = sim_ns(s, 0)},
                             sim_now(s)),
                CORE_E_DUPLICATE);
        s->n_starts[CORE_E_DUPLICATE]++;
        sim_finish(s);
}

Test(sim, sink_refuses)
{
        Sim *s = sim_with_task(NULL);

        s->refuse_after = 10;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 1000);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 10);
        cr_assert_eq(s->n_refused, 1);
        cr_assert_eq(sim_active_targets(s), 0);
        cr_assert_eq(sim_first_task(s)->n_slots, 0);
        sim_stop(s, "x");
        cr_assert_eq(sim_span(s, "x")->n_done, 1);
        sim_finish(s);
}

/* One of which nothing was taken has no numbers, is no profiled one, and leaves its count to
 * another. */
Test(sim, sink_refuses_the_first)
{
        Sim *s = sim_with_task(NULL);

        s->refuse_after = 0;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 1000);
        sim_stop(s, "x");
        cr_assert_eq(s->n_refused, 1);
        cr_assert_eq(sim_span(s, "x")->n_done, 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_EMPTY), 1);
        cr_assert_eq(sim_first_task(s)->n_delivered, 0);
        s->refuse_after = UINT32_MAX;
        sim_start(s, 1, "y", "/slow", 100);
        sim_to(s, 2000);
        sim_stop(s, "y");
        cr_assert_eq(sim_span(s, "y")->n_snapshots, 100);
        sim_finish(s);
}

Test(sim, failed_stacks_burn_no_number)
{
        Sim *s = sim_with_task(NULL);

        s->stack_fails_one_in = 3;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 3000);
        sim_stop(s, "x");
        cr_assert_gt(counter_get(COUNTER_SAMPLES_NO_STACK), 50);
        cr_assert_eq(sim_span(s, "x")->n_snapshots + counter_get(COUNTER_SAMPLES_NO_STACK), 300);
        sim_finish(s);
}

Test(sim, stacks_come_late_or_never)
{
        Sim *s = sim_with_task(NULL);

        s->stack_latency_ns = 2 * NS_PER_S;
        sim_start(s, 1, "x", "/slow", 100);
        sim_to(s, 1005);
        s->stacks_never = true;
        sim_to(s, 1105);
        s->stacks_never = false;
        sim_to(s, 1505);
        sim_stop(s, "x");
        sim_to(s, 30000);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 101);
        cr_assert_eq(sim_span(s, "x")->n_done, 0);
        sim_to(s, 33000);
        cr_assert_eq(sim_span(s, "x")->n_snapshots, 141);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_NO_STACK), 10);
        cr_assert_eq(sim_span(s, "x")->n_done, 1);
        sim_finish(s);
}

/* ---- held samples ---- */

Test(sim, held_samples_are_bounded)
{
        Sim *s = sim_new();

        sim_task(s, sim_attach(s, 1, "a", false), "task", "/slow", 0, 1, 10000, 10, 5);
        s->config.profile_max_pending_samples = 100;
        s->config.profile_settle_ms = 0;
        s->sleeping_from_tid = 1000;
        sim_start(s, 1, "runs", "/slow", 100);
        sim_start(s, 1, "sleeps", "/slow", 1000);
        sim_to(s, 10100);
        sim_stop(s, "runs");
        sim_stop(s, "sleeps");
        /* The newest hundred at the delivery; of the one that sleeps, its first and its last. */
        cr_assert_eq(sim_span(s, "runs")->first_wall_ms, s->wall_offset_ms + 5009020);
        cr_assert_eq(sim_span(s, "sleeps")->first_wall_ms, s->wall_offset_ms + 5000000);
        cr_assert_eq(sim_span(s, "sleeps")->last_wall_ms, s->wall_offset_ms + 5010090);
        sim_finish(s);
}

/* Where a thread's time went: by its counters, over all the threads that carried the segment. */
Test(sim, times_of_threads)
{
        Sim *s = sim_with_task(NULL);
        const SegmentReport *r;
        TargetId first, second;

        sim_start(s, 1, "x", "/slow", 100);
        first = container_of(sim_target(s), SimTarget, spec)->id;
        core_thread_times(
                s->core, first, sim_ns(s, 0), (ThreadTimes){5000 * NS_PER_MS, 70 * NS_PER_MS});
        sim_to(s, 300);
        /* An estimate that proves too high is taken back. */
        core_thread_times(
                s->core, first, sim_ns(s, 200), (ThreadTimes){5055 * NS_PER_MS, 70 * NS_PER_MS});
        core_thread_times(
                s->core, first, sim_ns(s, 300), (ThreadTimes){5050 * NS_PER_MS, 90 * NS_PER_MS});
        /* Older than what is known. */
        core_thread_times(
                s->core, first, sim_ns(s, 250), (ThreadTimes){9999 * NS_PER_MS, 99 * NS_PER_MS});
        sim_switch(s, "x", 200);
        second = container_of(sim_target(s), SimTarget, spec)->id;
        cr_assert_neq(first, second);
        core_thread_times(s->core, second, sim_ns(s, 300), (ThreadTimes){1 * NS_PER_MS, 0});
        sim_to(s, 400);
        sim_stop(s, "x");
        /* The last word, taken a little after the stop. */
        core_thread_times(
                s->core, second, sim_ns(s, 405), (ThreadTimes){41 * NS_PER_MS, 5 * NS_PER_MS});
        sim_to(s, 1000);
        r = &sim_span(s, "x")->report;
        cr_assert_eq(r->times.on_cpu_ns, 90 * NS_PER_MS);
        cr_assert_eq(r->times.run_queue_ns, 25 * NS_PER_MS);
        cr_assert_eq(r->times.blocked_ns, 285 * NS_PER_MS);
        core_thread_times(s->core, second, sim_ns(s, 999), (ThreadTimes){0, 0});
        sim_finish(s);
}

/* An estimate that was too high at first makes no sum wrap. */
Test(sim, times_that_seem_negative)
{
        Sim *s = sim_with_task(NULL);
        const SegmentReport *r;
        TargetId id;

        sim_start(s, 1, "x", "/slow", 100);
        id = container_of(sim_target(s), SimTarget, spec)->id;
        core_thread_times(
                s->core, id, sim_ns(s, 0), (ThreadTimes){100 * NS_PER_MS, 50 * NS_PER_MS});
        sim_to(s, 300);
        sim_stop(s, "x");
        core_thread_times(
                s->core, id, sim_ns(s, 300), (ThreadTimes){70 * NS_PER_MS, 10 * NS_PER_MS});
        sim_to(s, 1000);
        r = &sim_span(s, "x")->report;
        cr_assert_eq(r->times.on_cpu_ns, 0);
        cr_assert_eq(r->times.run_queue_ns, 0);
        cr_assert_leq(r->times.blocked_ns, 400 * NS_PER_MS);
        sim_finish(s);
}
