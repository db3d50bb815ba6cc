/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "oap/buffer.h"
#include "oap/codec.h"
#include "util/error.h"
#include "util/list.h"

/* Tags, lengths, time and sequence of an encoded snapshot, and of a string in it: generous. */
#define SNAPSHOT_OVERHEAD 32
#define STRING_OVERHEAD   4
/* Encoded bytes of a batch: they exist beside the buffer while the stream lasts. */
#define BATCH_MAX_BYTES (4 * 1024 * 1024)
/* A thinning pass that frees less than this share of the bound is not tried again until a batch has
 * left. */
#define THINNING_MIN_SHARE 16

typedef struct BufferSegment {
        ListLink link;
        char *service, *instance, *task_id, *segment_id;
        int32_t next_sequence;
        ListLink entries; /* Entry.segment_link */
        bool done;
        RpcBytes report;
} BufferSegment;

typedef struct Entry {
        ListLink link; /* buffer's */
        ListLink segment_link;
        BufferSegment *segment;
        Stack *stack;
        int64_t time_wall_ms;
        size_t size;
        bool taken; /* by the batch */
} Entry;

struct Buffer {
        ListLink entries; /* in order; those of the batch are the first */
        ListLink segments;
        ListLink retired; /* BufferSegment.link: done and empty, with a report */
        size_t n, n_taken, bytes;
        bool exhausted; /* thinning again is not worth the while */
};

Buffer *buffer_new(void)
{
        Buffer *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        list_init(&b->entries);
        list_init(&b->segments);
        list_init(&b->retired);
        return b;
}

static void segment_free(BufferSegment *s)
{
        list_remove(&s->link);
        free(s->service);
        free(s->instance);
        free(s->task_id);
        free(s->segment_id);
        free((void *)s->report.data);
        free(s);
}

static void entry_free(Buffer *b, Entry *e)
{
        list_remove(&e->link);
        list_remove(&e->segment_link);
        b->n--;
        b->bytes -= e->size;
        stack_unref(e->stack);
        free(e);
}

/* Lets a segment go that is done and has nothing left to send. */
static void segment_retire(Buffer *b, BufferSegment *s)
{
        if (!s->done || !list_empty(&s->entries))
                return;
        if (!s->report.data) {
                segment_free(s);
                return;
        }
        list_remove(&s->link);
        list_append(&b->retired, &s->link);
}

Buffer *buffer_free(Buffer *b)
{
        Entry *e, *next_entry;
        BufferSegment *s, *next;

        if (!b)
                return NULL;
        list_for_each_safe (e, next_entry, &b->entries, link)
                entry_free(b, e);
        list_for_each_safe (s, next, &b->segments, link)
                segment_free(s);
        list_for_each_safe (s, next, &b->retired, link)
                segment_free(s);
        free(b);
        return NULL;
}

static bool segment_is(const BufferSegment *s, const char *service, const char *instance,
        const char *task_id, const char *segment_id)
{
        return (!segment_id || strcmp(s->segment_id, segment_id) == 0) &&
               (!task_id || strcmp(s->task_id, task_id) == 0) &&
               strcmp(s->instance, instance) == 0 && strcmp(s->service, service) == 0;
}

static BufferSegment *segment_new(Buffer *b, const Snapshot *snapshot)
{
        BufferSegment *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        list_init(&s->entries);
        list_append(&b->segments, &s->link);
        s->service = strdup(snapshot->service);
        s->instance = strdup(snapshot->instance);
        s->task_id = strdup(snapshot->task_id);
        s->segment_id = strdup(snapshot->segment_id);
        if (s->service && s->instance && s->task_id && s->segment_id)
                return s;
        segment_free(s);
        return NULL;
}

static size_t snapshot_size(const Snapshot *snapshot)
{
        size_t size = SNAPSHOT_OVERHEAD + strlen(snapshot->task_id) + strlen(snapshot->segment_id);

        for (size_t i = 0; i < snapshot->stack->n_signatures; i++)
                size += strlen(snapshot->stack->signatures[i]) + STRING_OVERHEAD;
        return size;
}

/* Drops every second entry that has the same stack before and behind it. Return: the bytes that
 * became free. */
static size_t segment_thin(Buffer *b, BufferSegment *s)
{
        size_t before = b->bytes, n_interior = 0;
        const Stack *previous = NULL;
        Entry *e, *next;

        list_for_each_safe (e, next, &s->entries, segment_link) {
                const Stack *stack = e->stack;
                bool taken = e->taken;
                bool interior = !taken && previous == stack && &next->segment_link != &s->entries &&
                                next->stack == stack;

                n_interior = interior ? n_interior + 1 : 0;
                if (n_interior % 2 == 1) {
                        entry_free(b, e);
                        counter_add(COUNTER_SNAPSHOTS_THINNED, 1);
                }
                /* What the batch holds may yet be lost: no run leans on it. */
                previous = taken ? NULL : stack;
        }
        return before - b->bytes;
}

static bool buffer_make_room(Buffer *b, size_t size, size_t max_bytes)
{
        size_t freed = 0;
        BufferSegment *s;

        if (b->bytes + size <= max_bytes)
                return true;
        if (b->exhausted)
                return false;
        list_for_each (s, &b->segments, link)
                freed += segment_thin(b, s);
        b->exhausted = freed < max_bytes / THINNING_MIN_SHARE;
        return b->bytes + size <= max_bytes;
}

