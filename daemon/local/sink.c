/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "local/local-private.h"
#include "util/error.h"
#include "util/log.h"
#include "util/owner.h"

/* How long what comes is gathered. A report of a running task is as old. */
#define GATHER_NS (300 * NS_PER_MS)
/* What failed is tried again so much later. */
#define RETRY_NS (1000 * NS_PER_MS)
/* What waits for the disk, at most, roughly. */
#define PENDING_BYTES_MAX (16U << 20)
/* How often it is looked at whose a program is. */
#define OWNER_MS 250

static uint64_t name_hash(uint64_t task, const char *segment_id)
{
        return hash_u64(task) ^ hash_string(segment_id);
}

static LocalSegment *segment_find(const Sink *s, uint64_t task, const char *id)
{
        uint64_t hash = name_hash(task, id);

        for (HashLink *l = hash_table_find(&s->segments, hash); l; l = hash_link_next(l)) {
                LocalSegment *segment = container_of(l, LocalSegment, by_name);

                if (segment->segment.task == task && strcmp(segment->segment.segment_id, id) == 0)
                        return segment;
        }
        return NULL;
}

static void segment_free(LocalSegment *segment)
{
        free(segment->segment.instance);
        free(segment->segment.segment_id);
        free(segment->segment.operation);
        free(segment);
}

/* Return: NULL: no memory. */
static LocalSegment *segment_new(Sink *s, const ResultSegment *r)
{
        LocalSegment *segment = calloc(1, sizeof(*segment));

        if (!segment)
                return NULL;
        segment->segment = *r;
        segment->segment.instance = strdup(r->instance);
        segment->segment.segment_id = strdup(r->segment_id);
        segment->segment.operation = strdup(r->operation);
        if (segment->segment.instance && segment->segment.segment_id &&
                segment->segment.operation &&
                hash_table_add(
                        &s->segments, &segment->by_name, name_hash(r->task, r->segment_id)) == 0)
                return segment;
        segment_free(segment);
        return NULL;
}

static void segment_forget(Sink *s, LocalSegment *segment)
{
        hash_table_remove(&s->segments, &segment->by_name);
        segment_free(segment);
}

void sink_init(Sink *s, const Results *results)
{
        *s = (Sink){.results = results, .last_id = results->last_id, .due_mono_ns = UINT64_MAX};
}

size_t sink_n_pending(const Sink *s)
{
        return s->n_under_way + (s->waiting ? s->waiting->n_snapshots : 0) +
               (s->filling ? s->filling->n_snapshots : 0);
}

static bool sink_has_room(const Sink *s)
{
        return s->under_way_bytes + (s->waiting ? s->waiting->n_bytes : 0) +
                       (s->filling ? s->filling->n_bytes : 0) <
               PENDING_BYTES_MAX;
}

/* The batch for what comes now. NULL: no memory. */
static ResultBatch *sink_batch(Sink *s)
{
        if (!s->filling)
                s->filling = result_batch_new();
        return s->filling;
}

static void lose(const char *what)
{
        counter_add(COUNTER_STORE_RECORDS_LOST, 1);
        log_error("out of memory: %s is not kept", what);
}

/* ---- what is to be kept ---- */

/* Empty: it has ended. */
static void read_thread_name(pid_t pid, pid_t tid, char *ret, size_t size)
{
        char path[64];
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", (int)pid, (int)tid);
        f = fopen(path, "re");
        if (!f)
                return;
        if (!fgets(ret, (int)size, f))
                ret[0] = '\0';
        ret[strcspn(ret, "\n")] = '\0';
        fclose(f);
}

static LocalSegment *sink_add_segment(Sink *s, ResultBatch *b, const Snapshot *snapshot)
{
        ResultSegment new = {
                .id = s->last_id + 1,
                .task = result_task_number(snapshot->task_id),
                .instance = (char *)snapshot->instance,
                .segment_id = (char *)snapshot->segment_id,
                .operation = (char *)"",
                .uid = snapshot->uid,
                .pid = snapshot->pid,
                .tid = snapshot->tid,
                .start_wall_ms = snapshot->start_wall_ms,
        };
        LocalSegment *segment;

        read_thread_name(new.pid, new.tid, new.thread, sizeof(new.thread));
        if (new.start_wall_ms > snapshot->time_wall_ms)
                new.start_wall_ms = snapshot->time_wall_ms;
        segment = segment_new(s, &new);
        if (!segment)
                return NULL;
        if (result_batch_add_segment(b, &new) < 0) {
                segment_forget(s, segment);
                return NULL;
        }
        s->last_id = new.id;
        return segment;
}

