/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"
#include "util/error.h"

/* ---- clients ---- */

Client *client_find(const Core *c, uint64_t id)
{
        for (HashLink *l = hash_table_find(&c->clients, hash_u64(id)); l; l = hash_link_next(l)) {
                Client *client = container_of(l, Client, by_id);

                if (client->id == id)
                        return client;
        }
        return NULL;
}

static Client *client_get(Core *c, uint64_t id)
{
        Client *client = client_find(c, id);

        if (client)
                return client;
        client = calloc(1, sizeof(*client));
        if (!client)
                return NULL;
        client->id = id;
        list_init(&client->segments);
        if (hash_table_add(&c->clients, &client->by_id, hash_u64(id)) < 0) {
                free(client);
                return NULL;
        }
        return client;
}

static void client_release(Core *c, Client *client)
{
        if (client->n_segments > 0)
                return;
        hash_table_remove(&c->clients, &client->by_id);
        free(client);
}

void segment_leave_client(Segment *s)
{
        Client *client = s->client;

        if (!client)
                return;
        s->client = NULL;
        list_remove(&s->client_link);
        client->n_segments--;
        client_release(s->core, client);
}

/* ---- requests ---- */

static Request *request_new(void)
{
        Request *r = calloc(1, sizeof(*r));

        if (!r)
                return NULL;
        r->n_refs = 1;
        r->begin_mono_ns = UINT64_MAX;
        list_init(&r->segments);
        return r;
}

static void request_unref(Request *r)
{
        if (r && --r->n_refs == 0)
                free(r);
}

static void request_abandon(Request *r, CounterId cause, Now now)
{
        Segment *s;

        r->profiled = false;
        r->abandoned = true;
        r->cause = cause;
        /* They go at the next step: a caller may be walking over them. */
        list_for_each (s, &r->segments, request_link)
                segment_schedule(s, now);
}

/* ---- life ---- */

static void segment_destroy(Segment *s)
{
        request_unref(s->request);
        free(s->id);
        free(s->operation);
        free(s->trace_id);
        free(s->task_id);
        free(s->parent_id);
        free(s->parent_operation);
        trace_details_deinit(&s->details);
        free(s);
}

static Segment *segment_alloc(
        const Task *task, Segment *parent, const SpanStartEvent *event, Now now)
{
        Segment *s = calloc(1, sizeof(*s));
        const char *operation = event->operation, *trace_id = event->trace_id;

        if (!s)
                return NULL;
        /* What is not said of a continued one is its parent's; a trace needs an id. */
        if (parent && !operation[0])
                operation = parent->operation;
        if (!trace_id[0])
                trace_id = parent ? parent->trace_id : event->segment_id;
        s->id = strdup(event->segment_id);
        s->operation = strdup(operation);
        s->trace_id = strdup(trace_id);
        s->task_id = strdup(task->id);
        s->source = task->source;
        if (parent) {
                s->sub = true;
                s->request = parent->request;
                s->request->n_refs++;
                s->parent_id = strdup(parent->id);
                s->parent_operation = strdup(parent->operation);
        } else {
                s->request = request_new();
        }
        if (!s->id || !s->operation || !s->trace_id || !s->task_id || !s->request ||
                (parent && (!s->parent_id || !s->parent_operation))) {
                segment_destroy(s);
                return NULL;
        }
        s->pid = event->pid;
        s->tid = s->first_tid = event->tid;
        s->uid = event->uid;
        s->start_mono_ns = event->start_mono_ns < now.mono_ns ? event->start_mono_ns : now.mono_ns;
        s->start_wall_ms = now.wall_ms - (int64_t)((now.mono_ns - s->start_mono_ns) / NS_PER_MS);
        s->cut_mono_ns = UINT64_MAX;
        return s;
}

/*
 * What tasks and requests count of their segments changes here and nowhere else: with each change
 * of what it is made of, the old is taken away and the new added.
 */
static void segment_account(const Segment *s, int sign)
{
        Task *task = s->task;

        if (!task)
                return;
        if (s->state == SEGMENT_PENDING)
                task->n_pending += sign;
        if (s->state == SEGMENT_PROFILING && !s->sub)
                task->n_slots += sign;
        if (s->reserved)
                task->n_reserved += sign;
        if (s->sub && s->state != SEGMENT_STOPPED)
                s->request->n_subs += sign;
}

