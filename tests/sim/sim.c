/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "util/log.h"

#define BEGIN_NS      (5000 * NS_PER_S)
#define WALL_BEGIN_MS 1700000000000LL

/* ---- small things ---- */

static void copy(char *to, const char *from)
{
        cr_assert_lt(strlen(from), 24);
        strcpy(to, from);
}

uint64_t sim_random(Sim *s, uint64_t n)
{
        s->random ^= s->random << 13;
        s->random ^= s->random >> 7;
        s->random ^= s->random << 17;
        return s->random % n;
}

Now sim_now(const Sim *s)
{
        return (Now){.mono_ns = s->now_ns,
                .wall_ms = (int64_t)(s->now_ns / NS_PER_MS) + s->wall_offset_ms};
}

uint64_t sim_ns(const Sim *s, uint64_t ms)
{
        return s->begin_ns + ms * NS_PER_MS;
}

uint64_t sim_ms(const Sim *s)
{
        return (s->now_ns - s->begin_ns) / NS_PER_MS;
}

SimSpan *sim_span(Sim *s, const char *id)
{
        for (unsigned i = s->n_spans; i-- > 0;)
                if (strcmp(s->spans[i].id, id) == 0)
                        return &s->spans[i];
        cr_assert_fail("no span %s", id);
        return NULL;
}

SimTask *sim_find_task(Sim *s, const char *id)
{
        for (unsigned i = 0; i < s->n_tasks; i++)
                if (strcmp(s->tasks[i].id, id) == 0)
                        return &s->tasks[i];
        cr_assert_fail("no task %s", id);
        return NULL;
}

static SimTarget *target_find(Sim *s, TargetId id)
{
        for (unsigned i = 0; i < SIM_TARGETS; i++)
                if (s->targets[i].id == id)
                        return &s->targets[i];
        return NULL;
}

unsigned sim_active_targets(const Sim *s)
{
        unsigned n = 0;

        for (unsigned i = 0; i < SIM_TARGETS; i++)
                n += s->targets[i].active;
        return n;
}

const TargetSpec *sim_target(const Sim *s)
{
        cr_assert_eq(sim_active_targets(s), 1);
        for (unsigned i = 0; i < SIM_TARGETS; i++)
                if (s->targets[i].active)
                        return &s->targets[i].spec;
        return NULL;
}

static void item_add(Sim *s, SimItem item)
{
        if (s->n_items == s->items_size) {
                s->items_size = s->items_size ? s->items_size * 2 : 64;
                s->items = realloc(s->items, s->items_size * sizeof(*s->items));
                cr_assert(s->items);
        }
        item.number = s->n_numbers++;
        s->items[s->n_items++] = item;
}

/* ---- what really was ---- */

static bool span_ran(const SimSpan *span, int tid, uint64_t mono_ns)
{
        if (mono_ns < span->start_ns || mono_ns >= span->stop_ns)
                return false;
        for (unsigned i = 0; i < span->n_stretches; i++) {
                const SimStretch *st = &span->stretches[i];

                if (st->tid == tid && mono_ns >= st->from_ns && mono_ns < st->to_ns)
                        return true;
        }
        return false;
}

static void span_to_thread(Sim *s, SimSpan *span, int tid)
{
        if (span->n_stretches > 0)
                span->stretches[span->n_stretches - 1].to_ns = s->now_ns;
        if (s->carries[span->tid] == span)
                s->carries[span->tid] = NULL;
        cr_assert_lt(tid, SIM_THREADS);
        cr_assert(tid == 0 || !s->carries[tid]);
        span->tid = tid;
        s->carries[tid] = span;
        span->stretches =
                realloc(span->stretches, (span->n_stretches + 1) * sizeof(*span->stretches));
        cr_assert(span->stretches);
        span->stretches[span->n_stretches++] =
                (SimStretch){.tid = tid, .from_ns = s->now_ns, .to_ns = UINT64_MAX};
}