/* A program that has come to have more rights than its user is no business of that user any more. */
static void check_owner(ResultBatch *b, LocalSegment *segment, int64_t now_wall_ms)
{
        ResultSegment *s = &segment->segment;

        if (s->uid == (uid_t)-1 || llabs(now_wall_ms - segment->owner_wall_ms) < OWNER_MS)
                return;
        segment->owner_wall_ms = now_wall_ms;
        if (owner_of(s->pid, s->uid) != OWNER_OTHER)
                return;
        s->uid = (uid_t)-1;
        if (result_batch_add_segment(b, s) < 0)
                lose("who may see a segment");
}

bool sink_snapshot(Sink *s, const Snapshot *snapshot)
{
        ResultBatch *b = sink_has_room(s) ? sink_batch(s) : NULL;
        ResultSnapshot kept = {
                .sequence = snapshot->sequence,
                .state = snapshot->state,
                .time_wall_ms = snapshot->time_wall_ms,
                .stack = snapshot->stack,
        };
        LocalSegment *segment;

        segment = segment_find(s, result_task_number(snapshot->task_id), snapshot->segment_id);
        if (b && !segment)
                segment = sink_add_segment(s, b, snapshot);
        if (b && segment) {
                check_owner(b, segment, snapshot->time_wall_ms);
                kept.segment = segment->segment.id;
                if (result_batch_add_snapshot(b, &kept) == 0)
                        return true;
        }
        counter_add(COUNTER_SNAPSHOTS_DROPPED, 1);
        return false;
}

void sink_segment_done(Sink *s, const SegmentReport *report)
{
        LocalSegment *segment =
                segment_find(s, result_task_number(report->task_id), report->segment_id);
        ResultBatch *b = sink_batch(s);
        ResultSegment done;

        if (!segment)
                return;
        done = segment->segment;
        done.operation = (char *)report->operation;
        done.start_wall_ms = report->start_wall_ms;
        done.duration_ms = report->end_wall_ms - report->start_wall_ms;
        done.times = report->times;
        done.losses = report->losses;
        done.error = report->error;
        done.done = true;
        if (!b || result_batch_add_segment(b, &done) < 0)
                lose("the end of a segment");
        segment_forget(s, segment);
}

void sink_task(Sink *s, const ResultTask *task)
{
        ResultBatch *b = sink_batch(s);

        if (!b || result_batch_add_task(b, task) < 0)
                lose("a task");
}

int sink_restore_segment(Sink *s, const ResultSegment *segment)
{
        return segment_new(s, segment) ? 0 : error_origin(-ENOMEM);
}

/* ---- batches ---- */

static void sink_recorded(void *userdata, ResultBatch *batch, bool failed)
{
        Sink *s = userdata;

        s->under_way = false;
        s->n_under_way = s->under_way_bytes = 0;
        s->failed = failed;
        s->due_mono_ns = UINT64_MAX;
        if (failed)
                s->waiting = batch;
        else
                result_batch_free(batch);
}

static void sink_hand_over(Sink *s)
{
        size_t n, bytes;

        if (!s->waiting)
                s->waiting = TAKE_PTR(s->filling);
        n = s->waiting->n_snapshots;
        bytes = s->waiting->n_bytes;
        s->due_mono_ns = UINT64_MAX;
        s->failed = !s->results->works(s->results->userdata) ||
                    s->results->record(s->results->userdata, s->waiting, sink_recorded, s) < 0;
        if (s->failed)
                return;
        s->waiting = NULL;
        s->under_way = true;
        s->n_under_way = n;
        s->under_way_bytes = bytes;
}

bool sink_idle(const Sink *s)
{
        return !s->under_way && !s->filling && !s->waiting;
}

uint64_t sink_next_mono_ns(const Sink *s)
{
        if (s->under_way || sink_idle(s))
                return UINT64_MAX;
        return s->due_mono_ns == UINT64_MAX ? 0 : s->due_mono_ns;
}

void sink_step(Sink *s, Now now)
{
        if (s->under_way || sink_idle(s))
                return;
        if (s->due_mono_ns == UINT64_MAX)
                s->due_mono_ns = now.mono_ns + (s->failed ? RETRY_NS : GATHER_NS);
        if (s->due_mono_ns <= now.mono_ns)
                sink_hand_over(s);
}

void sink_flush(Sink *s)
{
        if (!s->under_way && !sink_idle(s))
                sink_hand_over(s);
}

void sink_deinit(Sink *s)
{
        /* The last words: the answers are not waited for. */
        for (int i = 0; i < 2 && (s->waiting || s->filling) && !s->failed; i++)
                sink_hand_over(s);
        result_batch_free(s->waiting);
        result_batch_free(s->filling);
        for (size_t i = 0; i < s->segments.n_buckets; i++)
                for (HashLink *l = s->segments.buckets[i], *next; l; l = next) {
                        next = l->next;
                        segment_free(container_of(l, LocalSegment, by_name));
                }
        hash_table_deinit(&s->segments);
}
