/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"
#include "core/keep.h"
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

typedef struct StoreStatus {
        const char *path;
        const char *state; /* "ready", "failing" (is tried again), "memory" (nothing is kept) */
        char error[256];   /* of the last failure, also when it is over; empty: none */
        uint64_t bytes;    /* used in the database */
} StoreStatus;
StoreStatus store_status(Store *s);
