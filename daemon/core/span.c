/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"
#include "util/error.h"

/* What clients say of their spans. */

#define TAGS_MAX 16

static Segment *span_find(const Core *c, uint64_t client, const char *segment_id)
{
        Segment *s = segment_find(c, segment_id);

        if (s && s->client && s->client->id == client && !s->stop_seen)
                return s;
        counter_add(COUNTER_EVENTS_UNKNOWN, 1);
        return NULL;
}

/* A segment of that id has delivered to the task. NULL: it has not. */
static Delivered *span_delivered(Task *task, const char *segment_id)
{
        uint64_t hash = hash_string(segment_id);

        for (unsigned n = 0; n < task->n_delivered; n++)
                if (task->delivered[n].hash == hash)
                        return &task->delivered[n];
        return NULL;
}

/* Goes on with what a former daemon has delivered of it. */
static void span_resume(Segment *s, Delivered *delivered)
{
        delivered->continues = false;
        s->sequence = delivered->n_snapshots;
        s->first_wall_ms = delivered->first_wall_ms;
        s->last_wall_ms = delivered->last_wall_ms;
        counter_add(COUNTER_SEGMENTS_RESUMED, 1);
        segment_tell_began(s);
}

static int span_refuse(Task *task, CounterId cause)
{
        task->n_matched++;
        counter_add(COUNTER_SEGMENTS_MATCHED, 1);
        counter_add(cause, 1);
        return CORE_E_LIMIT;
}

/* Follows a span, quotas permitting. */
static int span_follow(Core *c, Task *task, uint64_t client_id, Segment *parent,
        const SpanStartEvent *event, Now now)
{
        const Instance *i = task->instance;
        const Client *client = client_find(c, client_id);
        Delivered *delivered = span_delivered(task, event->segment_id);
        Segment *s;
        int r;

        if (segment_find(c, event->segment_id) || (delivered && !delivered->continues)) {
                counter_add(COUNTER_EVENTS_DUPLICATE, 1);
                return CORE_E_DUPLICATE;
        }
        if (!delivered && !task_has_count(task))
                return span_refuse(task, COUNTER_SEGMENTS_OVER_COUNT);
        if (parent && parent->request->n_subs >= c->config->profile_max_sub_parallel)
                return span_refuse(task, COUNTER_SEGMENTS_OVER_SUB);
        if (i->n_segments >= c->config->profile_max_pending ||
                (client && client->n_segments >= c->config->limits_segments_per_client))
                return span_refuse(task, COUNTER_SEGMENTS_OVER_PENDING);

        r = segment_new(&s, task, client_id, parent, event, now);
        if (r)
                return error_trace(r);
        task->n_matched++;
        counter_add(COUNTER_SEGMENTS_MATCHED, 1);
        if (delivered)
                span_resume(s, delivered);
        if (task->state != TASK_RUNNING)
                return 0;
        r = segment_begin(s, now);
        if (r) {
                segment_close(s, COUNTER_SEGMENTS_UNDECIDED, now);
                return error_trace(r);
        }
        if (parent)
                segment_promote(s, now);
        else
                segment_step(s, now);
        return 0;
}

int core_span_start(Core *c, Instance *i, uint64_t client, const SpanStartEvent *event, Now now)
{
        Task *task = task_match(i, event->operation);
        int r;

        if (!task) {
                counter_add(COUNTER_EVENTS_UNWATCHED, 1);
                return CORE_E_UNWATCHED;
        }
        r = span_follow(c, task, client, NULL, event, now);
        return r < 0 ? error_trace(r) : r;
}

int core_span_continue(
        Core *c, uint64_t client, const char *parent_id, const SpanStartEvent *event, Now now)
{
        Segment *parent = segment_find(c, parent_id);
        int r;

        /* Also of one that has ended a moment ago: the work was handed on. */
        if (!parent || !parent->client || parent->client->id != client) {
                counter_add(COUNTER_EVENTS_UNKNOWN, 1);
                return CORE_E_UNKNOWN;
        }
        if (!parent->task || parent->task->state == TASK_ENDING || parent->request->abandoned) {
                counter_add(COUNTER_EVENTS_UNWATCHED, 1);
                return CORE_E_UNWATCHED;
        }
        r = span_follow(c, parent->task, client, parent, event, now);
        return r < 0 ? error_trace(r) : r;
}