static void span_end(Sim *s, SimSpan *span)
{
        if (s->carries[span->tid] == span)
                s->carries[span->tid] = NULL;
        span->live = false;
        span->stop_ns = s->now_ns;
}

/* ---- the core's operations ---- */

/* The next time of the grid after now. */
static void target_schedule(const Sim *s, SimTarget *t)
{
        const TargetSpec *spec = &t->spec;
        uint64_t behind;

        if (spec->first_mono_ns > s->now_ns) {
                behind = (spec->first_mono_ns - s->now_ns - 1) / spec->period_ns;
                t->due_ns = spec->first_mono_ns - behind * spec->period_ns;
        } else {
                behind = (s->now_ns - spec->first_mono_ns) / spec->period_ns + 1;
                t->due_ns = spec->first_mono_ns + behind * spec->period_ns;
        }
        cr_assert_gt(t->due_ns, s->now_ns);
}

static void on_target_add(void *userdata, TargetId id, const TargetSpec *spec)
{
        Sim *s = userdata;
        SimTarget *t = NULL;

        cr_assert_neq(id, 0);
        cr_assert_null(target_find(s, id));
        for (unsigned i = 0; i < SIM_TARGETS && !t; i++)
                if (s->targets[i].id == 0)
                        t = &s->targets[i];
        /* One that is long gone makes room. */
        for (unsigned i = 0; i < SIM_TARGETS && !t; i++)
                if (!s->targets[i].active)
                        t = &s->targets[i];
        cr_assert(t);
        stack_unref(t->stack);
        *t = (SimTarget){.id = id, .spec = *spec, .due_ns = s->now_ns, .active = true};
        if (spec->goes_on)
                target_schedule(s, t);
        s->n_adds++;
}

/* What waits to be sent together. */
static void run_send(Sim *s, SimTarget *t)
{
        if (t->run.n > 0)
                item_add(s, (SimItem){.type = SIM_SAMPLE,
                                    .at_ns = s->now_ns + s->sample_latency_ns,
                                    .target = t->id,
                                    .mono_ns = t->run.mono_ns,
                                    .wall_ns = t->run.wall_ns,
                                    .period_ns = t->run.period_ns,
                                    .n = t->run.n,
                                    .stack = t->run.stack});
        t->run.n = 0;
}

static void on_target_remove(void *userdata, TargetId id)
{
        Sim *s = userdata;
        SimTarget *t = target_find(s, id);

        cr_assert(t && t->active);
        run_send(s, t);
        t->active = false;
        t->due_ns = UINT64_MAX;
        s->n_removes++;
}

static void on_watch_changed(void *userdata, Instance *instance)
{
        ((Sim *)userdata)->n_watch_changes++;
}

static void on_prepare(void *userdata, Instance *instance)
{
        ((Sim *)userdata)->n_prepares++;
}

/* It lies within the stretch in which the span waited with that stack. */
static void check_parked(
        const SimSpan *span, uint64_t parked_ns, int64_t time_wall_ms, int64_t offset_ms)
{
        const SimStretch *st = span->stretches;
        int64_t mono_ms = time_wall_ms - offset_ms;
        uint64_t to_ns;

        while (st->from_ns != parked_ns || !st->parked)
                cr_assert_lt(++st - span->stretches, span->n_stretches);
        if (span->n_snapshots > 0 && time_wall_ms == span->last_wall_ms)
                return;
        cr_assert_geq(mono_ms, (int64_t)(st->from_ns / NS_PER_MS));
        to_ns = st->to_ns < span->stop_ns ? st->to_ns : span->stop_ns;
        cr_assert_leq(mono_ms, (int64_t)((to_ns - 1) / NS_PER_MS));
}

