/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/core.h"
#include "util/cleanup.h"

/*
 * What the local backend's tasks yield, as the backend and the one who keeps it (store) say it to
 * each other. All calls come from the main thread, and none of them waits for a disk: a batch is
 * handed over, and the answer comes later, on the main thread too. Batches are done in the order in
 * which they were handed over, each whole or not at all.
 */

typedef struct ResultTask {
        uint64_t number; /* from 1 on, the later the higher; see result_task_id() */
        char *service, *endpoint;
        uint32_t threshold_ms, period_ms, max_sampling_count;
        int64_t start_wall_ms, end_wall_ms;
} ResultTask;

typedef struct ResultSegment {
        uint64_t id;   /* from results->last_id on; never reused */
        uint64_t task; /* its number */
        char *instance, *segment_id, *operation;
        uid_t uid; /* who may see it, beside root; -1: nobody */
        pid_t pid, tid;
        char thread[16]; /* its name, as the kernel cuts it */
        int64_t start_wall_ms;
        /* The rest is known when it is done. */
        bool done, error;
        int64_t duration_ms;
        SpanTimes times;
        SpanLosses losses;
} ResultSegment;

typedef struct ResultSnapshot {
        uint64_t segment; /* its id */
        int32_t sequence;
        ThreadState state;
        int64_t time_wall_ms;
        uint32_t stack_bytes; /* of its text; 0: the stack is that of the one before */
        Stack *stack;         /* a reference; READY */
} ResultSnapshot;

/* Each of them is as it is now: what is there already is replaced. */
typedef struct ResultBatch {
        ResultTask *tasks;
        ResultSegment *segments;
        ResultSnapshot *snapshots;
        size_t n_tasks, n_segments, n_snapshots, tasks_size, segments_size, snapshots_size;
        size_t n_bytes; /* of the snapshots, roughly */
} ResultBatch;

ResultBatch *result_batch_new(void);
/* Main thread only, for the stacks. */
ResultBatch *result_batch_free(ResultBatch *b);
DEFINE_CLEANUP(ResultBatch *, result_batch_free)
/* Copy what they are given; the stack_bytes need not be set. Return: 0, -ENOMEM. */
int result_batch_add_task(ResultBatch *b, const ResultTask *task);
int result_batch_add_segment(ResultBatch *b, const ResultSegment *segment);
int result_batch_add_snapshot(ResultBatch *b, const ResultSnapshot *snapshot);

#define RESULT_TASK_PREFIX "local-"
enum { RESULT_TASK_ID_SIZE = sizeof(RESULT_TASK_PREFIX) + 20 };
/* The id by which everyone calls the task. */
void result_task_id(uint64_t number, char *ret);
/* 0: it is none of ours. */
uint64_t result_task_number(const char *id);

/* The batch is the callee's again. `failed`: nothing of it was put on record. */
typedef void (*ResultRecorded)(void *userdata, ResultBatch *batch, bool failed);

typedef struct Results {
        void *userdata;
        uint64_t last_id; /* of a segment, ever */
        /* Whether a batch is likely to succeed. */
        bool (*works)(void *userdata);
        /* Takes the batch over. Return: 0; -ENOMEM, -EBUSY: it is the caller's still. */
        int (*record)(void *userdata, ResultBatch *batch, ResultRecorded done, void *done_userdata);
} Results;
