/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "oap/buffer-private.h"
#include "oap/codec.h"
#include "util/error.h"
#include "util/log.h"

/* What has been fresh for so long goes to the disk: longer than a batch takes to be gathered and
 * sent; and sooner while the backend takes nothing. */
#define KEEP_NS         (1000 * NS_PER_MS)
#define KEEP_FAILING_NS (250 * NS_PER_MS)
#define RETRY_NS        (1000 * NS_PER_MS)
/* Put on disk at once, and read. */
#define WRITE_MAX 4096
#define READ_MAX  500

static bool keeps(const Buffer *b)
{
        return b->keep && b->keep->works(b->keep->userdata);
}

/* ---- records ---- */

static KeptSegment segment_kept(const BufferSegment *s, bool taken_kept)
{
        return (KeptSegment){
                .id = s->id,
                .service = s->service,
                .instance = s->instance,
                .task_id = s->task_id,
                .segment_id = s->segment_id,
                .next_sequence = s->next_sequence - (int32_t)s->n_taken,
                .reserved_sequence =
                        s->used_sequence > s->next_sequence ? s->used_sequence : s->next_sequence,
                .left_id = s->left_id,
                .reserved_kept = s->n_taken > 0 && taken_kept,
                .first_wall_ms = s->first_wall_ms,
                .last_wall_ms = s->last_wall_ms,
                /* One whose snapshots were dropped would go on with a hole. */
                .done = s->done || s->dropped,
                .report = s->report.data ?: s->draft.data,
                .report_size = s->report.data ? s->report.size : s->draft.size,
        };
}

/* A record of the segments that entries name, and the entries. */
typedef struct Draft {
        KeptSegment *segments;
        KeptSnapshot *snapshots;
        size_t n_segments, n_snapshots;
} Draft;

static void draft_deinit(Draft *d)
{
        free(d->segments);
        free(d->snapshots);
}

/* Of these n entries. Return: 0, -ENOMEM. */
static int draft_make(Draft *d, const Buffer *b, const ListLink *entries, size_t n)
{
        Entry *e;

        d->segments = malloc(n * sizeof(*d->segments));
        d->snapshots = malloc(n * sizeof(*d->snapshots));
        if (!d->segments || !d->snapshots)
                return error_origin(-ENOMEM);
        list_for_each (e, entries, link) {
                BufferSegment *s = e->segment;

                d->snapshots[d->n_snapshots++] = (KeptSnapshot){.id = e->id,
                        .segment = s->id,
                        .time_wall_ms = e->time_wall_ms,
                        .stack = e->stack};
                if (s->listed)
                        continue;
                s->listed = true;
                d->segments[d->n_segments++] = segment_kept(s, b->taken_kept);
        }
        list_for_each (e, entries, link) {
                e->segment->listed = false;
                e->segment->recorded = true;
        }
        return 0;
}

static int buffer_record(
        const Buffer *b, const KeepRecord *record, KeepRecorded done, void *userdata)
{
        int r = b->keep->record(b->keep->userdata, record, done, userdata);

        if (r < 0 && !done)
                counter_add(COUNTER_STORE_RECORDS_LOST, 1);
        return r < 0 ? error_trace(r) : 0;
}

void buffer_record_segment(Buffer *b, BufferSegment *s)
{
        KeptSegment kept = segment_kept(s, b->taken_kept);

        if (!b->keep)
                return;
        s->recorded = true;
        buffer_record(b, &(KeepRecord){.segments = &kept, .n_segments = 1}, NULL, NULL);
}

void buffer_record_batch(Buffer *b, bool removed)
{
        _cleanup_(draft_deinit) Draft d = {0};
        KeepRecord record;

        if (!b->keep)
                return;
        if (draft_make(&d, b, &b->taken, b->n_taken) < 0) {
                counter_add(COUNTER_STORE_RECORDS_LOST, 1);
                return;
        }
        record = (KeepRecord){.segments = d.segments, .n_segments = d.n_segments};
        if (removed) {
                record.removed = d.snapshots;
                record.n_removed = d.n_snapshots;
        }
        buffer_record(b, &record, NULL, NULL);
}

static void batch_reserved(void *userdata, bool failed, const KeptLoss *losses, size_t n_losses)
{
        Buffer *b = userdata;

        b->reserved(b->reserved_userdata);
}