static bool on_snapshot(void *userdata, const Snapshot *snapshot)
{
        Sim *s = userdata;
        SimSpan *span = sim_span(s, snapshot->segment_id);
        SimTask *task = sim_find_task(s, snapshot->task_id);
        unsigned long long mono_ns;
        int tid, unique, n;
        long long offset_ms;

        cr_assert_eq(task->n_finished, 0);
        cr_assert_eq(snapshot->stack->state, STACK_READY);
        cr_assert_eq(snapshot->uid, SIM_UID);
        cr_assert_eq(span->n_done, 0, "a snapshot of %s after its last one", span->id);
        if (span->n_snapshots > 0)
                cr_assert_str_eq(span->task, snapshot->task_id);
        /* Contiguous numbers and times that do not go back. */
        cr_assert_eq(snapshot->sequence, (int32_t)span->n_snapshots, "%s: %d is not %u", span->id,
                snapshot->sequence, span->n_snapshots);
        cr_assert_geq(snapshot->time_wall_ms, span->last_wall_ms);
        n = sscanf(snapshot->stack->signatures[0], "%d %llu %d %lld", &tid, &mono_ns, &unique,
                &offset_ms);
        cr_assert_geq(n, 3);
        if (n == 4)
                check_parked(span, mono_ns, snapshot->time_wall_ms, offset_ms);
        if (unique)
                cr_assert(span_ran(span, tid, mono_ns), "%s did not run on %d then", span->id, tid);

        if ((s->refuse_one_in && sim_random(s, s->refuse_one_in) == 0) || s->refuse_after == 0) {
                s->n_refused++;
                return false;
        }
        if (s->refuse_after != UINT32_MAX)
                s->refuse_after--;
        copy(span->task, snapshot->task_id);
        if (span->n_snapshots++ == 0) {
                span->first_wall_ms = snapshot->time_wall_ms;
                task->n_sampled++;
                cr_assert_leq(task->n_sampled, task->max_sampling_count);
        }
        span->last_wall_ms = snapshot->time_wall_ms;
        return true;
}

static void on_segment_began(void *userdata, const SegmentReport *report, bool report_wanted)
{
        SimSpan *span = sim_span(userdata, report->segment_id);

        cr_assert_eq(span->n_snapshots, 1);
        cr_assert_eq(report->start_wall_ms <= span->first_wall_ms, true);
        cr_assert_eq(span->n_begun++, 0);
}

static void on_segment_done(void *userdata, const SegmentReport *report, bool report_wanted)
{
        SimSpan *span = sim_span(userdata, report->segment_id), *first = span;

        /* Nothing is said of operation and trace of continued ones: they are the request's. */
        while (first->parent[0])
                first = sim_span(userdata, first->parent);
        cr_assert_str_eq(report->trace_id, first->id);
        cr_assert(report->operation[0]);
        cr_assert_gt(span->n_snapshots, 0);
        cr_assert_eq(span->n_begun, 1);
        /* A snapshot that was not taken has no number. */
        cr_assert_eq(report->n_snapshots, (int32_t)span->n_snapshots, "%s has %d numbers for %u",
                span->id, report->n_snapshots, span->n_snapshots);
        cr_assert_geq(report->end_wall_ms, report->start_wall_ms);
        /* A backend that analyses just that time finds all of them. */
        cr_assert_leq(report->start_wall_ms, span->first_wall_ms);
        cr_assert_geq(report->end_wall_ms, span->last_wall_ms);
        cr_assert_eq(!!report->parent_segment_id, span->parent[0] != '\0');
        if (report->parent_segment_id)
                cr_assert_str_eq(report->parent_segment_id, span->parent);
        span->n_done++;
        span->report = *report;
        span->report_wanted = report_wanted;
}

static void on_task_added(void *userdata, const Task *task)
{
        Sim *s = userdata;

        cr_assert_eq(task->state, TASK_WAITING);
        s->n_tasks_added++;
}

static void on_command_seen(void *userdata, const Instance *i)
{
        Sim *s = userdata;

        /* Its task is told of first: one that is not known is asked for again. */
        cr_assert_geq(i->last_command_wall_ms, 0);
        s->n_commands_seen++;
}