int core_span_rename(
        Core *c, uint64_t client, const char *segment_id, const char *operation, Now now)
{
        _cleanup_(freep) char *id = NULL, *trace_id = NULL;
        _cleanup_(trace_details_deinit) TraceDetails details = {0};
        _cleanup_(stack_unrefp) Stack *parked = NULL;
        Segment *s = span_find(c, client, segment_id);
        uint64_t parked_mono_ns;
        SpanStartEvent event;
        pid_t first_tid;
        char *copy;
        Task *task;
        int r;

        if (!s)
                return CORE_E_UNKNOWN;
        copy = strdup(operation);
        if (!copy)
                return error_origin(-ENOMEM);
        free(s->operation);
        s->operation = copy;
        task = task_match(s->instance, operation);
        if (s->state != SEGMENT_PENDING || s->sub || s->task == task)
                return 0;
        if (!task) {
                segment_close(s, COUNTER_SEGMENTS_UNDECIDED, now);
                return 0;
        }
        id = strdup(s->id);
        trace_id = strdup(s->trace_id);
        if (!id || !trace_id)
                return error_origin(-ENOMEM);
        details = s->details;
        s->details = (TraceDetails){0};
        event = (SpanStartEvent){
                .segment_id = id,
                .operation = operation,
                .trace_id = trace_id,
                .pid = s->pid,
                .tid = s->tid,
                .uid = s->uid,
                .start_mono_ns = s->start_mono_ns,
        };
        parked = s->parked.stack ? stack_ref(s->parked.stack) : NULL;
        parked_mono_ns = s->parked.from_mono_ns;
        first_tid = s->first_tid;
        segment_close(s, COUNTER_SEGMENTS_UNDECIDED, now);
        r = span_follow(c, task, client, NULL, &event, now);
        s = r == 0 ? segment_find(c, id) : NULL;
        if (s && parked) {
                segment_park(s, parked, parked_mono_ns, now);
                segment_schedule(s, now);
        }
        if (s) {
                s->details = details;
                details = (TraceDetails){0};
                s->first_tid = first_tid;
        }
        return r < 0 ? error_trace(r) : 0;
}

int core_span_stop(Core *c, uint64_t client, const char *segment_id, uint64_t stop_mono_ns,
        bool error, Now now)
{
        Segment *s = span_find(c, client, segment_id);

        if (!s)
                return CORE_E_UNKNOWN;
        s->error = error;
        segment_stop(s, stop_mono_ns, true, now);
        return 0;
}

int core_span_switch(Core *c, uint64_t client, const char *segment_id, pid_t tid, Stack *stack,
        uint64_t at_mono_ns, Now now)
{
        Segment *s = span_find(c, client, segment_id);
        int r;

        if (!s)
                return CORE_E_UNKNOWN;
        if (s->tid == tid && (tid != 0 || (!stack && !s->parked.stack)))
                return 0;
        if (at_mono_ns > now.mono_ns)
                at_mono_ns = now.mono_ns;
        s->tid = tid;
        s->n_switches++;
        segment_end_parked(s, at_mono_ns);
        segment_end_stretch(s, at_mono_ns);
        if (tid == 0 && stack && s->task && s->state != SEGMENT_STOPPED)
                segment_park(s, stack, at_mono_ns, now);
        r = segment_update_target(s, at_mono_ns);
        segment_schedule(s, now);
        return r < 0 ? error_trace(r) : 0;
}

void trace_details_deinit(TraceDetails *d)
{
        free(d->sw8);
        for (size_t i = 0; i < d->n_tags; i++) {
                free(d->tags[i].key);
                free(d->tags[i].value);
        }
        free(d->tags);
        *d = (TraceDetails){0};
}

int core_span_parent(Core *c, uint64_t client, const char *segment_id, const char *sw8)
{
        Segment *s = span_find(c, client, segment_id);
        char *copy;

        if (!s)
                return CORE_E_UNKNOWN;
        copy = strdup(sw8);
        if (!copy)
                return error_origin(-ENOMEM);
        free(s->details.sw8);
        s->details.sw8 = copy;
        return 0;
}

int core_span_tag(
        Core *c, uint64_t client, const char *segment_id, const char *key, const char *value)
{
        Segment *s = span_find(c, client, segment_id);
        TraceDetails *d;
        SpanTag *tags, tag;

        if (!s)
                return CORE_E_UNKNOWN;
        d = &s->details;
        if (d->n_tags == TAGS_MAX) {
                counter_add(COUNTER_EVENTS_OVER_TAGS, 1);
                return CORE_E_LIMIT;
        }
        tags = reallocarray(d->tags, d->n_tags + 1, sizeof(*tags));
        if (!tags)
                return error_origin(-ENOMEM);
        d->tags = tags;
        tag = (SpanTag){.key = strdup(key), .value = strdup(value)};
        if (!tag.key || !tag.value) {
                free(tag.key);
                free(tag.value);
                return error_origin(-ENOMEM);
        }
        d->tags[d->n_tags++] = tag;
        return 0;
}

void core_client_gone(Core *c, uint64_t client_id, Now now)
{
        Client *client;

        /* Looked up each time: it goes with its last segment. */
        while ((client = client_find(c, client_id))) {
                Segment *s = list_first(&client->segments, Segment, client_link);

                segment_leave_client(s);
                if (!s->over)
                        counter_add(COUNTER_SEGMENTS_GONE, 1);
                segment_stop(s, s->over ? s->end_mono_ns : now.mono_ns, true, now);
        }
}

unsigned core_client_segments(Core *c, uint64_t client_id)
{
        const Client *client = client_find(c, client_id);

        return client ? client->n_segments : 0;
}

void core_segments(
        Core *c, Now now, void (*each)(void *userdata, const SegmentInfo *info), void *userdata)
{
        Instance *i;
        Segment *s;

        list_for_each (i, &c->instances, link)
                list_for_each (s, &i->segments, instance_link) {
                        SegmentInfo info = {
                                .segment_id = s->id,
                                .pid = s->pid,
                                .tid = s->tid,
                                .state = s->state,
                                .age_ms = (now.mono_ns - s->start_mono_ns) / NS_PER_MS,
                                .captured = s->n_captured,
                                .sent = (uint64_t)s->sequence,
                                .times = segment_times(s),
                        };

                        if (!s->task)
                                continue;
                        info.task_id = s->task->id;
                        each(userdata, &info);
                }
}
