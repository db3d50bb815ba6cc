/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "core/counter.h"
#include "world.h"

/* The daemon, its disk and its backend fail at random. */

#define N_SEEDS 16

ParameterizedTestParameters(sim_restart, killed)
{
        static uint64_t seeds[N_SEEDS];

        for (uint64_t i = 0; i < N_SEEDS; i++)
                seeds[i] = i + 1;
        return cr_make_param_array(uint64_t, seeds, N_SEEDS);
}

/* The daemon is killed each 20 s or so. */
ParameterizedTest(const uint64_t *seed, sim_restart, killed)
{
        world_begin(*seed);
        world_run(2000);
        world_end();
}

/* All in memory, where there is little: thinned, then refused, and in sequence all the same. */
Test(sim_restart, without_a_disk)
{
        world_begin(5);
        w.disk_fails = true;
        w.config.oap_buffer_bytes = 16 << 10;
        world_run(0);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT), 0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_THINNED), 0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_DROPPED), 0);
        world_end();
}

/* Nothing is lost for it but records. */
Test(sim_restart, the_disk_fails_now_and_then)
{
        world_begin(97);
        w.disk_fails_now_and_then = true;
        world_run(0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_KEPT), 0);
        cr_expect_gt(counter_get(COUNTER_STORE_RECORDS_LOST), 0);
        world_end();
}

/* The same ones under the same numbers, and none is missing. */
Test(sim_restart, at_least_once)
{
        world_begin(96);
        w.config.oap_redelivery = REDELIVERY_AT_LEAST_ONCE;
        world_run(0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS), 0);
        cr_expect_eq(w.n_holes, 0);
        cr_expect_eq(w.n_received,
                counter_get(COUNTER_SNAPSHOTS_QUEUED) - counter_get(COUNTER_SNAPSHOTS_THINNED));
        world_end();
}

ParameterizedTestParameters(sim_restart, at_least_once_and_killed)
{
        static uint64_t seeds[N_SEEDS / 2];

        for (uint64_t i = 0; i < N_SEEDS / 2; i++)
                seeds[i] = 95 + i;
        return cr_make_param_array(uint64_t, seeds, N_SEEDS / 2);
}

ParameterizedTest(const uint64_t *seed, sim_restart, at_least_once_and_killed)
{
        world_begin(*seed);
        w.config.oap_redelivery = REDELIVERY_AT_LEAST_ONCE;
        world_run(2000);
        cr_expect_eq(w.n_holes, 0);
        world_end();
}

Test(sim_restart, outages_alone)
{
        world_begin(99);
        world_run(0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_KEPT), 0);
        world_end();
}

/* What is on disk waits there; the backend is not asked again and again. */
Test(sim_restart, the_backend_loses_profiling)
{
        uint64_t n_kept, n_refused;

        world_begin(94);
        while (session_status(w.session).n_kept < 1500) {
                cr_assert_lt(elapsed_ms(), RUN_MS);
                world_tick();
                /* Tasks must come. */
                w.outage = elapsed_ms() > 30000;
        }
        w.outage = false;
        n_kept = session_status(w.session).n_kept;
        while (session_status(w.session).n_kept >= n_kept)
                world_tick();
        w.unsupported = "collectSnapshot";
        while (w.n_refused == 0)
                world_tick();
        n_kept = session_status(w.session).n_kept;
        n_refused = w.n_refused;
        for (int i = 0; i < 6000; i++)
                world_tick();
        cr_expect_leq(w.n_refused, n_refused + 1);
        cr_expect_geq(session_status(w.session).n_kept, n_kept);
        cr_expect_gt(n_kept, 0);
        world_free();
}

static void count_report(void *userdata, const KeptSegment *k, size_t n_snapshots)
{
        if (k->report_size > 0)
                ++*(unsigned *)userdata;
}

/* Those that nobody takes do not stay on disk for that. */
Test(sim_restart, a_backend_without_trace_segments)
{
        unsigned n_reports = 0;

        world_begin(93);
        w.unsupported = "TraceSegmentReportService";
        world_run(0);
        cr_expect_gt(counter_get(COUNTER_TRACE_SEGMENTS_LOST), 10);
        cr_assert_eq(w.n_ops, 0);
        cr_assert_eq(database_segments(w.database, count_report, &n_reports), 0);
        cr_expect_eq(n_reports, 0, "%u", n_reports);
        world_end();
}