int buffer_batch_reserve(Buffer *b, void (*done)(void *userdata), void *userdata)
{
        _cleanup_(draft_deinit) Draft d = {0};

        if (b->n_taken == 0 || !keeps(b) || draft_make(&d, b, &b->taken, b->n_taken) < 0)
                return BUFFER_E_NO_KEEP;
        b->reserved = done;
        b->reserved_userdata = userdata;
        if (buffer_record(b, &(KeepRecord){.segments = d.segments, .n_segments = d.n_segments},
                    batch_reserved, b) < 0)
                return BUFFER_E_NO_KEEP;
        return 0;
}

/* ---- to the disk ---- */

/* Those on their way stay in memory: first in order, as they were. */
static void writing_failed(Buffer *b)
{
        ListLink *first = b->fresh.next;
        Entry *e, *next;

        list_for_each_safe (e, next, &b->writing, link) {
                BufferSegment *s = e->segment;

                buffer_segment_set_kept(b, s, s->n_kept - 1);
                e->busy = false;
                buffer_entry_set_fresh(b, e, true);
                list_remove(&e->link);
                list_append(first, &e->link);
        }
        b->n_writing = 0;
}

static BufferSegment *segment_by_id(const Buffer *b, uint64_t id)
{
        for (HashLink *l = hash_table_find(&b->segments_by_id, hash_u64(id)); l;
                l = hash_link_next(l)) {
                BufferSegment *s = container_of(l, BufferSegment, by_id);

                if (s->id == id)
                        return s;
        }
        return NULL;
}

/* Made room for others: what is left of the segment goes, too. */
static void segment_lost(Buffer *b, const KeptLoss *loss)
{
        BufferSegment *s = segment_by_id(b, loss->segment);
        size_t n = loss->n_snapshots;

        if (s) {
                s->dropped = true;
                n += buffer_segment_drop(b, s);
                buffer_segment_set_kept(b, s, 0);
                if (!s->done)
                        buffer_record_segment(b, s);
                buffer_segment_retire(b, s);
        }
        counter_add(COUNTER_SNAPSHOTS_KEPT_OVER, n);
}

static void writing_done(void *userdata, bool failed, const KeptLoss *losses, size_t n_losses)
{
        Buffer *b = userdata;
        Entry *e, *next;

        if (failed) {
                writing_failed(b);
                return;
        }
        counter_add(COUNTER_SNAPSHOTS_KEPT, b->n_writing);
        list_for_each_safe (e, next, &b->writing, link)
                buffer_entry_free(b, e);
        b->n_writing = 0;
        b->exhausted = false;
        for (size_t i = 0; i < n_losses; i++)
                segment_lost(b, &losses[i]);
}

/* Takes those out that are up to mark_id. A segment with some in the batch waits: these may come
 * back, and are first. */
static void writing_collect(Buffer *b)
{
        Entry *e, *next;

        list_for_each_safe (e, next, &b->fresh, link) {
                BufferSegment *s = e->segment;

                if (e->id > b->mark_id || b->n_writing == WRITE_MAX)
                        break;
                if (s->n_taken > 0 && !b->taken_kept)
                        continue;
                buffer_entry_set_fresh(b, e, false);
                e->busy = true;
                buffer_segment_set_kept(b, s, s->n_kept + 1);
                list_remove(&e->link);
                list_append(&b->writing, &e->link);
                b->n_writing++;
        }
}

/* Those read from the disk are the first ones there: these segments are in use. */
static uint64_t buffer_in_use(const Buffer *b)
{
        const ListLink *last = list_empty(&b->read) ? b->taken.prev : b->read.prev;

        if (list_empty(&b->read) && (list_empty(&b->taken) || !b->taken_kept))
                return 0;
        return container_of(last, Entry, link)->segment->id;
}

static void buffer_write(Buffer *b, KeepRecorded done)
{
        _cleanup_(draft_deinit) Draft d = {0};
        int r;

        writing_collect(b);
        if (b->n_writing == 0)
                return;
        r = draft_make(&d, b, &b->writing, b->n_writing);
        if (r == 0)
                r = buffer_record(b,
                        &(KeepRecord){.segments = d.segments,
                                .n_segments = d.n_segments,
                                .snapshots = d.snapshots,
                                .n_snapshots = d.n_snapshots,
                                .in_use = buffer_in_use(b)},
                        done, b);
        if (r < 0)
                writing_failed(b);
}

static uint64_t keep_after_ns(bool failing)
{
        return failing ? KEEP_FAILING_NS : KEEP_NS;
}

static size_t buffer_n_memory(const Buffer *b)
{
        return b->n - b->n_taken - b->n_read - b->n_writing;
}