void segment_set_state(Segment *s, SegmentState state, bool reserved)
{
        segment_account(s, -1);
        s->state = state;
        s->reserved = reserved;
        segment_account(s, +1);
}

static void segment_leave_task(Segment *s)
{
        segment_account(s, -1);
        s->task = NULL;
        list_remove(&s->task_link);
        list_remove(&s->queue_link);
}

int segment_new(Segment **ret, Task *task, uint64_t client_id, Segment *parent,
        const SpanStartEvent *event, Now now)
{
        Core *c = task->instance->core;
        Client *client;
        Segment *s;
        int r;

        r = schedule_reserve(c);
        if (r)
                return error_trace(r);
        s = segment_alloc(task, parent, event, now);
        if (!s)
                return error_origin(-ENOMEM);
        client = client_get(c, client_id);
        if (!client) {
                segment_destroy(s);
                return error_origin(-ENOMEM);
        }
        r = hash_table_add(&c->segments_by_id, &s->by_id, hash_string(s->id));
        if (r) {
                client_release(c, client);
                segment_destroy(s);
                return error_trace(r);
        }
        s->core = c;
        s->instance = task->instance;
        s->task = task;
        s->client = client;
        if (!parent)
                s->request->first = s;
        list_init(&s->targets);
        list_init(&s->queue_link);
        list_init(&s->blocked_link);
        list_append(&s->instance->segments, &s->instance_link);
        list_append(&task->segments, &s->task_link);
        list_append(&client->segments, &s->client_link);
        list_append(&s->request->segments, &s->request_link);
        s->instance->n_segments++;
        client->n_segments++;
        segment_account(s, +1);
        schedule_add(c, s);
        *ret = s;
        return 0;
}

void segment_free(Segment *s)
{
        Core *c = s->core;

        if (s->task)
                segment_leave_task(s);
        segment_leave_client(s);
        if (s->request->first == s)
                s->request->first = NULL;
        list_remove(&s->request_link);
        list_remove(&s->instance_link);
        s->instance->n_segments--;
        list_remove(&s->blocked_link);
        hash_table_remove(&c->segments_by_id, &s->by_id);
        schedule_remove(c, s);
        segment_free_targets(s);
        segment_drop_parked(s);
        held_clear(&s->held);
        segment_destroy(s);
}

Segment *segment_find(const Core *c, const char *id)
{
        for (HashLink *l = hash_table_find(&c->segments_by_id, hash_string(id)); l;
                l = hash_link_next(l)) {
                Segment *s = container_of(l, Segment, by_id);

                if (strcmp(s->id, id) == 0)
                        return s;
        }
        return NULL;
}

/* ---- threshold and slots ---- */

static bool segment_slow(const Segment *s, uint64_t end_mono_ns)
{
        uint64_t begin_mono_ns = s->request->begin_mono_ns;

        return end_mono_ns > begin_mono_ns &&
               end_mono_ns - begin_mono_ns > task_threshold_ns(s->task);
}

CounterId segment_cause(const Segment *s, uint64_t end_mono_ns, CounterId fast)
{
        if (!segment_slow(s, end_mono_ns))
                return fast;
        return task_has_count(s->task) ? COUNTER_SEGMENTS_NO_SLOT : COUNTER_SEGMENTS_OVER_COUNT;
}

int segment_begin(Segment *s, Now now)
{
        uint64_t begin_mono_ns = segment_begin_mono_ns(s);
        int r;

        if (!s->sub)
                s->request->begin_mono_ns = begin_mono_ns;
        segment_begin_parked(s, begin_mono_ns);
        r = segment_update_target(s, begin_mono_ns);
        if (r)
                return error_trace(r);
        segment_schedule(s, now);
        return 0;
}

void segment_promote(Segment *s, Now now)
{
        uint32_t max_parallel = s->core->config->profile_max_parallel;
        Task *task = s->task;
        Segment *sub;

        /* A continued one follows when the first one is profiled. */
        if (s->sub && !s->request->profiled)
                return;
        if (!segment_has_count(s) || (!s->sub && task->n_slots >= max_parallel)) {
                if (list_empty(&s->queue_link))
                        list_append(&task->queue, &s->queue_link);
                segment_schedule(s, now);
                return;
        }
        list_remove(&s->queue_link);
        s->promoted_mono_ns = now.mono_ns;
        segment_set_state(s, SEGMENT_PROFILING, s->sequence == 0);
        segment_schedule(s, now);
        if (s->sub)
                return;
        s->request->profiled = true;
        list_for_each (sub, &s->request->segments, request_link)
                if (sub->task && sub->state == SEGMENT_PENDING)
                        segment_promote(sub, now);
}

