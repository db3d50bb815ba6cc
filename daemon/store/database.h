/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/keep.h"
#include "util/cleanup.h"

/*
 * The tables and what is done with them; the only user of sqlite3. Not thread-safe, but may be
 * handed from one thread to another. Blocks on the disk.
 *
 *   instance  the time of the last command seen, of those seen in the last days
 *   task      each task until a day after its end: it is known again when it is heard of again
 *   segment   see KeptSegment; until its task was reported, and nothing is left of it
 *   snapshot  kept ones, clustered by segment
 *   stack     the signatures, each text once; gone when no snapshot is kept any more
 *
 * That is the schema of the spool, database_spool; database_results is that of the local backend, see
 * results.h. `PRAGMA user_version` is the number of the schema. Nothing here holds bytes of a stack.
 */

typedef struct Database Database;
typedef struct DatabaseSchema DatabaseSchema;

extern const DatabaseSchema database_spool, database_results;

enum {
        _DATABASE_E_SUCCESS,
        DATABASE_E_FAILED, /* see database_error() */
        DATABASE_E_BROKEN, /* what is there is no database of ours, damaged, or of a newer swprofd */
};

/*
 * Opens or makes it; ":memory:" is one in memory. The file belongs to this process alone while it is open.
 *
 * Return: 0; DATABASE_E_FAILED, DATABASE_E_BROKEN: with *ret_error, malloc'ed (NULL: no memory);
 * -ENOMEM.
 */
int database_open(Database **ret, const DatabaseSchema *schema, const char *path,
        uint64_t max_bytes, char **ret_error);
Database *database_close(Database *d);
DEFINE_CLEANUP(Database *, database_close)
/* Reads some bytes of the file, from *at on, which it moves on: so that a check need not wait for the
 * disk. Return: whether there are more. */
bool database_read_ahead(Database *d, uint64_t *at);
/*
 * Looks at all of it: first at how the pages hang together, then at each row. `stop` is asked now and
 * then, amid the rows at least, whether what was seen is to do. Return: 0; DATABASE_E_FAILED: it is
 * damaged, or cannot be read.
 */
int database_check(Database *d, bool (*stop)(void *userdata), void *userdata);
const char *database_error(const Database *d);
/* Says the last failure. */
bool database_is_damaged(const Database *d);

/* Bytes of the file that hold something. */
uint64_t database_bytes(Database *d);
uint64_t database_last_id(Database *d);

/*
 * `durable`: also a loss of power leaves it done, for which the disk is waited for. After a failure
 * the transaction is to be rolled back, save of the commit, which does that itself.
 */
int database_begin(Database *d, bool durable);
int database_commit(Database *d);
void database_rollback(Database *d);

typedef enum KeptTaskState {
        KEPT_TASK_LIVE,
        KEPT_TASK_OVER, /* the backend is still to be told */
        KEPT_TASK_REPORTED,
} KeptTaskState;

/* Strings borrowed. */
typedef struct KeptTask {
        const char *service, *instance, *task_id, *endpoint;
        int64_t threshold_ms, period_ms, max_sampling_count;
        int64_t start_wall_ms, end_wall_ms;
        KeptTaskState state;
} KeptTask;

typedef struct KeptInstance {
        const char *service, *instance;
        int64_t last_command_wall_ms;
} KeptInstance;

/* All of these: 0, DATABASE_E_FAILED. */
int database_put_instance(Database *d, const KeptInstance *i, int64_t now_wall_ms);
int database_put_task(Database *d, const KeptTask *t);
/* Makes it known if it is not. */
int database_end_task(Database *d, const char *service, const char *instance, const char *task_id,
        KeptTaskState state, int64_t now_wall_ms);
int database_put_segment(Database *d, const KeptSegment *s);
int database_put_report(Database *d, const KeptReport *r);
int database_add_snapshot(Database *d, const KeptSnapshot *s);
int database_remove_snapshot(Database *d, uint64_t segment, uint64_t id);
int database_remove_segment(Database *d, uint64_t segment);
/* Removes the kept snapshots of the oldest segment with an id above `in_use`; *ret_segment 0: there
 * is none. */
int database_remove_oldest(
        Database *d, uint64_t in_use, uint64_t *ret_segment, size_t *ret_n_snapshots);
/* Of those that no snapshot has any more. */
int database_remove_stacks(Database *d);
/* Forgets what is of no use any more. */
int database_sweep(Database *d, int64_t now_wall_ms);

/* Iteration; what is given is borrowed for the call. */
int database_instances(
        Database *d, void (*each)(void *userdata, const KeptInstance *i), void *userdata);
int database_tasks(Database *d, void (*each)(void *userdata, const KeptTask *t), void *userdata);
int database_segments(Database *d,
        void (*each)(void *userdata, const KeptSegment *s, size_t n_snapshots), void *userdata);
/* The first n, by segment and id. `text` is what database_stack_text() makes. A stack id is given
 * the same text each time. */
int database_snapshots(Database *d, size_t n,
        void (*each)(void *userdata, const KeptSnapshot *s, uint64_t stack_id, const char *text,
                size_t size),
        void *userdata);