static void on_task_finished(void *userdata, const TaskSource *source, const char *service,
        const char *instance, const char *task_id)
{
        sim_find_task(userdata, task_id)->n_finished++;
}

static const CoreOps ops = {
        .target_add = on_target_add,
        .target_remove = on_target_remove,
        .watch_changed = on_watch_changed,
        .prepare = on_prepare,
        .snapshot = on_snapshot,
        .segment_began = on_segment_began,
        .segment_done = on_segment_done,
        .task_added = on_task_added,
        .command_seen = on_command_seen,
        .task_finished = on_task_finished,
};

/* ---- begin and end ---- */

Sim *sim_new(void)
{
        Sim *s = calloc(1, sizeof(*s));

        cr_assert(s);
        log_set_max_level(LOG_ERR);
        s->config.profile_max_parallel = 5;
        s->config.profile_max_sub_parallel = 5;
        s->config.profile_max_duration_ms = 600000;
        s->config.profile_max_pending = 2000;
        s->config.profile_max_pending_samples = 3000;
        s->config.profile_settle_ms = 100;
        s->config.limits_segments_per_client = 1000;
        s->config.oap_report_segments = REPORT_SEGMENTS_AUTO;
        s->begin_ns = s->now_ns = BEGIN_NS;
        s->wall_offset_ms = WALL_BEGIN_MS - (int64_t)(BEGIN_NS / NS_PER_MS);
        s->refuse_after = UINT32_MAX;
        s->sleeping_from_tid = 1000000;
        s->run_max = 1;
        s->random = 1;
        cr_assert_eq(core_new(&s->core, &s->config, &ops, s), 0);
        return s;
}

void sim_free(Sim *s)
{
        core_free(s->core);
        for (size_t i = 0; i < s->n_items; i++)
                stack_unref(s->items[i].stack);
        for (unsigned i = 0; i < SIM_TARGETS; i++) {
                stack_unref(s->targets[i].stack);
                if (s->targets[i].run.n > 0)
                        stack_unref(s->targets[i].run.stack);
        }
        for (unsigned i = 0; i < s->n_spans; i++)
                free(s->spans[i].stretches);
        free(s->items);
        free(s);
}

Sim *sim_with_task(Instance **ret_instance)
{
        Sim *s = sim_new();
        Instance *i = sim_attach(s, 1, "a", false);

        cr_assert_eq(sim_task(s, i, "task", "/slow", 0, 1, 200, 10, 5), 0);
        if (ret_instance)
                *ret_instance = i;
        return s;
}

const Task *sim_first_task(const Sim *s)
{
        return list_first(&core_instance_first(s->core)->tasks, Task, link);
}

/* ---- the sampler and the symbolizer ---- */

static void stack_name(Stack *stack, int tid, uint64_t mono_ns, bool unique)
{
        char leaf[64];

        snprintf(leaf, sizeof(leaf), "%d %llu %d", tid, (unsigned long long)mono_ns, unique);
        cr_assert_eq(stack_set_ready(stack, 2, (const char *[]){leaf, "leaf"}), 0);
}

static Stack *sample_stack(Sim *s, SimTarget *t, bool asleep)
{
        Stack *stack;

        if (asleep && t->stack)
                return stack_ref(t->stack);
        stack = stack_new();
        cr_assert(stack);
        if (s->stack_latency_ns == 0 && !s->stacks_never) {
                if (s->stack_fails_one_in && sim_random(s, s->stack_fails_one_in) == 0)
                        stack_set_failed(stack);
                else
                        stack_name(stack, t->spec.tid, s->now_ns, !asleep);
        } else if (!s->stacks_never) {
                item_add(s, (SimItem){.type = SIM_STACK,
                                    .at_ns = s->now_ns + s->stack_latency_ns,
                                    .tid = t->spec.tid,
                                    .mono_ns = s->now_ns,
                                    .error = asleep,
                                    .stack = stack_ref(stack)});
        }
        stack_unref(t->stack);
        t->stack = stack_ref(stack);
        return stack;
}

