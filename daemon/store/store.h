/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"
#include "core/keep.h"
#include "core/results.h"
#include "store/database.h"
#include "util/cleanup.h"

/*
 * What outlives the daemon: one SQLite database, DIR/swprofd.db, with a write-ahead log. A thread
 * of its own does all that may wait for the disk; the main thread hands it pieces of work and takes
 * its answers (store_fd, store_dispatch). What waits for the thread at one time goes into one
 * transaction. There is a bound to how much may wait: a record beyond it is not taken.
 *
 * How long records last: what was committed outlives a killed daemon at once, and a loss of power
 * once the log was synced, which happens every few MiB. Where losing a record would make a snapshot
 * be sent twice after that, the sync is waited for (never with the main thread).
 *
 * What is kept: tasks until a day after their end, segments of live tasks, reports of finished
 * tasks and trace segments until the backend has taken them, and snapshots that the backend does
 * not take now. These are bounded by `max_bytes`: when that is full, all kept snapshots of the
 * segment that is oldest go.
 *
 * Where the database cannot be used, the daemon works without, in memory, and the status says so:
 *   not ours, of a newer swprofd: at the start it is renamed to swprofd.db.broken (in place of a
 *   former one), and a new one is begun
 *   damaged: it is renamed as well, as soon as that is found, at the latest when the thread has read
 *   all of it, which it does first; then nothing is kept while the daemon runs
 *   not to be opened or written, used by another swprofd: nothing is kept while the daemon runs
 *   writing fails (no space): what was to be kept stays in memory, and is tried again every few
 *   seconds
 */

typedef struct Store Store;

/*
 * Opens the database and reads what is there, which waits for the disk. Logs what is wrong with the
 * database; that is no error.
 *
 * Return: 0, -errno.
 */
int store_new(Store **ret, const char *dir, uint64_t max_bytes);
/* Does what still waits, and closes the database. Answers that are left are not given. */
Store *store_free(Store *s);
DEFINE_CLEANUP(Store *, store_free)

/* What a former daemon has left: once, before anything else. The strings are borrowed for the
 * call. Instances first, then tasks, then segments. */
typedef struct StoreRestore {
        void (*instance)(void *userdata, const KeptInstance *instance);
        void (*task)(void *userdata, const KeptTask *task);
        void (*segment)(void *userdata, const KeptSegment *segment, size_t n_snapshots);
} StoreRestore;
void store_restore(Store *s, const StoreRestore *restore, void *userdata, Now now);

/* Starts the thread. Return: 0, -errno. */
int store_start(Store *s);

int store_fd(const Store *s); /* readable: call store_dispatch */
void store_dispatch(Store *s);

const Keep *store_keep(Store *s);

/* From CoreOps. What cannot be recorded is counted. */
void store_instance(Store *s, const Instance *i, Now now);
void store_task(Store *s, const Task *task);
void store_task_over(
        Store *s, const char *service, const char *instance, const char *task_id, Now now);

/*
 * The same for what the tasks of the local backend yield: DIR/local.db, with the same care. Where
 * that cannot be used, the results are in a database in memory, until the daemon ends. What is older
 * than max_age_ms is removed; beyond max_bytes, the oldest segments are.
 *
 * Return: 0, -errno.
 */
int store_new_results(Store **ret, const char *dir, uint64_t max_bytes, uint64_t max_age_ms);
const Results *store_results(Store *s);

/* What a former daemon has left: tasks, then the segments of all of them. Once, before store_start(). */
typedef struct StoreResultsRestore {
        void (*task)(void *userdata, const ResultTask *task);
        void (*segment)(void *userdata, const ResultSegment *segment, int32_t n_snapshots,
                int64_t first_wall_ms, int64_t last_wall_ms);
} StoreResultsRestore;
void store_restore_results(Store *s, const StoreResultsRestore *restore, void *userdata, Now now);

/*
 * Asks for results, of programs of that user alone, or of all: -1. The answer is given once, on the
 * main thread, later. `profile`: profile.proto, borrowed; else `error` says why there is none.
 * Return: 0; -ENOMEM, -EBUSY: there is no answer.
 */
typedef struct StoreQuery {
        const char *selection; /* a task or a segment; "": of the newest task, or of all */
        bool all;
        bool bare; /* segments without samples */
        int64_t uid;
} StoreQuery;
typedef void (*StoreProfile)(
        void *userdata, const char *error, const uint8_t *profile, size_t profile_size);
int store_get_profile(Store *s, const StoreQuery *query, StoreProfile done, void *userdata);

typedef struct StoreTask {
        ResultTask task;
        uint64_t n_segments, n_done, n_snapshots;
} StoreTask;
typedef void (*StoreTasks)(
        void *userdata, const char *error, const StoreTask *tasks, size_t n_tasks);
int store_get_tasks(Store *s, int64_t uid, StoreTasks done, void *userdata);

typedef struct StoreStatus {
        const char *path;
        const char *state; /* "ready", "failing" (is tried again), "memory" (nothing is kept) */
        char error[256];   /* of the last failure, also when it is over; empty: none */
        uint64_t bytes;    /* used in the database */
} StoreStatus;
StoreStatus store_status(Store *s);
