/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "oap/buffer-private.h"
#include "oap/codec.h"
#include "util/error.h"

/* Tags, lengths, time and sequence of an encoded snapshot, and of a string in it: generous. */
#define SNAPSHOT_OVERHEAD 32
#define STRING_OVERHEAD   4
/* Encoded bytes of a batch: they exist beside the buffer while the stream lasts. */
#define BATCH_MAX_BYTES (4 * 1024 * 1024)
/* A thinning pass that frees less than this share of the bound is not tried again until a batch has
 * left. */
#define THINNING_MIN_SHARE 16

Buffer *buffer_new(const Keep *keep)
{
        Buffer *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        b->keep = keep;
        b->last_id = keep ? keep->last_id : 0;
        list_init(&b->segments);
        list_init(&b->retired);
        list_init(&b->fresh);
        list_init(&b->read);
        list_init(&b->writing);
        list_init(&b->taken);
        return b;
}

/* ---- segments ---- */

static void segment_free(Buffer *b, BufferSegment *s)
{
        list_remove(&s->link);
        hash_table_remove(&b->segments_by_id, &s->by_id);
        hash_table_remove(&b->segments_by_name, &s->by_name);
        free(s->service);
        free(s->instance);
        free(s->task_id);
        free(s->segment_id);
        free((void *)s->report.data);
        free((void *)s->draft.data);
        free(s);
}

BufferSegment *buffer_segment_new(Buffer *b, uint64_t id, const char *service, const char *instance,
        const char *task_id, const char *segment_id)
{
        BufferSegment *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->id = id;
        list_init(&s->entries);
        s->service = strdup(service);
        s->instance = strdup(instance);
        s->task_id = strdup(task_id);
        s->segment_id = strdup(segment_id);
        list_append(&b->segments, &s->link);
        if (s->service && s->instance && s->task_id && s->segment_id &&
                hash_table_add(&b->segments_by_id, &s->by_id, hash_u64(id)) == 0 &&
                hash_table_add(&b->segments_by_name, &s->by_name, hash_string(segment_id)) == 0)
                return s;
        segment_free(b, s);
        return NULL;
}

static bool segment_is(const BufferSegment *s, const char *service, const char *instance,
        const char *task_id, const char *segment_id)
{
        return (!segment_id || strcmp(s->segment_id, segment_id) == 0) &&
               (!task_id || strcmp(s->task_id, task_id) == 0) &&
               strcmp(s->instance, instance) == 0 && strcmp(s->service, service) == 0;
}

BufferSegment *buffer_segment_find(const Buffer *b, const char *service, const char *instance,
        const char *task_id, const char *segment_id)
{
        for (HashLink *l = hash_table_find(&b->segments_by_name, hash_string(segment_id)); l;
                l = hash_link_next(l)) {
                BufferSegment *s = container_of(l, BufferSegment, by_name);

                if (!s->done && segment_is(s, service, instance, task_id, segment_id))
                        return s;
        }
        return NULL;
}

void buffer_segment_give_up(BufferSegment *s)
{
        void *data;
        size_t size;

        if (!s->left || !s->draft.data || s->report.data)
                return;
        if (codec_segment_end(s->draft.data, s->draft.size, s->last_wall_ms, &data, &size) == 0)
                s->report = (RpcBytes){data, size};
        else
                counter_add(COUNTER_TRACE_SEGMENTS_LOST, 1);
}

void buffer_segment_retire(Buffer *b, BufferSegment *s)
{
        if (!s->done || !list_empty(&s->entries) || s->n_kept > 0)
                return;
        /* Its task is over, its span is not: the report is to come. */
        if (!s->report.data && s->draft.data && !s->left)
                return;
        if (!s->report.data) {
                segment_free(b, s);
                return;
        }
        list_remove(&s->link);
        list_append(&b->retired, &s->link);
}