/* Samples of one stack wait for each other as long as they fit together. */
static void run_add(Sim *s, SimTarget *t, Stack *stack)
{
        SampleRun *run = &t->run;
        uint64_t wall_ns = (uint64_t)sim_now(s).wall_ms * NS_PER_MS + s->now_ns % NS_PER_MS;

        if (run->stack != stack || s->now_ns != run->mono_ns + run->n * run->period_ns ||
                wall_ns != run->wall_ns + run->n * run->period_ns)
                run_send(s, t);
        if (run->n == 0)
                *run = (SampleRun){.mono_ns = s->now_ns,
                        .wall_ns = wall_ns,
                        .period_ns = t->spec.period_ns,
                        .stack = stack};
        else
                stack_unref(stack);
        run->n++;
        if (run->n >= 1 + sim_random(s, s->run_max))
                run_send(s, t);
}

static void sample_take(Sim *s, SimTarget *t)
{
        bool asleep = t->spec.tid >= s->sleeping_from_tid;

        if (s->ended[t->spec.tid]) {
                run_send(s, t);
                item_add(s, (SimItem){.type = SIM_THREAD_GONE,
                                    .at_ns = s->now_ns + s->sample_latency_ns,
                                    .target = t->id});
                t->due_ns = UINT64_MAX;
                return;
        }
        if (s->carries[t->spec.tid])
                s->carries[t->spec.tid]->n_valid++;
        run_add(s, t, sample_stack(s, t, asleep));
        target_schedule(s, t);
}

/* ---- time ---- */

static void item_happens(Sim *s, SimItem *e)
{
        Now now = sim_now(s);
        SpanStartEvent start = {
                .segment_id = e->id,
                .operation = e->operation,
                .trace_id = "",
                .pid = 1,
                .tid = e->tid,
                .uid = SIM_UID,
                .start_mono_ns = e->mono_ns,
        };
        Instance *i;

        switch (e->type) {
        case SIM_START:
                i = sim_instance(s, e->client);
                s->result = i ? core_span_start(s->core, i, e->client, &start, now) : 0;
                break;
        case SIM_CONTINUE:
                s->result = core_span_continue(s->core, e->client, e->parent, &start, now);
                break;
        case SIM_RENAME:
                s->result = core_span_rename(s->core, e->client, e->id, e->operation, now);
                break;
        case SIM_STOP:
                s->result = core_span_stop(s->core, e->client, e->id, e->mono_ns, e->error, now);
                break;
        case SIM_SWITCH:
                s->result = core_span_switch(
                        s->core, e->client, e->id, e->tid, e->stack, e->mono_ns, now);
                stack_unref(e->stack);
                break;
        case SIM_CLIENT_GONE:
                for (unsigned n = 0; n < s->n_spans; n++)
                        if (s->spans[n].live && s->spans[n].client == e->client)
                                span_end(s, &s->spans[n]);
                core_client_gone(s->core, e->client, now);
                cr_assert_eq(core_client_segments(s->core, e->client), 0);
                break;
        case SIM_SAMPLE:
                s->n_captured += e->n;
                core_samples(s->core, e->target,
                        &(SampleRun){.mono_ns = e->mono_ns,
                                .wall_ns = e->wall_ns,
                                .period_ns = e->period_ns,
                                .n = e->n,
                                .stack = e->stack},
                        (ThreadTimes){0}, now);
                stack_unref(e->stack);
                break;
        case SIM_THREAD_GONE:
                core_target_gone(s->core, e->target, now);
                break;
        case SIM_STACK:
                if (s->stack_fails_one_in && sim_random(s, s->stack_fails_one_in) == 0)
                        stack_set_failed(e->stack);
                else
                        stack_name(e->stack, e->tid, e->mono_ns, !e->error);
                stack_unref(e->stack);
                break;
        }
        cr_assert_geq(s->result, 0);
        if (e->type == SIM_START || e->type == SIM_CONTINUE)
                s->n_starts[s->result]++;
        else if (e->type == SIM_RENAME || e->type == SIM_STOP || e->type == SIM_SWITCH)
                s->n_events[s->result]++;
}