static void buffer_write_step(Buffer *b, Now now, bool failing)
{
        uint64_t after_ns = keep_after_ns(failing);

        if (buffer_n_memory(b) == 0) {
                b->mark_mono_ns = 0;
                b->mark_id = 0;
                return;
        }
        if (b->mark_mono_ns == 0 || b->mark_mono_ns > now.mono_ns + after_ns)
                b->mark_mono_ns = now.mono_ns + after_ns;
        if (b->mark_mono_ns > now.mono_ns)
                return;
        b->mark_mono_ns = now.mono_ns + after_ns;
        if (keeps(b) && b->n_writing == 0 && !b->reading)
                buffer_write(b, writing_done);
        b->mark_id = b->last_id;
}

void buffer_keep_all(Buffer *b)
{
        Entry *e, *next;

        if (!keeps(b))
                return;
        do {
                /* What is on its way is the store's alone now. */
                list_for_each_safe (e, next, &b->writing, link)
                        buffer_entry_free(b, e);
                b->n_writing = 0;
                b->mark_id = UINT64_MAX;
                buffer_write(b, NULL);
        } while (b->n_writing > 0);
}

/* ---- from the disk ---- */

static int buffer_read_one(Buffer *b, BufferSegment *s, const KeptSnapshot *snapshot)
{
        Entry *e = calloc(1, sizeof(*e));

        if (!e)
                return error_origin(-ENOMEM);
        e->segment = s;
        e->id = snapshot->id;
        e->stack = stack_ref(snapshot->stack);
        e->time_wall_ms = snapshot->time_wall_ms;
        e->size = buffer_snapshot_size(s->task_id, s->segment_id, e->stack);
        e->kept = e->fixed = true;
        list_init(&e->segment_link);
        list_append(&b->read, &e->link);
        b->n++;
        b->n_read++;
        b->bytes += e->size;
        return 0;
}

/* Nothing is there any more, whatever was thought to be. */
static void buffer_kept_vanished(Buffer *b)
{
        BufferSegment *s, *next;

        log_warning("%zu snapshots on disk are gone", b->n_kept);
        counter_add(COUNTER_SNAPSHOTS_KEPT_LOST, b->n_kept);
        list_for_each_safe (s, next, &b->segments, link) {
                /* Numbers of theirs that may be in use go with them. */
                if (s->n_kept > 0 && s->next_sequence < s->used_sequence)
                        s->next_sequence = s->used_sequence;
                buffer_segment_set_kept(b, s, 0);
                buffer_segment_retire(b, s);
        }
}

/* Of no segment that gets to the backend, or damaged. */
static void buffer_remove(Buffer *b, BufferSegment *s, const KeptSnapshot *snapshot, bool known)
{
        buffer_record(b, &(KeepRecord){.removed = snapshot, .n_removed = 1}, NULL, NULL);
        counter_add(COUNTER_SNAPSHOTS_KEPT_LOST, 1);
        if (known) {
                buffer_segment_set_kept(b, s, s->n_kept - 1);
                buffer_segment_retire(b, s);
        }
}

static void reading_done(
        void *userdata, bool failed, const KeptSnapshot *snapshots, size_t n_snapshots)
{
        Buffer *b = userdata;
        uint64_t segment = 0;
        size_t n_of_segment = 0;

        b->reading = false;
        b->read_retry_mono_ns = failed ? mono_now_ns() + RETRY_NS : 0;
        if (!failed && n_snapshots == 0)
                buffer_kept_vanished(b);
        for (size_t i = 0; i < n_snapshots; i++) {
                BufferSegment *s = segment_by_id(b, snapshots[i].segment);
                bool known;

                if (snapshots[i].segment != segment)
                        n_of_segment = 0;
                segment = snapshots[i].segment;
                /* The file is not to be trusted: it may have more than it said. */
                known = s && n_of_segment < s->n_kept;
                if (!s || snapshots[i].id <= s->left_id)
                        /* That it has left could not be put on record. */
                        buffer_record(b, &(KeepRecord){.removed = &snapshots[i], .n_removed = 1},
                                NULL, NULL);
                else if (s->dropped || !known || !snapshots[i].stack)
                        buffer_remove(b, s, &snapshots[i], known);
                else if (buffer_read_one(b, s, &snapshots[i]) < 0)
                        break; /* those behind it are read again later */
                else
                        n_of_segment++;
        }
        /* Their removal fails, too, perhaps. */
        if (b->n_read == 0)
                b->read_retry_mono_ns = mono_now_ns() + RETRY_NS;
}

