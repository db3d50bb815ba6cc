/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <string.h>

#include "core/counter.h"
#include "world.h"

/* One call fails, at a certain point of it, and the backend is away for 20 s from then on. */

typedef struct Outage {
        char method[32];
        unsigned n_before;
        Fate fate;
        Redelivery redelivery;
} Outage;

static const char *const methods[] = {"getProfileTaskCommands", "collectSnapshot",
        "TraceSegmentReportService", "reportTaskFinish"};

enum {
        N_METHODS = sizeof(methods) / sizeof(*methods),
        N_OUTAGES = N_METHODS * (N_FATES - 1) * 2,
};

ParameterizedTestParameters(sim_outage, at_any_point)
{
        static Outage outages[N_OUTAGES];
        size_t n = 0;

        for (size_t m = 0; m < N_METHODS; m++)
                for (Fate fate = FATE_GOOD + 1; fate < N_FATES; fate++)
                        for (unsigned later = 0; later < 2; later++) {
                                Outage *o = &outages[n++];

                                /* Text: a pointer means nothing to the process of the test. */
                                snprintf(o->method, sizeof(o->method), "%s", methods[m]);
                                o->n_before = later * 3;
                                o->fate = fate;
                                o->redelivery = (n / 2) % 2 ? REDELIVERY_AT_LEAST_ONCE
                                                            : REDELIVERY_AT_MOST_ONCE;
                        }
        return cr_make_param_array(Outage, outages, n);
}

static void begin(void)
{
        world_begin(7);
        w.calm = true;
        w.run_ms = 220 * 1000;
        w.settle_ms = 60 * 1000;
        for (unsigned i = 0; i < N_TASKS; i++) {
                w.tasks[i].minutes = 1;
                w.tasks[i].create_ms = world_now().wall_ms + 5000 + i * 70000;
        }
}

ParameterizedTest(const Outage *o, sim_outage, at_any_point)
{
        bool sent = o->fate != FATE_NOT_SENT, snapshots = !strcmp(o->method, "collectSnapshot");

        begin();
        w.config.oap_redelivery = o->redelivery;
        w.fault.method = o->method;
        w.fault.n_before = o->n_before;
        w.fault.fate = o->fate;
        world_run(0);
        cr_assert_eq(w.fault.fate, FATE_GOOD, "it did not come to that");
        /* What was under way together with it may be lost, too. */
        if (o->redelivery == REDELIVERY_AT_LEAST_ONCE)
                cr_assert_eq(w.n_holes, 0);
        if (snapshots)
                cr_assert_eq(counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS) > 0, sent);
        world_end();
}

/* Nothing is taken for a while, and there is no disk: what finds no room leaves no hole in the numbers. */
Test(sim_outage, full_buffer)
{
        begin();
        w.config.oap_buffer_bytes = 16 << 10;
        w.disk_fails = true;
        w.fault.method = "collectSnapshot";
        w.fault.n_before = 3;
        w.fault.fate = FATE_NOT_SENT;
        world_run(0);
        cr_assert_gt(counter_get(COUNTER_SNAPSHOTS_DROPPED), 0);
        cr_assert_eq(w.n_holes, 0);
        w.disk_fails = false;
        world_end();
}
