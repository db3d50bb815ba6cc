/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

/* Anything, in any order. Nothing is expected of a single event; what must hold always is checked
 * by the sim after each move, and at the end. SIM_SEED in the environment is the first seed. */

#define N_EVENTS 4000
#define N_SEEDS  24
#define N_LIVE   40

typedef struct Run {
        Sim *sim;
        uint64_t next_client;
        SimSpan *live[N_LIVE];
        unsigned n_spans, n_tids, n_tasks;
} Run;

static const char *const operations[] = {"/a", "/b", "/c", "/never"};

static const char *any_operation(Run *r)
{
        return operations[sim_random(r->sim, 4)];
}

/* Mostly those that run; some sleep. */
static int new_tid(Run *r)
{
        int tid = 10 + r->n_tids++;

        return sim_random(r->sim, 3) == 0 ? 30000 + tid : tid;
}

static uint64_t any_client(Run *r)
{
        return r->sim->clients[sim_random(r->sim, r->sim->n_clients)].id;
}

static SimSpan **free_place(Run *r)
{
        SimSpan **p = &r->live[sim_random(r->sim, N_LIVE)];

        /* What was cut off with its client. */
        if (*p && !(*p)->live)
                *p = NULL;
        return *p ? NULL : p;
}

static SimSpan *live_span(Run *r)
{
        SimSpan *span = r->live[sim_random(r->sim, N_LIVE)];

        return span && span->live ? span : NULL;
}

static void attach(Run *r)
{
        char name[8];

        snprintf(name, sizeof(name), "i%d", (int)sim_random(r->sim, 2));
        sim_attach(r->sim, r->next_client++, name, sim_random(r->sim, 2));
}

static void client_lost(Run *r)
{
        Sim *s = r->sim;
        uint64_t client = any_client(r);

        /* It is gone before it is detached: both happen when the core hears of it. */
        sim_client_gone(s, client);
        sim_pass_ns(s, s->event_latency_ns);
        sim_detach(s, client);
        attach(r);
}

static void task_comes(Run *r)
{
        static const int thresholds[] = {0, 1, 50, 200, 1000};
        static const int periods[] = {10, 10, 20, 100};
        Sim *s = r->sim;
        Instance *i = sim_instance(s, any_client(r));
        int64_t wall_ms = sim_now(s).wall_ms - (s->wall_offset_ms + 5000000);
        int64_t start_ms = wall_ms - 70000 + (int64_t)sim_random(s, 150000);
        char id[24];

        if (s->n_tasks == SIM_TASKS)
                return;
        snprintf(id, sizeof(id), "task%u", r->n_tasks++);
        sim_task(s, i, id, operations[sim_random(s, 3)], start_ms, 1 + (int)sim_random(s, 2),
                thresholds[sim_random(s, 5)], periods[sim_random(s, 4)], 1 + (int)sim_random(s, 9));
}

static void span_begins(Run *r)
{
        SimSpan **place = free_place(r), *parent = live_span(r);
        char id[24];

        if (!place)
                return;
        snprintf(id, sizeof(id), "span%u", r->n_spans++);
        if (parent && sim_random(r->sim, 4) == 0)
                *place = sim_continue(r->sim, parent->client, parent->id, id, new_tid(r));
        else
                *place = sim_start(r->sim, any_client(r), id, any_operation(r), new_tid(r));
}

static void span_changes(Run *r)
{
        SimSpan *span = live_span(r);

        if (!span)
                return;
        switch (sim_random(r->sim, 10)) {
        case 0:
                sim_rename(r->sim, span->id, any_operation(r));
                break;
        case 1:
                if (sim_random(r->sim, 3) == 0)
                        sim_park(r->sim, span->id);
                else
                        sim_switch(r->sim, span->id, sim_random(r->sim, 3) ? new_tid(r) : 0);
                break;
        case 2:
                if (span->tid)
                        sim_thread_end(r->sim, span->tid);
                sim_stop(r->sim, span->id);
                break;
        default:
                sim_stop(r->sim, span->id);
                break;
        }
}

static void move(Run *r)
{
        Sim *s = r->sim;
        uint64_t dice = sim_random(s, 1000);

        if (dice < 3)
                client_lost(r);
        else if (dice < 20)
                task_comes(r);
        else if (dice < 23)
                s->wall_offset_ms += (int64_t)sim_random(s, 200000) - 100000;
        else if (dice < 25)
                s->stacks_never = !s->stacks_never && sim_random(s, 10) == 0;
        else if (dice < 600)
                span_begins(r);
        else
                span_changes(r);
        sim_pass_ns(
                s, sim_random(s, 4) ? sim_random(s, 40) * NS_PER_MS : sim_random(s, 5 * NS_PER_MS));
}

static void run(uint64_t seed)
{
        Run r = {.sim = sim_new(), .next_client = 1};
        Sim *s = r.sim;

        printf("seed %llu\n", (unsigned long long)seed);
        fflush(stdout);
        s->random = seed * 0x9e3779b97f4a7c15ULL;
        s->sleeping_from_tid = 30000;
        s->run_max = 1 + sim_random(s, 12);
        s->event_latency_ns = sim_random(s, 3) * 40 * NS_PER_MS;
        s->sample_latency_ns = sim_random(s, 3) * 30 * NS_PER_MS;
        s->stack_latency_ns = sim_random(s, 2) * sim_random(s, 300) * NS_PER_MS;
        s->stack_fails_one_in = sim_random(s, 2) * (2 + sim_random(s, 100));
        s->refuse_one_in = sim_random(s, 2) * (2 + sim_random(s, sim_random(s, 2) ? 10 : 1000));
        s->config.profile_max_parallel = 1 + sim_random(s, 5);
        s->config.profile_max_sub_parallel = sim_random(s, 3);
        s->config.profile_max_pending = 3 + sim_random(s, 40);
        s->config.profile_max_pending_samples = sim_random(s, 2) ? 3000 : 1 + sim_random(s, 50);
        s->config.profile_max_duration_ms = sim_random(s, 2) ? 600000 : 1000;
        for (int n = 0; n < 5; n++)
                attach(&r);
        for (unsigned n = 0; n < N_EVENTS; n++)
                move(&r);
        s->stacks_never = false;
        sim_finish(s);
}

ParameterizedTestParameters(sim, random)
{
        static uint64_t seeds[N_SEEDS];
        const char *first = getenv("SIM_SEED");

        for (unsigned n = 0; n < N_SEEDS; n++)
                seeds[n] = (first ? strtoull(first, NULL, 10) : 1) + n;
        return cr_make_param_array(uint64_t, seeds, N_SEEDS);
}

ParameterizedTest(const uint64_t *seed, sim, random)
{
        run(*seed);
}