int buffer_add(Buffer *b, const Snapshot *snapshot, size_t max_bytes)
{
        size_t size = snapshot_size(snapshot);
        BufferSegment *s, *found = NULL;
        Entry *e;

        if (!buffer_make_room(b, size, max_bytes))
                return BUFFER_E_FULL;
        e = calloc(1, sizeof(*e));
        if (!e)
                return error_origin(-ENOMEM);
        /* There are few: as many as the core profiles while a task lasts. */
        list_for_each (s, &b->segments, link)
                if (!s->done && segment_is(s, snapshot->service, snapshot->instance,
                                        snapshot->task_id, snapshot->segment_id))
                        found = s;
        s = found ? found : segment_new(b, snapshot);
        if (!s) {
                free(e);
                return error_origin(-ENOMEM);
        }
        e->segment = s;
        e->stack = stack_ref(snapshot->stack);
        e->time_wall_ms = snapshot->time_wall_ms;
        e->size = size;
        list_append(&b->entries, &e->link);
        list_append(&s->entries, &e->segment_link);
        b->n++;
        b->bytes += size;
        return 0;
}

bool buffer_segment_done(Buffer *b, const char *service, const char *instance,
        const char *segment_id, RpcBytes report)
{
        BufferSegment *s;

        list_for_each (s, &b->segments, link)
                if (!s->report.data && segment_is(s, service, instance, NULL, segment_id)) {
                        s->done = true;
                        s->report = report;
                        segment_retire(b, s);
                        return true;
                }
        return false;
}

void buffer_task_done(Buffer *b, const char *service, const char *instance, const char *task_id)
{
        BufferSegment *s, *next;

        list_for_each_safe (s, next, &b->segments, link)
                if (segment_is(s, service, instance, task_id, NULL)) {
                        s->done = true;
                        segment_retire(b, s);
                }
}

void buffer_batch_deinit(BufferBatch *batch)
{
        for (size_t i = 0; i < batch->n; i++)
                free((void *)batch->messages[i].data);
        free(batch->messages);
        *batch = (BufferBatch){0};
}

int buffer_batch_begin(Buffer *b, size_t n, BufferBatch *ret)
{
        _cleanup_(buffer_batch_deinit) BufferBatch batch = {0};
        size_t bytes = 0;
        Entry *e;

        assert(b->n_taken == 0);
        if (n > b->n)
                n = b->n;
        batch.messages = calloc(n > 0 ? n : 1, sizeof(*batch.messages));
        if (!batch.messages)
                return error_origin(-ENOMEM);
        list_for_each (e, &b->entries, link) {
                Snapshot snapshot = {.task_id = e->segment->task_id,
                        .segment_id = e->segment->segment_id,
                        .time_wall_ms = e->time_wall_ms,
                        .sequence = e->segment->next_sequence,
                        .stack = e->stack};
                void *data;
                size_t size;
                int r;

                if (batch.n == n || (batch.n > 0 && bytes + e->size > BATCH_MAX_BYTES))
                        break;
                r = codec_snapshot(&snapshot, &data, &size);
                if (r < 0) {
                        buffer_batch_end(b, false);
                        return error_trace(r);
                }
                batch.messages[batch.n++] = (RpcBytes){data, size};
                bytes += e->size;
                e->segment->next_sequence++;
                e->taken = true;
                b->n_taken++;
        }
        *ret = batch;
        batch = (BufferBatch){0};
        return 0;
}

void buffer_batch_end(Buffer *b, bool left)
{
        Entry *e, *next;

        list_for_each_safe (e, next, &b->entries, link) {
                BufferSegment *s = e->segment;

                if (!e->taken)
                        break;
                e->taken = false;
                if (left) {
                        entry_free(b, e);
                        segment_retire(b, s);
                } else {
                        s->next_sequence--;
                }
        }
        b->n_taken = 0;
        b->exhausted = false;
}

size_t buffer_drop(Buffer *b)
{
        size_t n = b->n;
        Entry *e, *next;

        list_for_each_safe (e, next, &b->entries, link) {
                BufferSegment *s = e->segment;

                if (e->taken)
                        continue;
                entry_free(b, e);
                segment_retire(b, s);
        }
        b->exhausted = false;
        return n - b->n;
}

RpcBytes buffer_retired(Buffer *b)
{
        BufferSegment *s = list_first(&b->retired, BufferSegment, link);
        RpcBytes report = {0};

        if (s) {
                report = s->report;
                s->report = (RpcBytes){0};
                segment_free(s);
        }
        return report;
}

size_t buffer_n(const Buffer *b)
{
        return b->n;
}

size_t buffer_bytes(const Buffer *b)
{
        return b->bytes;
}

bool buffer_has_task(
        const Buffer *b, const char *service, const char *instance, const char *task_id)
{
        const BufferSegment *s;

        list_for_each (s, &b->segments, link)
                if (!list_empty(&s->entries) && segment_is(s, service, instance, task_id, NULL))
                        return true;
        return false;
}
