/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "util/log.h"
#include "world.h"

World w;

uint64_t random_n(uint64_t n)
{
        w.random ^= w.random << 13;
        w.random ^= w.random >> 7;
        w.random ^= w.random << 17;
        return w.random % n;
}

uint32_t random_u32(void)
{
        return (uint32_t)random_n(UINT32_MAX);
}

Now world_now(void)
{
        return (Now){
                .mono_ns = w.now_ns, .wall_ms = (int64_t)(w.now_ns / NS_PER_MS) + w.wall_offset_ms};
}

uint64_t elapsed_ms(void)
{
        return (w.now_ns - w.start_ns) / NS_PER_MS;
}

/* ---- the programs ---- */

unsigned app_index(const char *name)
{
        cr_assert(name[0] == 'a' && name[1] >= '0' && name[1] < '0' + N_APPS, "%s", name);
        return (unsigned)(name[1] - '0');
}

static void span_announce(App *a, unsigned thread)
{
        const SimSpan *s = &a->spans[thread];
        SpanStartEvent event = {.segment_id = s->id,
                .operation = "/slow",
                .trace_id = "",
                .pid = 100 + (pid_t)app_index(a->name),
                .tid = 1000 + (pid_t)(app_index(a->name) * N_THREADS + thread),
                .start_mono_ns = s->start_ns};

        if (a->instance && s->live)
                core_span_start(w.core, a->instance, a->client, &event, world_now());
}

static void app_connect(App *a)
{
        cr_assert_eq(
                core_instance_attach(w.core, &a->instance, "svc", a->name, false, world_now()), 0);
        a->client = ++w.n_clients;
        session_instance_added(w.session, a->instance, world_now());
        for (unsigned i = 0; i < N_THREADS; i++)
                span_announce(a, i);
}

static void app_step(App *a)
{
        if (w.session && !a->instance && a->connect_ns <= w.now_ns)
                app_connect(a);
        for (unsigned i = 0; i < N_THREADS; i++) {
                SimSpan *s = &a->spans[i];

                if (s->live && s->end_ns <= w.now_ns) {
                        s->live = false;
                        if (a->instance)
                                core_span_stop(w.core, a->client, s->id, s->end_ns,
                                        random_n(5) == 0, world_now());
                } else if (!s->live && random_n(20) == 0) {
                        uint64_t ms = random_n(3) ? 20 + random_n(300) : 1000 + random_n(60000);

                        *s = (SimSpan){.live = true,
                                .start_ns = w.now_ns,
                                .end_ns = w.now_ns + ms * NS_PER_MS};
                        snprintf(s->id, sizeof(s->id), "%s.%llu", a->name,
                                (unsigned long long)++w.n_spans);
                        span_announce(a, i);
                }
        }
}

static void sampler_step(void)
{
        Now now = world_now();

        for (unsigned i = 0; i < w.n_targets; i++)
                if (w.targets[i].due_ns <= w.now_ns) {
                        w.targets[i].due_ns += w.targets[i].period_ns;
                        core_samples(w.core, w.targets[i].id,
                                &(SampleRun){.mono_ns = w.now_ns,
                                        .wall_ns = (uint64_t)now.wall_ms * NS_PER_MS,
                                        .n = 1,
                                        .stack = w.stacks[random_n(4)]},
                                (ThreadTimes){0}, now);
                }
}

void world_tick(void)
{
        w.now_ns += TICK_NS;
        for (unsigned i = 0; i < N_APPS; i++)
                app_step(&w.apps[i]);
        if (!w.session)
                return;
        sampler_step();
        if (core_next_mono_ns(w.core, world_now()) <= w.now_ns)
                core_step(w.core, world_now());
        session_dispatch(w.session, world_now());
        disk_step();
        if (session_next_mono_ns(w.session) <= w.now_ns)
                session_step(w.session, world_now());
}

/* ---- the story ---- */

void world_begin(uint64_t seed)
{
        char *error;

        log_set_max_level(-1);
        w.random = seed * 0x9e3779b97f4a7c15 + 1;
        w.run_ms = RUN_MS;
        w.settle_ms = SETTLE_MS;
        w.now_ns = w.start_ns = mono_now_ns();
        w.wall_offset_ms = 1700000000000LL - (int64_t)(w.now_ns / NS_PER_MS);
        cr_assert_eq(config_init_default(&w.config, &error), 0);
        w.config.oap_buffer_bytes = 1 << 20;
        for (unsigned i = 0; i < 4; i++) {
                w.stacks[i] = stack_new();
                cr_assert_eq(stack_set_ready(w.stacks[i], 2,
                                     (const char *const[]){
                                             "main", (const char *[]){"a", "b", "c", "d"}[i]}),
                        0);
        }
        for (unsigned i = 0; i < N_APPS; i++)
                snprintf(w.apps[i].name, sizeof(w.apps[i].name), "a%u", i);
        w.tasks[0] = (SimTask){.minutes = 4, .count = 9, .create_ms = 5000};
        w.tasks[1] = (SimTask){.minutes = 1, .count = 3, .create_ms = 300000};
        w.tasks[2] = (SimTask){.minutes = 10, .count = 9, .create_ms = 420000};
        for (unsigned i = 0; i < N_TASKS; i++) {
                snprintf(w.tasks[i].id, sizeof(w.tasks[i].id), "task-%u", i);
                w.tasks[i].create_ms += world_now().wall_ms;
        }
        snprintf(w.path, sizeof(w.path), "/tmp/sim-restart.XXXXXX");
        close(mkstemp(w.path));
        cr_assert_eq(database_open(&w.database, &database_spool, w.path, 64 << 20, &error), 0);
        daemon_start();
}