void buffer_segment_set_kept(Buffer *b, BufferSegment *s, size_t n_kept)
{
        b->n_kept += n_kept - s->n_kept;
        if (s->n_kept == 0 && n_kept > 0)
                b->n_fresh -= s->n_fresh;
        if (s->n_kept > 0 && n_kept == 0)
                b->n_fresh += s->n_fresh;
        s->n_kept = n_kept;
}

/* ---- entries ---- */

void buffer_entry_set_fresh(Buffer *b, Entry *e, bool fresh)
{
        BufferSegment *s = e->segment;

        s->n_fresh += fresh ? 1 : -1;
        if (s->n_kept == 0)
                b->n_fresh += fresh ? 1 : -1;
}

/* One that counts as fresh no more. */
void buffer_entry_free(Buffer *b, Entry *e)
{
        list_remove(&e->link);
        list_remove(&e->segment_link);
        b->n--;
        b->bytes -= e->size;
        stack_unref(e->stack);
        free(e);
}

static void entries_free(Buffer *b, ListLink *entries)
{
        Entry *e, *next;

        list_for_each_safe (e, next, entries, link)
                buffer_entry_free(b, e);
}

Buffer *buffer_free(Buffer *b)
{
        BufferSegment *s, *next;

        if (!b)
                return NULL;
        buffer_keep_all(b);
        entries_free(b, &b->fresh);
        entries_free(b, &b->read);
        entries_free(b, &b->writing);
        entries_free(b, &b->taken);
        list_for_each_safe (s, next, &b->segments, link)
                segment_free(b, s);
        list_for_each_safe (s, next, &b->retired, link)
                segment_free(b, s);
        hash_table_deinit(&b->segments_by_id);
        hash_table_deinit(&b->segments_by_name);
        free(b);
        return NULL;
}

size_t buffer_snapshot_size(const char *task_id, const char *segment_id, const Stack *stack)
{
        size_t size = SNAPSHOT_OVERHEAD + strlen(task_id) + strlen(segment_id);

        for (size_t i = 0; i < stack->n_signatures; i++)
                size += strlen(stack->signatures[i]) + STRING_OVERHEAD;
        return size;
}

static void entry_drop(Buffer *b, Entry *e)
{
        buffer_entry_set_fresh(b, e, false);
        buffer_entry_free(b, e);
}

size_t buffer_segment_drop(Buffer *b, BufferSegment *s)
{
        size_t n = b->n;
        Entry *e, *next;

        list_for_each_safe (e, next, &s->entries, segment_link)
                if (!e->fixed && !e->busy)
                        entry_drop(b, e);
        return n - b->n;
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
                bool fixed = e->fixed || e->busy;
                bool interior = !fixed && previous == stack && &next->segment_link != &s->entries &&
                                next->stack == stack;

                n_interior = interior ? n_interior + 1 : 0;
                if (n_interior % 2 == 1) {
                        entry_drop(b, e);
                        counter_add(COUNTER_SNAPSHOTS_THINNED, 1);
                }
                /* What the batch holds may yet be lost: no run leans on it. */
                previous = fixed ? NULL : stack;
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
        size_t size =
                buffer_snapshot_size(snapshot->task_id, snapshot->segment_id, snapshot->stack);
        BufferSegment *s = buffer_segment_find(
                b, snapshot->service, snapshot->instance, snapshot->task_id, snapshot->segment_id);
        Entry *e;

        if ((s && s->dropped) || !buffer_make_room(b, size, max_bytes))
                return BUFFER_E_FULL;
        e = calloc(1, sizeof(*e));
        if (!e)
                return error_origin(-ENOMEM);
        if (!s) {
                s = buffer_segment_new(b, ++b->last_id, snapshot->service, snapshot->instance,
                        snapshot->task_id, snapshot->segment_id);
                if (!s) {
                        free(e);
                        return error_origin(-ENOMEM);
                }
                s->first_wall_ms = snapshot->time_wall_ms;
        }
        s->last_wall_ms = snapshot->time_wall_ms;
        e->segment = s;
        e->id = ++b->last_id;
        e->stack = stack_ref(snapshot->stack);
        e->time_wall_ms = snapshot->time_wall_ms;
        e->size = size;
        list_append(&b->fresh, &e->link);
        list_append(&s->entries, &e->segment_link);
        buffer_entry_set_fresh(b, e, true);
        b->n++;
        b->bytes += size;
        return 0;
}

