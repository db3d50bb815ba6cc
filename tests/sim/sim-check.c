/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "core/counter.h"
#include "sim.h"

#define PERIOD_MIN_MS 10

/* ---- at any moment ---- */

typedef struct Tally {
        const Task *task;
        unsigned n_pending;
} Tally;

static void tally(void *userdata, const SegmentInfo *info)
{
        Tally *t = userdata;

        if (strcmp(info->task_id, t->task->id) == 0 && info->state == SEGMENT_PENDING)
                t->n_pending++;
}

void sim_check(Sim *s)
{
        for (Instance *i = core_instance_first(s->core); i; i = core_instance_next(s->core, i)) {
                unsigned n_running = 0;
                Task *task;

                list_for_each (task, &i->tasks, link) {
                        Tally t = {.task = task};

                        core_segments(s->core, sim_now(s), tally, &t);
                        cr_assert_eq(task->n_pending, t.n_pending);
                        cr_assert_leq(task->n_slots, s->config.profile_max_parallel);
                        cr_assert_leq(
                                task->n_delivered + task->n_reserved, task->max_sampling_count);
                        cr_assert_leq(task->n_slots, task->n_reserved + task->n_delivered);
                        n_running += task->state == TASK_RUNNING;
                }
                cr_assert_leq(n_running, 1);
                cr_assert_leq(i->n_segments, s->config.profile_max_pending);
        }
}

/* ---- at the end ---- */

static uint64_t sum(const CounterId *ids, size_t n)
{
        uint64_t total = 0;

        for (size_t i = 0; i < n; i++)
                total += counter_get(ids[i]);
        return total;
}

#define SUM(...)                              \
        sum((const CounterId[]){__VA_ARGS__}, \
                sizeof((const CounterId[]){__VA_ARGS__}) / sizeof(CounterId))

static void check_span(Sim *s, const SimSpan *span)
{
        uint64_t n_valid = span->n_valid;
        const SimTask *task;

        cr_assert_eq(span->n_done, span->n_snapshots > 0, "%s has %u snapshots and %u ends",
                span->id, span->n_snapshots, span->n_done);
        for (unsigned i = 0; i < span->n_stretches; i++) {
                const SimStretch *st = &span->stretches[i];
                uint64_t to_ns = st->to_ns < span->stop_ns ? st->to_ns : span->stop_ns;

                /* At due times, and as of both its ends. */
                if (st->parked)
                        n_valid += 3 + (to_ns - st->from_ns) / (PERIOD_MIN_MS * NS_PER_MS);
        }
        cr_assert_leq(span->n_snapshots, n_valid);
        if (span->n_snapshots == 0)
                return;
        task = sim_find_task(s, span->task);
        cr_assert_gt(span->stop_ns - span->request_start_ns, task->threshold_ms * NS_PER_MS,
                "%s was fast", span->id);
}

/* Each was taken, or refused for one reason. A rename may be the start of a segment, too. */
static void check_events(const Sim *s)
{
        const uint64_t *starts = s->n_starts, *others = s->n_events;

        cr_assert_eq(starts[CORE_E_UNKNOWN] + others[CORE_E_UNKNOWN],
                counter_get(COUNTER_EVENTS_UNKNOWN));
        cr_assert_eq(starts[CORE_E_UNWATCHED], counter_get(COUNTER_EVENTS_UNWATCHED));
        cr_assert_eq(starts[CORE_E_DUPLICATE] + others[CORE_E_DUPLICATE],
                counter_get(COUNTER_EVENTS_DUPLICATE));
        cr_assert_geq(counter_get(COUNTER_SEGMENTS_MATCHED), starts[0] + starts[CORE_E_LIMIT]);
        cr_assert_leq(counter_get(COUNTER_SEGMENTS_MATCHED),
                starts[0] + starts[CORE_E_LIMIT] + others[0]);
}

void sim_finish(Sim *s)
{
        uint64_t n_profiled = 0;

        for (unsigned i = 0; i < s->n_spans; i++)
                if (s->spans[i].live)
                        sim_stop(s, s->spans[i].id);
        sim_pass_ns(s, s->event_latency_ns);
        while (s->n_clients > 0) {
                sim_client_gone(s, s->clients[0].id);
                sim_pass_ns(s, s->event_latency_ns);
                sim_detach(s, s->clients[0].id);
        }
        /* Tasks may have the longest time before them, and clocks may have stepped back. */
        for (unsigned n = 0; n < 200 && core_instance_first(s->core); n++)
                sim_pass_ns(s, 60 * NS_PER_S);
        cr_assert_null(core_instance_first(s->core), "an instance is left");
        sim_pass_ns(s, 60 * NS_PER_S);
        cr_assert_eq(core_next_mono_ns(s->core, sim_now(s)), UINT64_MAX);
        cr_assert_eq(sim_active_targets(s), 0);
        cr_assert_eq(s->n_adds, s->n_removes);

        for (unsigned i = 0; i < s->n_tasks; i++) {
                const SimTask *task = &s->tasks[i];

                cr_assert_eq(task->n_finished, task->result == 0 || task->result == CORE_E_OVER,
                        "task %s was finished %u times", task->id, task->n_finished);
        }
        for (unsigned i = 0; i < s->n_spans; i++) {
                check_span(s, &s->spans[i]);
                n_profiled += s->spans[i].n_snapshots > 0;
        }
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_PROFILED), n_profiled);
        cr_assert_eq(s->n_captured + counter_get(COUNTER_SAMPLES_PARKED),
                s->n_refused + SUM(COUNTER_SNAPSHOTS_QUEUED, COUNTER_SNAPSHOTS_DROPPED,
                                       COUNTER_SAMPLES_NO_STACK, COUNTER_SAMPLES_AFTER_STOP,
                                       COUNTER_SAMPLES_PENDING_OVER, COUNTER_SAMPLES_UNNEEDED,
                                       COUNTER_SAMPLES_UNCLAIMED));
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_MATCHED),
                SUM(COUNTER_SEGMENTS_FAST, COUNTER_SEGMENTS_PROFILED, COUNTER_SEGMENTS_NO_SLOT,
                        COUNTER_SEGMENTS_OVER_COUNT, COUNTER_SEGMENTS_OVER_PENDING,
                        COUNTER_SEGMENTS_OVER_SUB, COUNTER_SEGMENTS_EMPTY,
                        COUNTER_SEGMENTS_UNDECIDED, COUNTER_SEGMENTS_RESUMED));
        check_events(s);
        cr_assert_eq(SUM(COUNTER_TASKS_ACCEPTED, COUNTER_TASKS_OVER),
                counter_get(COUNTER_TASKS_FINISHED));
        sim_free(s);
}