/* Takes out the earliest one that is due. */
static bool item_take(Sim *s, uint64_t until_ns, SimItem *ret)
{
        size_t best = SIZE_MAX;

        for (size_t i = 0; i < s->n_items; i++)
                if (s->items[i].at_ns <= until_ns &&
                        (best == SIZE_MAX || s->items[i].at_ns < s->items[best].at_ns ||
                                (s->items[i].at_ns == s->items[best].at_ns &&
                                        s->items[i].number < s->items[best].number)))
                        best = i;
        if (best == SIZE_MAX)
                return false;
        *ret = s->items[best];
        s->items[best] = s->items[--s->n_items];
        return true;
}

static uint64_t next_ns(Sim *s)
{
        uint64_t next = core_next_mono_ns(s->core, sim_now(s));

        for (unsigned i = 0; i < SIM_TARGETS; i++)
                if (s->targets[i].active && s->targets[i].due_ns < next)
                        next = s->targets[i].due_ns;
        for (size_t i = 0; i < s->n_items; i++)
                if (s->items[i].at_ns < next)
                        next = s->items[i].at_ns;
        return next;
}

static void sim_round(Sim *s)
{
        SimItem item;

        while (item_take(s, s->now_ns, &item))
                item_happens(s, &item);
        for (unsigned i = 0; i < SIM_TARGETS; i++)
                while (s->targets[i].active && s->targets[i].due_ns <= s->now_ns)
                        sample_take(s, &s->targets[i]);
        if (core_next_mono_ns(s->core, sim_now(s)) <= s->now_ns) {
                core_step(s->core, sim_now(s));
                /* Nothing is left to do now: else the daemon would spin. */
                cr_assert_gt(core_next_mono_ns(s->core, sim_now(s)), s->now_ns);
        }
}

void sim_pass_ns(Sim *s, uint64_t ns)
{
        uint64_t to_ns = s->now_ns + ns, next;

        while ((next = next_ns(s)) <= to_ns) {
                if (next > s->now_ns)
                        s->now_ns = next;
                sim_round(s);
        }
        s->now_ns = to_ns;
        sim_check(s);
}

void sim_to(Sim *s, uint64_t ms)
{
        cr_assert_geq(sim_ns(s, ms), s->now_ns);
        sim_pass_ns(s, sim_ns(s, ms) - s->now_ns);
}

void sim_suspend(Sim *s, uint64_t ms)
{
        s->wall_offset_ms += (int64_t)ms;
}

/* ---- what happens ---- */

Instance *sim_instance(Sim *s, uint64_t client)
{
        for (unsigned i = 0; i < s->n_clients; i++)
                if (s->clients[i].id == client)
                        return s->clients[i].instance;
        return NULL;
}

Instance *sim_attach(Sim *s, uint64_t client, const char *instance, bool agent)
{
        SimClient *c = &s->clients[s->n_clients++];

        cr_assert_leq(s->n_clients, 16);
        c->id = client;
        cr_assert_eq(
                core_instance_attach(s->core, &c->instance, "service", instance, agent, sim_now(s)),
                0);
        return c->instance;
}

void sim_detach(Sim *s, uint64_t client)
{
        for (unsigned i = 0; i < s->n_clients; i++)
                if (s->clients[i].id == client) {
                        core_instance_detach(s->core, s->clients[i].instance, sim_now(s));
                        s->clients[i] = s->clients[--s->n_clients];
                        return;
                }
        cr_assert_fail("no client %llu", (unsigned long long)client);
}