void buffer_segment_began(Buffer *b, const char *service, const char *instance,
        const char *segment_id, RpcBytes draft)
{
        BufferSegment *s;

        list_for_each (s, &b->segments, link)
                if (!s->done && segment_is(s, service, instance, NULL, segment_id)) {
                        free((void *)s->draft.data);
                        s->draft = draft;
                        s->left = false;
                        return;
                }
        free((void *)draft.data);
}

bool buffer_segment_done(Buffer *b, const char *service, const char *instance,
        const char *segment_id, RpcBytes report)
{
        BufferSegment *s;

        list_for_each (s, &b->segments, link)
                if (!s->report.data && segment_is(s, service, instance, NULL, segment_id)) {
                        s->done = true;
                        s->report = report;
                        if (s->recorded)
                                buffer_record_segment(b, s);
                        buffer_segment_retire(b, s);
                        return true;
                }
        return false;
}

void buffer_segment_unwanted(
        Buffer *b, const char *service, const char *instance, const char *segment_id)
{
        BufferSegment *s;

        list_for_each (s, &b->segments, link)
                if (s->draft.data && segment_is(s, service, instance, NULL, segment_id)) {
                        free((void *)TAKE_PTR(s->draft.data));
                        s->draft.size = 0;
                        s->done = true;
                        if (s->recorded)
                                buffer_record_segment(b, s);
                        buffer_segment_retire(b, s);
                        return;
                }
}

void buffer_task_done(Buffer *b, const char *service, const char *instance, const char *task_id)
{
        BufferSegment *s, *next;

        list_for_each_safe (s, next, &b->segments, link)
                if (segment_is(s, service, instance, task_id, NULL)) {
                        s->done = true;
                        buffer_segment_give_up(s);
                        buffer_segment_retire(b, s);
                }
}

/* ---- batches ---- */

void buffer_batch_deinit(BufferBatch *batch)
{
        for (size_t i = 0; i < batch->n; i++)
                free((void *)batch->messages[i].data);
        free(batch->messages);
        *batch = (BufferBatch){0};
}

static int entry_encode(const Entry *e, RpcBytes *ret)
{
        const BufferSegment *s = e->segment;
        Snapshot snapshot = {.task_id = s->task_id,
                .segment_id = s->segment_id,
                .time_wall_ms = e->time_wall_ms,
                .sequence = s->next_sequence,
                .stack = e->stack};
        void *data;
        size_t size;
        int r = codec_snapshot(&snapshot, &data, &size);

        if (r < 0)
                return error_trace(r);
        *ret = (RpcBytes){data, size};
        return 0;
}

static void entry_take(Buffer *b, Entry *e)
{
        if (e->kept)
                b->n_read--;
        else
                buffer_entry_set_fresh(b, e, false);
        e->busy = true;
        e->segment->next_sequence++;
        e->segment->n_taken++;
        list_remove(&e->link);
        list_append(&b->taken, &e->link);
        b->n_taken++;
}