/* The monotonic clock stands still meanwhile, and so does all that runs here. */
static void world_suspend(uint64_t ms)
{
        w.wall_offset_ms += (int64_t)ms;
        network_break();
}

static void world_chance(void)
{
        /* Away for 20 s now and then, for a moment more often. */
        if (w.outage ? random_n(2000) == 0 : random_n(6000) == 0)
                w.outage = !w.outage;
        if (w.disk_fails_now_and_then && random_n(1000) == 0)
                w.disk_fails = !w.disk_fails;
        if (random_n(30000) == 0)
                w.wall_offset_ms += (int64_t)random_n(10000) - 5000;
        if (random_n(60000) == 0)
                world_suspend(1000 + random_n(100000));
}

void world_run(unsigned kill_one_in)
{
        while (elapsed_ms() < w.run_ms) {
                world_tick();
                if (!w.calm)
                        world_chance();
                else if (w.outage_end_ns <= w.now_ns)
                        w.outage = false;
                if (w.session && kill_one_in && random_n(kill_one_in) == 0)
                        daemon_kill();
                else if (!w.session && random_n(100) == 0)
                        daemon_start();
        }
        w.outage = false;
        w.disk_fails = w.disk_fails && !w.disk_fails_now_and_then;
        if (!w.session)
                daemon_start();
        while (elapsed_ms() < w.run_ms + w.settle_ms)
                world_tick();
}

static uint64_t sum(const CounterId *ids, size_t n)
{
        uint64_t total = 0;

        for (size_t i = 0; i < n; i++)
                total += counter_get(ids[i]);
        return total;
}
#define SUM(...) \
        sum((CounterId[]){__VA_ARGS__}, sizeof((CounterId[]){__VA_ARGS__}) / sizeof(CounterId))

void world_free(void)
{
        daemon_kill();
        for (unsigned i = 0; i < 4; i++) {
                cr_assert_eq(w.stacks[i]->n_refs, 1);
                stack_unref(w.stacks[i]);
        }
        database_close(w.database);
        unlink(w.path);
        config_deinit(&w.config);
}

void world_end(void)
{
        SessionStatus status = session_status(w.session);
        unsigned n_unreported = 0;
        uint64_t n_ambiguous = counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS) - w.n_ambiguous_kills;

        printf("%llu received of %u segments, %llu holes, %llu ambiguous, %llu kept, %llu kills, "
               "%llu resumed\n",
                (unsigned long long)w.n_received, w.n_segments, (unsigned long long)w.n_holes,
                (unsigned long long)n_ambiguous,
                (unsigned long long)counter_get(COUNTER_SNAPSHOTS_KEPT),
                (unsigned long long)w.n_kills,
                (unsigned long long)counter_get(COUNTER_SEGMENTS_RESUMED));
        for (unsigned i = 0; i < w.n_segments; i++)
                n_unreported += w.segments[i].n_reports == 0;
        cr_assert_eq(status.n_buffered, 0, "%llu are still buffered",
                (unsigned long long)status.n_buffered);
        cr_assert_geq(w.n_received, 1000);
        /* Nothing is missing in between but what a call that failed midway has taken along. */
        cr_assert_leq(w.n_holes, n_ambiguous);
        for (unsigned t = 0; t < N_TASKS; t++)
                for (unsigned a = 0; a < N_APPS; a++)
                        cr_assert_geq(w.tasks[t].n_finishes[a], 1, "task %u of a%u", t, a);
        if (w.n_kills == 0) {
                cr_assert_leq(n_unreported, counter_get(COUNTER_TRACE_SEGMENTS_LOST));
                uint64_t n_given_up = w.config.oap_redelivery == REDELIVERY_AT_MOST_ONCE
                                              ? counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS)
                                              : 0;

                cr_assert_eq(counter_get(COUNTER_SNAPSHOTS_QUEUED),
                        n_given_up + SUM(COUNTER_SNAPSHOTS_SENT, COUNTER_SNAPSHOTS_THINNED,
                                             COUNTER_SNAPSHOTS_KEPT_OVER,
                                             COUNTER_SNAPSHOTS_KEPT_LOST));
                cr_assert_eq(counter_get(COUNTER_SNAPSHOTS_KEPT_LOST), 0);
                cr_assert_eq(
                        w.n_reports, SUM(COUNTER_TRACE_SEGMENTS_SENT, COUNTER_TRACE_SEGMENTS_LOST));
        }
        world_free();
}
