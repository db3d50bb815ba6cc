/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"
#include "core/keep.h"
#include "oap/rpc.h"
#include "util/cleanup.h"

/*
 * Snapshots waiting for the backend, in order, bounded by their encoded size. A stack is held by
 * reference: snapshots with the same one share it until they are encoded, at streaming time.
 *
 * Sequence numbers: the one that goes over the wire is given here, when a batch is taken,
 * contiguous from 0 for each (task, segment). The core's own numbers are contiguous as well and
 * serve as the order only, for thinning takes snapshots out between them.
 *
 * Keeping: what is not taken by the backend in good time is put on disk (see core/keep.h), where
 * there is more room, and where it outlives the daemon. From there it is read, some at a time, and
 * sent beside what is fresh: a segment of which some is on disk waits for its turn there, others do
 * not. A killed daemon loses what it had not put on disk: up to 2 s while all is well, 0.5 s while
 * the backend fails. Which numbers a batch has used is put on record before it leaves, and what
 * became of it afterwards: if the daemon is killed in between, nobody knows, and its segments end
 * there. While the disk fails all stays in memory, and is sent without a record.
 *
 * Thinning: when the buffer is full, every second interior sample of each run of identical stacks
 * of a segment is dropped (the ends stay, so that the durations the backend computes stay exact);
 * the next time it is full again, every second one of what is left. Snapshots of a batch, those
 * that were in one, and those that go to the disk, are not touched.
 *
 * A segment is known here from its first snapshot until it or its task is done and its last
 * snapshot has left.
 */

typedef struct Buffer Buffer;

/* `keep`: borrowed; NULL: all stays in memory. Return: NULL: no memory. */
Buffer *buffer_new(const Keep *keep);
/* Puts on disk what can be. */
Buffer *buffer_free(Buffer *b);
DEFINE_CLEANUP(Buffer *, buffer_free)

enum {
        _BUFFER_E_SUCCESS,
        BUFFER_E_FULL,    /* or the segment's snapshots were dropped from the disk */
        BUFFER_E_NO_KEEP, /* nothing is put on record */
};

/*
 * A segment that a former daemon has left, with so many snapshots on disk. `task_lives`: its task
 * is not over. `again`: what may have arrived already is sent again.
 *
 * Return: 0 with *ret_continues: more snapshots of it would be in sequence; -ENOMEM.
 */
int buffer_restore(Buffer *b, const KeptSegment *segment, size_t n_snapshots, bool task_lives,
        bool again, bool *ret_continues);

/*
 * Takes the snapshot in if all stay within max_bytes, thinning first if need be.
 *
 * Return: 0, BUFFER_E_FULL, -ENOMEM.
 */
int buffer_add(Buffer *b, const Snapshot *snapshot, size_t max_bytes);

/* A trace segment, and the id under which it is on record. */
typedef struct BufferReport {
        uint64_t segment;
        RpcBytes bytes; /* malloc'ed */
} BufferReport;

/* The segment is known, and is live: takes the trace segment (malloc'ed) that a later daemon is to
 * report if it never hears of the segment. */
void buffer_segment_began(Buffer *b, const char *service, const char *instance,
        const char *segment_id, RpcBytes draft);

/* Its last snapshot was given, and its trace segment is not to be reported any more. */
void buffer_segment_unwanted(
        Buffer *b, const char *service, const char *instance, const char *segment_id);

/*
 * The segment gets no more snapshots. `report` (malloc'ed) is kept with it and given to the caller
 * of buffer_retired() once its last snapshot has left.
 *
 * Return: true; false: no such segment is known (any more), the report stays the caller's.
 */
bool buffer_segment_done(Buffer *b, const char *service, const char *instance,
        const char *segment_id, RpcBytes report);

/* No segment of the task gets more snapshots. */
void buffer_task_done(Buffer *b, const char *service, const char *instance, const char *task_id);

/*
 * The next batch, encoded: at most n snapshots, and no more than fit a few MiB. They stay in the
 * buffer until buffer_batch_end() says what became of them; there is one batch at a time.
 * `fresh_due`: it is time for those that were never on disk.
 *
 * Return: 0, -ENOMEM.
 */
typedef struct BufferBatch {
        RpcBytes *messages; /* malloc'ed, and so are the bytes */
        size_t n;
} BufferBatch;
int buffer_batch_begin(Buffer *b, size_t n, bool fresh_due, BufferBatch *ret);
void buffer_batch_deinit(BufferBatch *batch);

/* Puts the numbers of the batch on record. Return: 0: `done` is called when it may be sent;
 * BUFFER_E_NO_KEEP: it may be sent now. */
int buffer_batch_reserve(Buffer *b, void (*done)(void *userdata), void *userdata);

/* `left`: the snapshots are out of our hands; else they are as if they had never been taken, but
 * those that `may_have_left` get the same numbers the next time. */
void buffer_batch_end(Buffer *b, bool left, bool may_have_left);

/* Drops all that is in memory and not in a batch. Return: how many snapshots. */
size_t buffer_drop(Buffer *b);

/* The report, now the caller's, of a segment whose snapshots have left; no data: there is none. */
BufferReport buffer_retired(Buffer *b);

/* Puts on disk what waits for long, and reads what is to be sent. `failing`: the backend takes
 * nothing now. */
void buffer_keep_step(Buffer *b, Now now, bool failing);
/* When that has something to do. */
uint64_t buffer_keep_next_mono_ns(const Buffer *b, bool failing);

size_t buffer_n(const Buffer *b);       /* including the batch, and those on disk */
size_t buffer_n_kept(const Buffer *b);  /* on disk */
size_t buffer_n_fresh(const Buffer *b); /* that can be sent, and were never on disk */
size_t buffer_n_ready(const Buffer *b); /* that can be sent now, those read from the disk, too */
size_t buffer_bytes(const Buffer *b);   /* in memory */
/* Whether snapshots of that task have not left yet. */
bool buffer_has_task(
        const Buffer *b, const char *service, const char *instance, const char *task_id);
