/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"
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
 * Thinning: when the buffer is full, every second interior sample of each run of identical stacks
 * of a segment is dropped (the ends stay, so that the durations the backend computes stay exact);
 * the next time it is full again, every second one of what is left. Snapshots of a batch are not
 * touched.
 *
 * A segment is known here from its first snapshot until it or its task is done and its last
 * snapshot has left.
 */

typedef struct Buffer Buffer;

/* Return: NULL: no memory. */
Buffer *buffer_new(void);
Buffer *buffer_free(Buffer *b);
DEFINE_CLEANUP(Buffer *, buffer_free)

enum {
        _BUFFER_E_SUCCESS,
        BUFFER_E_FULL,
};

/*
 * Takes the snapshot in if all stay within max_bytes, thinning first if need be.
 *
 * Return: 0, BUFFER_E_FULL, -ENOMEM.
 */
int buffer_add(Buffer *b, const Snapshot *snapshot, size_t max_bytes);

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
 *
 * Return: 0, -ENOMEM.
 */
typedef struct BufferBatch {
        RpcBytes *messages; /* malloc'ed, and so are the bytes */
        size_t n;
} BufferBatch;
int buffer_batch_begin(Buffer *b, size_t n, BufferBatch *ret);
void buffer_batch_deinit(BufferBatch *batch);

/* `left`: the snapshots are out of our hands; else they are as if they had never been taken. */
void buffer_batch_end(Buffer *b, bool left);

/* Drops all that is not in a batch. Return: how many snapshots. */
size_t buffer_drop(Buffer *b);

/* The report, now the caller's, of a segment whose snapshots have left; {NULL}: there is none. */
RpcBytes buffer_retired(Buffer *b);

size_t buffer_n(const Buffer *b); /* including the batch */
size_t buffer_bytes(const Buffer *b);
/* Whether snapshots of that task have not left yet. */
bool buffer_has_task(
        const Buffer *b, const char *service, const char *instance, const char *task_id);
