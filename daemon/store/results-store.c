/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "store/results.h"
#include "store/store-private.h"
#include "util/array.h"
#include "util/error.h"

/* The store of the local backend: its pieces of work for the thread. */

#define MEMORY_BYTES (64U << 20)
/* Is looked after in so small steps. */
#define ROOM_BYTES (1U << 20)

static int results_sweep(const Store *s, Database *d, int64_t now_wall_ms)
{
        size_t n = 0;
        int r = database_sweep_results(d, now_wall_ms, store_max_age_ms(s), &n);

        counter_add(COUNTER_RESULTS_REMOVED, n);
        return r;
}

static const StoreKind results = {
        .file_name = "local.db",
        .schema = &database_results,
        .max_memory_bytes = MEMORY_BYTES,
        .sweep = results_sweep,
};

int store_new_results(Store **ret, const char *dir, uint64_t max_bytes, uint64_t max_age_ms)
{
        return store_new_kind(ret, &results, dir, max_bytes, max_age_ms);
}

/* ---- batches ---- */

typedef struct Record {
        ResultBatch *batch;
        ResultRecorded done;
        void *userdata;
        size_t n_removed;
} Record;

/* Makes room meanwhile, lest there be more than the file may hold. */
static int record_snapshots(Record *record, Database *d, uint64_t max_bytes)
{
        const ResultBatch *b = record->batch;
        size_t bytes = 0;
        int r = 0;

        for (size_t i = 0; i < b->n_snapshots && r == 0; i++) {
                r = database_add_result_snapshot(d, &b->snapshots[i]);
                bytes += sizeof(b->snapshots[i]) + b->snapshots[i].stack_bytes;
                if (r == 0 && bytes > ROOM_BYTES) {
                        r = database_trim_results(d, max_bytes, &record->n_removed);
                        bytes = 0;
                }
        }
        return r ?: database_trim_results(d, max_bytes, &record->n_removed);
}

static int record_run(void *data, Database *d, uint64_t max_bytes)
{
        Record *record = data;
        const ResultBatch *b = record->batch;
        int r = 0;

        record->n_removed = 0;
        for (size_t i = 0; i < b->n_tasks && r == 0; i++)
                r = database_put_result_task(d, &b->tasks[i]);
        for (size_t i = 0; i < b->n_segments && r == 0; i++)
                r = database_put_result_segment(d, &b->segments[i]);
        return r ?: record_snapshots(record, d, max_bytes);
}

static void record_answer(void *data, bool failed)
{
        Record *record = data;

        if (!failed) {
                counter_add(COUNTER_SNAPSHOTS_RECORDED, record->batch->n_snapshots);
                counter_add(COUNTER_RESULTS_REMOVED, record->n_removed);
        }
        record->done(record->userdata, TAKE_PTR(record->batch), failed);
}

static void record_free(void *data)
{
        Record *record = data;

        result_batch_free(record->batch);
        free(record);
}

static const OpWork record_work = {
        .run = record_run,
        .answer = record_answer,
        .free = record_free,
};

int store_record_results(
        void *userdata, ResultBatch *batch, ResultRecorded done, void *done_userdata)
{
        Record *record;
        Op *op;

        if (!store_works(userdata))
                return error_origin(-EBUSY);
        record = calloc(1, sizeof(*record));
        if (!record)
                return error_origin(-ENOMEM);
        record->done = done;
        record->userdata = done_userdata;
        op = op_new_work(&record_work, record);
        if (!op)
                return error_origin(-ENOMEM);
        record->batch = batch;
        /* There is room: store_works() sees to that. */
        (void)store_push(userdata, op);
        return 0;
}

/* ---- queries ---- */

typedef struct Query {
        ResultQuery query;
        StoreProfile done;
        void *userdata;
        int result;
        uint8_t *profile;
        size_t profile_size;
} Query;

static int query_run(void *data, Database *d, uint64_t max_bytes)
{
        Query *q = data;

        /* Of a try before, in a transaction that failed. */
        free(TAKE_PTR(q->profile));
        q->result = results_profile(d, &q->query, &q->profile, &q->profile_size);
        return q->result == -EIO ? DATABASE_E_FAILED : 0;
}

static const char *query_error(const Query *q)
{
        switch (q->result) {
        case 0:
                return NULL;
        case RESULT_E_NONE:
                return "there is no such task or segment";
        case RESULT_E_EMPTY:
                return q->query.selection[0] ? "nothing of that task was profiled yet"
                                             : "nothing was profiled yet";
        case RESULT_E_LARGE:
                return "there is more than fits an answer: choose a task, or a segment of it";
        default:
                return "out of memory";
        }
}