int buffer_batch_begin(Buffer *b, size_t n, bool fresh_due, BufferBatch *ret)
{
        _cleanup_(buffer_batch_deinit) BufferBatch batch = {0};
        bool kept = b->n_read > 0 && (b->n_fresh == 0 || !fresh_due || b->fresh_last);
        size_t bytes = 0, n_there = kept ? b->n_read : b->n_fresh;
        Entry *e, *next;

        assert(b->n_taken == 0);
        if (n > n_there)
                n = n_there;
        b->taken_kept = kept;
        batch.messages = calloc(n > 0 ? n : 1, sizeof(*batch.messages));
        if (!batch.messages)
                return error_origin(-ENOMEM);
        list_for_each_safe (e, next, kept ? &b->read : &b->fresh, link) {
                int r;

                if (batch.n == n || (batch.n > 0 && bytes + e->size > BATCH_MAX_BYTES))
                        break;
                if (!kept && e->segment->n_kept > 0)
                        continue;
                r = entry_encode(e, &batch.messages[batch.n]);
                if (r < 0) {
                        buffer_batch_end(b, false, false);
                        return error_trace(r);
                }
                batch.n++;
                bytes += e->size;
                entry_take(b, e);
        }
        if (n > 0)
                b->fresh_last = !kept;
        *ret = batch;
        batch = (BufferBatch){0};
        return 0;
}

static void entry_leave(Buffer *b, Entry *e)
{
        BufferSegment *s = e->segment;

        if (e->kept)
                buffer_segment_set_kept(b, s, s->n_kept - 1);
        buffer_entry_free(b, e);
        buffer_segment_retire(b, s);
}

/* Before `first`, where it came from. */
static void entry_put_back(Buffer *b, Entry *e, ListLink *first, bool may_have_left)
{
        e->busy = false;
        e->fixed = e->fixed || may_have_left;
        if (e->kept)
                b->n_read++;
        else
                buffer_entry_set_fresh(b, e, true);
        list_remove(&e->link);
        list_append(first, &e->link);
}

void buffer_batch_end(Buffer *b, bool left, bool may_have_left)
{
        ListLink *first = b->taken_kept ? b->read.next : b->fresh.next;
        Entry *e, *next;

        list_for_each (e, &b->taken, link) {
                if (left)
                        e->segment->left_id = e->id;
                e->segment->n_taken--;
                if (may_have_left && e->segment->used_sequence < e->segment->next_sequence)
                        e->segment->used_sequence = e->segment->next_sequence;
                e->segment->next_sequence -= !left;
        }
        /* Numbers that may be in use stay reserved. */
        if (b->n_taken > 0 && (left || !may_have_left))
                buffer_record_batch(b, left && b->taken_kept);
        list_for_each_safe (e, next, &b->taken, link)
                if (left)
                        entry_leave(b, e);
                else
                        entry_put_back(b, e, first, may_have_left);
        b->n_taken = 0;
        b->exhausted = false;
}

size_t buffer_drop(Buffer *b)
{
        size_t n = b->n;
        Entry *e, *next;

        list_for_each_safe (e, next, &b->fresh, link) {
                BufferSegment *s = e->segment;

                /* The number of one that may have arrived goes with it. */
                if (e->fixed && s->next_sequence < s->used_sequence)
                        s->next_sequence = s->used_sequence;
                entry_drop(b, e);
                buffer_segment_retire(b, s);
        }
        b->exhausted = false;
        return n - b->n;
}

BufferReport buffer_retired(Buffer *b)
{
        BufferSegment *s = list_first(&b->retired, BufferSegment, link);
        BufferReport report = {0};

        if (s) {
                report = (BufferReport){.segment = s->recorded ? s->id : 0, .bytes = s->report};
                s->report = (RpcBytes){0};
                segment_free(b, s);
        }
        return report;
}

/* ---- what there is ---- */

size_t buffer_n(const Buffer *b)
{
        /* What is read from the disk or goes there is counted twice. */
        return b->n + b->n_kept - b->n_writing - b->n_read - (b->taken_kept ? b->n_taken : 0);
}

size_t buffer_n_kept(const Buffer *b)
{
        return b->n_kept - b->n_writing;
}

size_t buffer_n_fresh(const Buffer *b)
{
        return b->n_fresh;
}

size_t buffer_n_ready(const Buffer *b)
{
        return b->n_fresh + b->n_read;
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
                if ((!list_empty(&s->entries) || s->n_kept > 0) &&
                        segment_is(s, service, instance, task_id, NULL))
                        return true;
        return false;
}