/* ---- ends ---- */

void segment_halt(Segment *s, Now now)
{
        if (s->state == SEGMENT_STOPPED)
                return;
        assert(s->state == SEGMENT_PROFILING);
        if (s->cut_mono_ns > now.mono_ns)
                s->cut_mono_ns = now.mono_ns;
        s->halted_mono_ns = now.mono_ns;
        segment_end_parked(s, s->cut_mono_ns);
        segment_set_state(s, SEGMENT_STOPPED, s->reserved);
        segment_update_target(s, s->cut_mono_ns);
        task_offer(s->task, now);
}

static SegmentReport segment_report(const Segment *s, uint64_t end_mono_ns)
{
        const Instance *i = s->instance;
        SegmentReport report = {
                .source = s->source,
                .task_id = s->task_id,
                .service = i->service,
                .instance = i->name,
                .trace_id = s->trace_id,
                .segment_id = s->id,
                .operation = s->operation,
                .start_wall_ms = s->start_wall_ms,
                .end_wall_ms =
                        s->start_wall_ms + (int64_t)((end_mono_ns - s->start_mono_ns) / NS_PER_MS),
                .error = s->error,
                .n_snapshots = s->sequence,
                .times = segment_times(s),
                .losses = s->losses,
                .parent_segment_id = s->parent_id,
                .parent_operation = s->parent_operation,
                .sw8 = s->details.sw8,
                .tags = s->details.tags,
                .n_tags = s->details.n_tags,
        };

        /* Rounded, a segment may be a millisecond shorter than it was; the OAP's analysis looks no
         * further. */
        if (report.start_wall_ms > s->first_wall_ms)
                report.start_wall_ms = s->first_wall_ms;
        if (report.end_wall_ms < s->last_wall_ms)
                report.end_wall_ms = s->last_wall_ms;
        return report;
}

static bool segment_report_wanted(const Segment *s)
{
        return !s->instance->agent && s->core->config->oap_report_segments == REPORT_SEGMENTS_AUTO;
}

void segment_tell_began(const Segment *s)
{
        const Core *c = s->core;
        SegmentReport report = segment_report(s, s->start_mono_ns);

        c->ops->segment_began(c->userdata, &report, segment_report_wanted(s));
}

static void segment_done(const Segment *s)
{
        const Core *c = s->core;
        SegmentReport report = segment_report(s, s->end_mono_ns);

        c->ops->segment_done(c->userdata, &report, segment_report_wanted(s));
}

void segment_close(Segment *s, CounterId cause, Now now)
{
        bool profiled = s->state != SEGMENT_PENDING && cause != COUNTER_SEGMENTS_FAST;
        Task *task = s->task;

        s->tid = 0;
        segment_update_target(s, now.mono_ns);
        counter_add(COUNTER_SAMPLES_UNNEEDED, held_clear(&s->held));
        if (s->sequence > 0)
                segment_done(s);
        else
                counter_add(cause, 1);
        if (!s->sub && s->sequence == 0 && !profiled)
                request_abandon(s->request, cause, now);
        segment_free(s);
        if (task)
                task_offer(task, now);
}

void segment_stop(Segment *s, uint64_t stop_mono_ns, bool seen, Now now)
{
        Segment *first = s->request->first;

        if (stop_mono_ns > now.mono_ns)
                stop_mono_ns = now.mono_ns;
        if (stop_mono_ns < s->start_mono_ns)
                stop_mono_ns = s->start_mono_ns;
        s->over = true;
        s->stop_seen = seen;
        s->end_mono_ns = stop_mono_ns;
        if (!s->task) {
                segment_step(s, now);
                return;
        }
        if (s->cut_mono_ns > stop_mono_ns)
                s->cut_mono_ns = stop_mono_ns;
        segment_cut_held(s, s->cut_mono_ns);

        /* What is profiled is decided by the spans' times, not by the order of events and timers.
         */
        if (s->state == SEGMENT_PENDING && segment_slow(s, stop_mono_ns)) {
                if (first && first != s && first->state == SEGMENT_PENDING)
                        segment_promote(first, now);
                if (s->state == SEGMENT_PENDING)
                        segment_promote(s, now);
        }
        if (s->state == SEGMENT_PENDING || (s->sequence == 0 && !segment_slow(s, stop_mono_ns))) {
                segment_close(s, segment_cause(s, stop_mono_ns, COUNTER_SEGMENTS_FAST), now);
                return;
        }
        segment_halt(s, now);
        /* Its client may have said by now that it had ended before, unread so far: what is due
         * waits for the next step. */
        if (seen)
                segment_step(s, now);
        else
                segment_schedule(s, now);
}