static void query_answer(void *data, bool failed)
{
        const Query *q = data;

        q->done(q->userdata, failed ? "the database cannot be read" : query_error(q), q->profile,
                q->profile_size);
}

static void query_free(void *data)
{
        Query *q = data;

        free(q->query.selection);
        free(q->profile);
        free(q);
}

static const OpWork query_work = {
        .run = query_run,
        .answer = query_answer,
        .free = query_free,
        .only_reads = true,
};

int store_get_profile(Store *s, const StoreQuery *query, StoreProfile done, void *userdata)
{
        Query *q = calloc(1, sizeof(*q));
        Op *op;

        if (!q)
                return error_origin(-ENOMEM);
        q->query.selection = strdup(query->selection);
        if (!q->query.selection) {
                free(q);
                return error_origin(-ENOMEM);
        }
        q->query.all = query->all;
        q->query.bare = query->bare;
        q->query.uid = query->uid;
        q->done = done;
        q->userdata = userdata;
        op = op_new_work(&query_work, q);
        return op ? error_trace(store_push(s, op)) : error_origin(-ENOMEM);
}

typedef struct TaskQuery {
        int64_t uid;
        StoreTasks done;
        void *userdata;
        StoreTask *tasks;
        size_t n, size;
        bool out_of_memory;
} TaskQuery;

static void task_query_clear(TaskQuery *q)
{
        for (size_t i = 0; i < q->n; i++) {
                free(q->tasks[i].task.service);
                free(q->tasks[i].task.endpoint);
        }
        q->n = 0;
        q->out_of_memory = false;
}

static void task_query_add(void *userdata, const ResultTaskRow *row)
{
        TaskQuery *q = userdata;
        StoreTask t = {
                .task = row->task,
                .n_segments = row->n_segments,
                .n_done = row->n_done,
                .n_snapshots = row->n_snapshots,
        };

        /* Of which a user sees nothing is none of theirs. */
        if (q->out_of_memory || (q->uid >= 0 && t.n_segments == 0))
                return;
        t.task.service = strdup(row->task.service);
        t.task.endpoint = strdup(row->task.endpoint);
        if (t.task.service && t.task.endpoint &&
                array_reserve(&q->tasks, q->n, &q->size, sizeof(t)) == 0) {
                q->tasks[q->n++] = t;
                return;
        }
        free(t.task.service);
        free(t.task.endpoint);
        q->out_of_memory = true;
}

static int task_query_run(void *data, Database *d, uint64_t max_bytes)
{
        TaskQuery *q = data;

        task_query_clear(q);
        return database_result_tasks(d, q->uid, task_query_add, q);
}

static void task_query_answer(void *data, bool failed)
{
        const TaskQuery *q = data;

        q->done(q->userdata,
                failed             ? "the database cannot be read"
                : q->out_of_memory ? "out of memory"
                                   : NULL,
                q->tasks, q->n);
}

static void task_query_free(void *data)
{
        TaskQuery *q = data;

        task_query_clear(q);
        free(q->tasks);
        free(q);
}

static const OpWork task_query_work = {
        .run = task_query_run,
        .answer = task_query_answer,
        .free = task_query_free,
        .only_reads = true,
};

int store_get_tasks(Store *s, int64_t uid, StoreTasks done, void *userdata)
{
        TaskQuery *q = calloc(1, sizeof(*q));
        Op *op;

        if (!q)
                return error_origin(-ENOMEM);
        q->uid = uid;
        q->done = done;
        q->userdata = userdata;
        op = op_new_work(&task_query_work, q);
        return op ? error_trace(store_push(s, op)) : error_origin(-ENOMEM);
}

/* ---- restart ---- */

typedef struct Restore {
        const StoreResultsRestore *ops;
        void *userdata;
} Restore;

static void restore_task(void *userdata, const ResultTaskRow *row)
{
        const Restore *r = userdata;

        r->ops->task(r->userdata, &row->task);
}

static void restore_segment(void *userdata, const ResultSegmentRow *row)
{
        const Restore *r = userdata;

        r->ops->segment(r->userdata, &row->segment, row->n_snapshots, row->first_wall_ms,
                row->last_wall_ms);
}

void store_restore_results(Store *s, const StoreResultsRestore *restore, void *userdata, Now now)
{
        Restore ours = {.ops = restore, .userdata = userdata};
        Database *d = store_database(s);
        int r;

        r = database_begin(d, false);
        if (r == 0)
                r = results_sweep(s, d, now.wall_ms);
        if (r == 0)
                r = database_commit(d);
        database_rollback(d);
        if (r == 0)
                r = database_result_tasks(d, -1, restore_task, &ours);
        if (r == 0)
                r = database_result_segments(d, 0, NULL, -1, restore_segment, &ours);
        if (r != 0)
                store_log_restore(s);
}
