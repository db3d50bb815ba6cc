/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "core/counter.h"
#include "sim.h"

/* Much at once. */

/* The longest task there is, with as many requests as it may have, of which one takes longer than
 * may be profiled; the others sleep. */
Test(sim, fifteen_minutes)
{
        Sim *s = sim_new();
        Instance *i = sim_attach(s, 1, "a", false);
        char id[8];

        s->sleeping_from_tid = 101;
        s->run_max = 100;
        s->config.profile_max_parallel = 9;
        cr_assert_eq(sim_task(s, i, "task", "/slow", 0, 15, 0, 10, 9), 0);
        sim_start(s, 1, "long", "/slow", 100);
        for (int n = 1; n < 12; n++) {
                snprintf(id, sizeof(id), "s%d", n);
                sim_start(s, 1, id, "/slow", 100 + n);
                sim_to(s, (uint64_t)n * 70000);
                sim_stop(s, id);
        }
        sim_to(s, 901000);
        cr_assert_eq(sim_find_task(s, "task")->n_finished, 1);
        /* Both at its begin and 600 s after it. */
        cr_assert_eq(sim_span(s, "long")->n_snapshots, 60001);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_CUT), 1);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_PROFILED), 9);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_OVER_COUNT), 3);
        sim_finish(s);
}

#define N_INSTANCES 12
#define N_TASKS     20
#define N_SPANS     20

/* Tasks for everything, of which most do not go together, more requests than are taken, and a
 * symbolizer that does not keep up with what they have. */
Test(sim, storm)
{
        Sim *s = sim_new();
        unsigned n_accepted = 0, n_tids = 0;
        char id[24], operation[24];

        s->stack_latency_ns = 20 * NS_PER_S;
        s->event_latency_ns = 30 * NS_PER_MS;
        s->config.profile_max_pending = 15;
        for (unsigned n = 0; n < N_INSTANCES; n++) {
                snprintf(id, sizeof(id), "i%u", n);
                sim_attach(s, n, id, n % 2);
        }
        for (unsigned t = 0; t < N_TASKS; t++)
                for (unsigned n = 0; n < N_INSTANCES; n++) {
                        snprintf(id, sizeof(id), "t%u.%u", n, t);
                        snprintf(operation, sizeof(operation), "/%u", t);
                        n_accepted += sim_task(s, sim_instance(s, n), id, operation,
                                              (int64_t)t * 20000, 1, 100, 50, 5) == 0;
                }
        cr_assert_eq(n_accepted + counter_get(COUNTER_TASKS_REJECTED), N_INSTANCES * N_TASKS);
        cr_assert_gt(n_accepted, N_INSTANCES * 5);
        for (unsigned round = 0; round < 25; round++) {
                for (unsigned n = 0; n < N_INSTANCES; n++)
                        for (unsigned k = 0; k < N_SPANS; k++) {
                                snprintf(id, sizeof(id), "%u.%u.%u", round, n, k);
                                /* Of the task that runs, if one does. */
                                snprintf(operation, sizeof(operation), "/%u",
                                        (unsigned)(sim_ms(s) / 60000 * 3));
                                sim_start(s, n, id, operation, (int)(100 + n_tids++));
                        }
                sim_pass_ns(s, (50 + sim_random(s, 1000)) * NS_PER_MS);
                for (unsigned n = 0; n < N_INSTANCES; n++)
                        for (unsigned k = 0; k < N_SPANS; k++) {
                                snprintf(id, sizeof(id), "%u.%u.%u", round, n, k);
                                sim_stop(s, id);
                        }
                sim_pass_ns(s, 15 * NS_PER_S);
        }
        cr_assert_gt(counter_get(COUNTER_SEGMENTS_PROFILED), n_accepted);
        cr_assert_gt(counter_get(COUNTER_SEGMENTS_OVER_PENDING), 100);
        sim_finish(s);
}