static bool buffer_can_read(const Buffer *b, bool failing)
{
        return b->keep && !failing && b->n_kept > 0 && b->n_read == 0 && !b->reading &&
               b->n_writing == 0 && (b->n_taken == 0 || !b->taken_kept);
}

void buffer_keep_step(Buffer *b, Now now, bool failing)
{
        if (!b->keep)
                return;
        if (buffer_can_read(b, failing) && b->read_retry_mono_ns <= now.mono_ns) {
                if (b->keep->load(b->keep->userdata, READ_MAX, reading_done, b) == 0)
                        b->reading = true;
                else
                        b->read_retry_mono_ns = now.mono_ns + RETRY_NS;
        }
        buffer_write_step(b, now, failing);
}

uint64_t buffer_keep_next_mono_ns(const Buffer *b, bool failing)
{
        uint64_t next_ns = UINT64_MAX;

        if (!b->keep)
                return UINT64_MAX;
        if (buffer_n_memory(b) > 0)
                next_ns = b->mark_mono_ns;
        if (buffer_can_read(b, failing) && b->read_retry_mono_ns < next_ns)
                next_ns = b->read_retry_mono_ns;
        return next_ns;
}

/* ---- what a former daemon has left ---- */

/* The number of what would be next is not known for certain: it is over. */
static void segment_end_uncertain(
        Buffer *b, const BufferSegment *s, const KeptSegment *segment, size_t n_snapshots)
{
        size_t n_ambiguous = (size_t)(segment->reserved_sequence - segment->next_sequence);
        size_t n_lost = n_snapshots;
        KeptSegment kept = segment_kept(s, false);

        if (segment->reserved_kept)
                n_lost = n_snapshots > n_ambiguous ? n_snapshots - n_ambiguous : 0;
        counter_add(COUNTER_SNAPSHOTS_AMBIGUOUS, n_ambiguous);
        counter_add(COUNTER_SNAPSHOTS_KEPT_LOST, n_lost);
        buffer_record(
                b, &(KeepRecord){.segments = &kept, .n_segments = 1, .emptied = s->id}, NULL, NULL);
}

/* Return: 0, -ENOMEM. */
static int restore_report(BufferSegment *s, const KeptSegment *segment)
{
        size_t size = segment->report_size;
        void *report;

        /* That of one which got no more snapshots while its span went on is a draft still. */
        if (!segment->done || codec_segment_end(segment->report, segment->report_size,
                                      segment->last_wall_ms, &report, &size) != 0) {
                report = malloc(segment->report_size);
                if (!report)
                        return error_origin(-ENOMEM);
                memcpy(report, segment->report, segment->report_size);
        }
        *(segment->done ? &s->report : &s->draft) = (RpcBytes){report, size};
        return 0;
}

int buffer_restore(Buffer *b, const KeptSegment *segment, size_t n_snapshots, bool task_lives,
        bool again, bool *ret_continues)
{
        size_t n_unsure = (size_t)(segment->reserved_sequence - segment->next_sequence);
        /* Sent again, what is on disk gets those numbers once more; what was in memory only has
         * taken its own along. */
        bool certain = n_unsure == 0 || (again && n_snapshots > 0);
        bool goes_on = n_unsure == 0 || (again && n_snapshots >= n_unsure);
        BufferSegment *s = buffer_segment_new(b, segment->id, segment->service, segment->instance,
                segment->task_id, segment->segment_id);

        if (!s)
                return error_origin(-ENOMEM);
        if (segment->id > b->last_id)
                b->last_id = segment->id;
        /* That one was never on disk. Snapshots with lower ids would be taken for such that have left. */
        if (segment->left_id > b->last_id)
                b->last_id = segment->left_id;
        if (segment->report_size > 0 && restore_report(s, segment) < 0)
                return error_origin(-ENOMEM);
        s->left = true;
        s->next_sequence = certain ? segment->next_sequence : segment->reserved_sequence;
        s->used_sequence = segment->reserved_sequence;
        s->left_id = segment->left_id;
        s->first_wall_ms = segment->first_wall_ms;
        s->last_wall_ms = segment->last_wall_ms;
        s->recorded = true;
        s->done = segment->done || !goes_on || !task_lives;
        *ret_continues = !s->done;
        if (s->done)
                buffer_segment_give_up(s);
        if (certain && !goes_on)
                counter_add(COUNTER_SNAPSHOTS_AMBIGUOUS, n_unsure - n_snapshots);
        if (certain)
                buffer_segment_set_kept(b, s, n_snapshots);
        else
                segment_end_uncertain(b, s, segment, n_snapshots);
        buffer_segment_retire(b, s);
        return 0;
}