int sim_task(Sim *s, Instance *i, const char *id, const char *endpoint, int64_t start_ms,
        int minutes, int threshold_ms, int period_ms, int max)
{
        int64_t begin_wall_ms = (int64_t)(s->begin_ns / NS_PER_MS) + s->wall_offset_ms;
        TaskCommand command = {
                .task_id = id,
                .endpoint = endpoint,
                .duration_min = minutes,
                .threshold_ms = threshold_ms,
                .period_ms = period_ms,
                .max_sampling_count = max,
                .start_wall_ms = begin_wall_ms + start_ms,
                .create_wall_ms = begin_wall_ms + start_ms,
        };
        SimTask *task = &s->tasks[s->n_tasks++];

        cr_assert_leq(s->n_tasks, SIM_TASKS);
        *task = (SimTask){.threshold_ms = threshold_ms, .max_sampling_count = max};
        copy(task->id, id);
        task->result = core_task_add(s->core, i, &command, sim_now(s));
        return task->result;
}

/* An event of a client goes its way. */
static void event(Sim *s, SimItem item)
{
        item.at_ns = s->now_ns + s->event_latency_ns;
        item.mono_ns = s->now_ns;
        if (s->event_latency_ns == 0)
                item_happens(s, &item);
        else
                item_add(s, item);
}

static SimSpan *span_new(Sim *s, uint64_t client, const char *id, int tid)
{
        SimSpan *span = &s->spans[s->n_spans++];

        cr_assert_leq(s->n_spans, SIM_SPANS);
        copy(span->id, id);
        span->client = client;
        span->live = true;
        span->start_ns = span->request_start_ns = s->now_ns;
        span->stop_ns = UINT64_MAX;
        span_to_thread(s, span, tid);
        return span;
}

SimSpan *sim_start(Sim *s, uint64_t client, const char *id, const char *operation, int tid)
{
        SimSpan *span = span_new(s, client, id, tid);
        SimItem item = {.type = SIM_START, .client = client, .tid = tid};

        copy(item.id, id);
        copy(item.operation, operation);
        event(s, item);
        return span;
}

SimSpan *sim_continue(Sim *s, uint64_t client, const char *parent, const char *id, int tid)
{
        SimSpan *span = span_new(s, client, id, tid);
        SimItem item = {.type = SIM_CONTINUE, .client = client, .tid = tid};

        span->request_start_ns = sim_span(s, parent)->request_start_ns;
        copy(span->parent, parent);
        copy(item.id, id);
        copy(item.parent, parent);
        event(s, item);
        return span;
}

void sim_rename(Sim *s, const char *id, const char *operation)
{
        SimItem item = {.type = SIM_RENAME, .client = sim_span(s, id)->client};

        copy(item.id, id);
        copy(item.operation, operation);
        event(s, item);
}

void sim_stop(Sim *s, const char *id)
{
        SimSpan *span = sim_span(s, id);
        SimItem item = {.type = SIM_STOP, .client = span->client, .error = true};

        span_end(s, span);
        copy(item.id, id);
        event(s, item);
}

void sim_switch(Sim *s, const char *id, int tid)
{
        SimSpan *span = sim_span(s, id);
        SimItem item = {.type = SIM_SWITCH, .client = span->client, .tid = tid};

        span_to_thread(s, span, tid);
        copy(item.id, id);
        event(s, item);
}

void sim_park(Sim *s, const char *id)
{
        SimSpan *span = sim_span(s, id);
        SimItem item = {.type = SIM_SWITCH, .client = span->client, .stack = stack_new()};
        char root[80];

        cr_assert(item.stack);
        snprintf(root, sizeof(root), "0 %llu 1 %lld", (unsigned long long)s->now_ns,
                (long long)s->wall_offset_ms);
        cr_assert_eq(stack_set_ready(item.stack, 2, (const char *[]){root, "leaf"}), 0);
        span_to_thread(s, span, 0);
        span->stretches[span->n_stretches - 1].parked = true;
        copy(item.id, id);
        event(s, item);
}

void sim_client_gone(Sim *s, uint64_t client)
{
        event(s, (SimItem){.type = SIM_CLIENT_GONE, .client = client});
}

void sim_thread_end(Sim *s, int tid)
{
        s->ended[tid] = true;
}