static bool segment_settled(const Segment *s, Now now)
{
        return s->held.n == 0 &&
               now.mono_ns >= s->halted_mono_ns + s->core->config->profile_settle_ms * NS_PER_MS;
}

/* Return: whether it is still there. */
static bool segment_settle(Segment *s, Now now)
{
        if (s->task) {
                if (!segment_settled(s, now))
                        return true;
                if (s->sequence == 0) {
                        segment_close(s, COUNTER_SEGMENTS_EMPTY, now);
                        return false;
                }
                segment_leave_task(s);
                segment_free_targets(s);
        }
        if (!s->over && now.mono_ns >= s->halted_mono_ns + SPAN_END_WAIT_NS) {
                s->over = true;
                s->end_mono_ns = now.mono_ns;
        }
        if (!s->over)
                return true;
        segment_close(s, COUNTER_SEGMENTS_EMPTY, now);
        return false;
}

void segment_flush(Segment *s, Now now)
{
        if (s->state == SEGMENT_PENDING) {
                segment_close(s, segment_cause(s, now.mono_ns, COUNTER_SEGMENTS_UNDECIDED), now);
                return;
        }
        if (!s->over) {
                s->over = true;
                s->end_mono_ns = now.mono_ns;
        }
        if (s->task) {
                segment_halt(s, now);
                segment_deliver(s, now);
        }
        segment_close(s, COUNTER_SEGMENTS_EMPTY, now);
}

/* ---- time ---- */

static bool segment_let_go(const Segment *s)
{
        return s->sub && s->request->abandoned && s->sequence == 0;
}

static uint64_t segment_due(const Segment *s)
{
        const Config *config = s->core->config;
        uint64_t due, delivery;

        if (segment_let_go(s))
                return 0;
        switch (s->state) {
        case SEGMENT_PENDING:
                if (s->sub || s->task->state != TASK_RUNNING || !list_empty(&s->queue_link))
                        return UINT64_MAX;
                return s->request->begin_mono_ns + task_threshold_ns(s->task) + 1;
        case SEGMENT_PROFILING:
                due = s->promoted_mono_ns + config->profile_max_duration_ms * NS_PER_MS;
                delivery = segment_delivery_due(s);
                return delivery < due ? delivery : due;
        default:
                if (!s->task)
                        return s->halted_mono_ns + SPAN_END_WAIT_NS;
                if (s->held.n > 0)
                        return segment_delivery_due(s);
                return s->halted_mono_ns + config->profile_settle_ms * NS_PER_MS;
        }
}

void segment_schedule(Segment *s, Now now)
{
        uint64_t due = segment_due(s);
        bool blocked = s->task && segment_blocked(s);

        /* Never twice in one step. */
        schedule_set(s->core, s, due > now.mono_ns ? due : now.mono_ns + 1);
        if (blocked != !list_empty(&s->blocked_link)) {
                list_remove(&s->blocked_link);
                if (blocked)
                        list_append(&s->core->blocked, &s->blocked_link);
        }
}

void segment_step(Segment *s, Now now)
{
        if (segment_let_go(s)) {
                segment_close(s, s->request->cause, now);
                return;
        }
        if (s->state == SEGMENT_PENDING) {
                if (segment_due(s) <= now.mono_ns)
                        segment_promote(s, now);
        } else if (s->task) {
                segment_deliver(s, now);
        }
        if (s->state == SEGMENT_PROFILING &&
                now.mono_ns >= s->promoted_mono_ns +
                                       s->core->config->profile_max_duration_ms * NS_PER_MS) {
                counter_add(COUNTER_SEGMENTS_CUT, 1);
                segment_halt(s, now);
        }
        if (s->state == SEGMENT_STOPPED && !segment_settle(s, now))
                return;
        segment_schedule(s, now);
}
