/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/results.h"
#include "store/database.h"

/*
 * What is in the database of the local backend, of schema database_results:
 *
 *   task      those of swprofctl, until they are too old and nothing of them is left
 *   segment   the profiled ones, with their sums
 *   snapshot  of them, clustered by segment
 *   stack     the signatures, each text once; gone when no snapshot has it any more
 */

/* All of these inside of a transaction. Return: 0, DATABASE_E_FAILED. */
int database_put_result_task(Database *d, const ResultTask *t);
int database_put_result_segment(Database *d, const ResultSegment *s);
int database_add_result_snapshot(Database *d, const ResultSnapshot *s);
/*
 * Removes the oldest segments, whole, until no more than max_bytes are used. Some more go than must:
 * each time, all stacks are looked at. *ret_n grows by how many went.
 */
int database_trim_results(Database *d, uint64_t max_bytes, size_t *ret_n);
/* Removes what is older than that. */
int database_sweep_results(Database *d, int64_t now_wall_ms, uint64_t max_age_ms, size_t *ret_n);

/* Iteration; what is given is borrowed for the call. `uid`: of programs of that user alone, -1: of
 * all. */
typedef struct ResultTaskRow {
        ResultTask task;
        uint64_t n_segments, n_done, n_snapshots;
} ResultTaskRow;
int database_result_tasks(Database *d, int64_t uid,
        void (*each)(void *userdata, const ResultTaskRow *row), void *userdata);

typedef struct ResultSegmentRow {
        ResultSegment segment;
        int32_t n_snapshots;
        int64_t first_wall_ms, last_wall_ms; /* of these */
} ResultSegmentRow;
/* Of that task (0: any), with that id (NULL: any). */
int database_result_segments(Database *d, uint64_t task, const char *segment_id, int64_t uid,
        void (*each)(void *userdata, const ResultSegmentRow *row), void *userdata);

typedef struct ResultSnapshotRow {
        int32_t sequence;
        ThreadState state;
        int64_t time_wall_ms;
        uint64_t stack;
} ResultSnapshotRow;
/* Of a segment. Stops when `each` says so. */
int database_result_snapshots(Database *d, uint64_t segment,
        bool (*each)(void *userdata, const ResultSnapshotRow *row), void *userdata);
/* The signatures, outermost first, each with its NUL; valid until the next call. NULL: there is none,
 * or it is damaged, or no memory.
 * *ret_kinds: the StackKind of each; NULL: not known. */
const char *database_result_stack(
        Database *d, uint64_t id, size_t *ret_size, const uint8_t **ret_kinds);

/* ---- results-profile.c ---- */

/* Which samples are wanted, and for whom. */
typedef struct ResultQuery {
        char *selection; /* a task or a segment; "": see `all` */
        bool all;        /* of all tasks; else of the newest one that has any */
        bool bare;       /* the segments without their samples */
        int64_t uid;     /* as above */
} ResultQuery;

enum {
        _RESULT_E_SUCCESS,
        RESULT_E_NONE,  /* there is no such task or segment, for that user */
        RESULT_E_EMPTY, /* of the task there is nothing yet */
        RESULT_E_LARGE, /* more than one answer can hold */
};

/*
 * A profile (profile.proto), malloc'ed. Return: 0, RESULT_E_*, -EIO: the database fails, -ENOMEM.
 */
int results_profile(Database *d, const ResultQuery *query, uint8_t **ret, size_t *ret_size);
