/* SPDX-License-Identifier: Apache-2.0 */
#include "store/results.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/database-private.h"

static const char tables[] =
        "CREATE TABLE task (number INTEGER PRIMARY KEY, service TEXT NOT NULL,"
        " endpoint TEXT NOT NULL, threshold_ms INTEGER NOT NULL, period_ms INTEGER NOT NULL,"
        " max_sampling_count INTEGER NOT NULL, start_wall_ms INTEGER NOT NULL,"
        " end_wall_ms INTEGER NOT NULL) STRICT;"
        "CREATE TABLE segment (id INTEGER PRIMARY KEY, task INTEGER NOT NULL,"
        " instance TEXT NOT NULL, segment_id TEXT NOT NULL, operation TEXT NOT NULL,"
        " uid INTEGER NOT NULL, pid INTEGER NOT NULL, tid INTEGER NOT NULL,"
        " start_wall_ms INTEGER NOT NULL, done INTEGER NOT NULL, error INTEGER NOT NULL,"
        " duration_ms INTEGER NOT NULL, on_cpu_ns INTEGER NOT NULL, run_queue_ns INTEGER NOT NULL,"
        " blocked_ns INTEGER NOT NULL, lost_no_stack INTEGER NOT NULL, lost_over INTEGER NOT NULL,"
        " lost_not_taken INTEGER NOT NULL, thread TEXT NOT NULL) STRICT;"
        "CREATE INDEX segment_by_task ON segment (task);"
        "CREATE TABLE snapshot (segment INTEGER NOT NULL, sequence INTEGER NOT NULL,"
        " time_wall_ms INTEGER NOT NULL, state INTEGER NOT NULL, stack INTEGER NOT NULL,"
        " PRIMARY KEY (segment, sequence)) STRICT, WITHOUT ROWID;" COMMON_TABLES;

static const char *const texts[N_RESULT_STATEMENTS] = {
        COMMON_STATEMENTS,
        [PUT_RESULT_TASK] = "INSERT OR REPLACE INTO task VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        [PUT_RESULT_SEGMENT] = "INSERT OR REPLACE INTO segment VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,"
                               " ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        [ADD_RESULT_SNAPSHOT] = "INSERT OR REPLACE INTO snapshot VALUES (?1, ?2, ?3, ?4, ?5)",
        [RESULT_TASKS] = "SELECT number, service, endpoint, threshold_ms, period_ms,"
                         " max_sampling_count, task.start_wall_ms, end_wall_ms, count(segment.id),"
                         " total(done), total((SELECT max(sequence) + 1 FROM snapshot"
                         " WHERE segment = segment.id))"
                         " FROM task LEFT JOIN segment ON task = number AND ?1 IN (-1, uid)"
                         " GROUP BY number ORDER BY number",
        [RESULT_SEGMENTS] =
                "SELECT id, task, instance, segment_id, operation, uid, pid, tid, start_wall_ms,"
                " done, error, duration_ms, on_cpu_ns, run_queue_ns, blocked_ns, lost_no_stack,"
                " lost_over, lost_not_taken,"
                " (SELECT max(sequence) + 1 FROM snapshot WHERE segment = segment.id),"
                " (SELECT time_wall_ms FROM snapshot WHERE segment = segment.id"
                " ORDER BY sequence LIMIT 1),"
                " (SELECT time_wall_ms FROM snapshot WHERE segment = segment.id"
                " ORDER BY sequence DESC LIMIT 1), thread"
                " FROM segment WHERE ?1 IN (0, task) AND ifnull(?2, segment_id) = segment_id"
                " AND ?3 IN (-1, uid) ORDER BY id",
        [RESULT_STACKS] = "SELECT text, kinds FROM stack WHERE id = ?1",
        [RESULT_SNAPSHOTS] = "SELECT sequence, time_wall_ms, state, stack FROM snapshot"
                             " WHERE segment = ?1 ORDER BY sequence",
};

const DatabaseSchema database_results = {
        .application_id = 0x7377706c, /* "swpl" */
        .version = 2,
        .upgrade = STACK_KINDS_UPGRADE,
        .tables = tables,
        .texts = texts,
        .n_texts = N_RESULT_STATEMENTS,
};

/* ---- writing ---- */

int database_put_result_task(Database *d, const ResultTask *t)
{
        sqlite3_stmt *s = database_statement(d, PUT_RESULT_TASK);

        sqlite3_bind_int64(s, 1, (int64_t)t->number);
        database_bind_text(s, 2, t->service);
        database_bind_text(s, 3, t->endpoint);
        sqlite3_bind_int64(s, 4, t->threshold_ms);
        sqlite3_bind_int64(s, 5, t->period_ms);
        sqlite3_bind_int64(s, 6, t->max_sampling_count);
        sqlite3_bind_int64(s, 7, t->start_wall_ms);
        sqlite3_bind_int64(s, 8, t->end_wall_ms);
        return database_run(d, PUT_RESULT_TASK);
}

int database_put_result_segment(Database *d, const ResultSegment *r)
{
        sqlite3_stmt *s = database_statement(d, PUT_RESULT_SEGMENT);

        sqlite3_bind_int64(s, 1, (int64_t)r->id);
        sqlite3_bind_int64(s, 2, (int64_t)r->task);
        database_bind_text(s, 3, r->instance);
        database_bind_text(s, 4, r->segment_id);
        database_bind_text(s, 5, r->operation);
        sqlite3_bind_int64(s, 6, r->uid);
        sqlite3_bind_int64(s, 7, r->pid);
        sqlite3_bind_int64(s, 8, r->tid);
        sqlite3_bind_int64(s, 9, r->start_wall_ms);
        sqlite3_bind_int64(s, 10, r->done);
        sqlite3_bind_int64(s, 11, r->error);
        sqlite3_bind_int64(s, 12, r->duration_ms);
        sqlite3_bind_int64(s, 13, (int64_t)r->times.on_cpu_ns);
        sqlite3_bind_int64(s, 14, (int64_t)r->times.run_queue_ns);
        sqlite3_bind_int64(s, 15, (int64_t)r->times.blocked_ns);
        sqlite3_bind_int64(s, 16, (int64_t)r->losses.no_stack);
        sqlite3_bind_int64(s, 17, (int64_t)r->losses.over);
        sqlite3_bind_int64(s, 18, (int64_t)r->losses.not_taken);
        database_bind_text(s, 19, r->thread);
        if (database_run(d, PUT_RESULT_SEGMENT) != 0)
                return DATABASE_E_FAILED;
        return database_note_id(d, r->id);
}

int database_add_result_snapshot(Database *d, const ResultSnapshot *r)
{
        sqlite3_stmt *s = database_statement(d, ADD_RESULT_SNAPSHOT);
        int64_t stack;

        if (database_find_stack(d, r->stack, &stack) != 0)
                return DATABASE_E_FAILED;
        sqlite3_bind_int64(s, 1, (int64_t)r->segment);
        sqlite3_bind_int64(s, 2, r->sequence);
        sqlite3_bind_int64(s, 3, r->time_wall_ms);
        sqlite3_bind_int64(s, 4, r->state);
        sqlite3_bind_int64(s, 5, stack);
        return database_run(d, ADD_RESULT_SNAPSHOT);
}

/* ---- removing ---- */

/* What belongs to segments that are gone. */
static int remove_orphans(Database *d)
{
        return database_exec(d,
                "DELETE FROM snapshot WHERE segment NOT IN (SELECT id FROM segment);"
                "DELETE FROM stack WHERE id NOT IN (SELECT stack FROM snapshot)");
}

/* An eighth of the oldest segments, and at least one, with what belongs to them. */
static int remove_oldest(Database *d, size_t *ret_n)
{
        if (database_exec(d, "DELETE FROM segment WHERE id IN (SELECT id FROM segment"
                             " ORDER BY id LIMIT (SELECT (count(*) + 7) / 8 FROM segment))") != 0)
                return DATABASE_E_FAILED;
        *ret_n = (size_t)sqlite3_changes(d->db);
        return remove_orphans(d);
}

int database_trim_results(Database *d, uint64_t max_bytes, size_t *ret_n)
{
        size_t n = 1;
        int r = 0;

        while (r == 0 && n > 0 && database_bytes(d) > max_bytes) {
                r = remove_oldest(d, &n);
                *ret_n += r == 0 ? n : 0;
        }
        /* Many tasks of which there is nothing. */
        if (r == 0 && database_bytes(d) > max_bytes)
                r = database_exec(d, "DELETE FROM task WHERE number IN (SELECT number FROM task"
                                     " ORDER BY number LIMIT (SELECT count(*) / 2 FROM task))");
        return r;
}

int database_sweep_results(Database *d, int64_t now_wall_ms, uint64_t max_age_ms, size_t *ret_n)
{
        char sql[512];

        /* What is ahead of the clock stays: it may be the clock that is not set yet. */
        snprintf(sql, sizeof(sql), "DELETE FROM segment WHERE start_wall_ms < %" PRIi64,
                now_wall_ms - (int64_t)max_age_ms);
        if (database_exec(d, sql) != 0)
                return DATABASE_E_FAILED;
        *ret_n = (size_t)sqlite3_changes(d->db);
        if (*ret_n > 0 && remove_orphans(d) != 0)
                return DATABASE_E_FAILED;
        /* One that was begun just now has nothing yet. */
        snprintf(sql, sizeof(sql),
                "DELETE FROM task WHERE end_wall_ms < %" PRIi64
                " AND NOT EXISTS (SELECT 1 FROM segment WHERE task = number)",
                now_wall_ms - (int64_t)max_age_ms);
        return database_exec(d, sql);
}

/* ---- reading: the file is not to be trusted ---- */

static uint64_t column_count(sqlite3_stmt *s, int n)
{
        int64_t v = sqlite3_column_int64(s, n);

        return v > 0 ? (uint64_t)v : 0;
}

static uint32_t column_u32(sqlite3_stmt *s, int n)
{
        uint64_t v = column_count(s, n);

        return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static int64_t column_wall_ms(sqlite3_stmt *s, int n)
{
        int64_t v = sqlite3_column_int64(s, n);

        return v > 0 && v < INT64_C(1) << 48 ? v : 0;
}

int database_result_tasks(Database *d, int64_t uid,
        void (*each)(void *userdata, const ResultTaskRow *row), void *userdata)
{
        sqlite3_stmt *s = database_statement(d, RESULT_TASKS);
        int r;

        sqlite3_bind_int64(s, 1, uid);
        while ((r = sqlite3_step(s)) == SQLITE_ROW)
                each(userdata,
                        &(ResultTaskRow){.task = {.number = column_count(s, 0),
                                                 .service = (char *)database_column_text(s, 1),
                                                 .endpoint = (char *)database_column_text(s, 2),
                                                 .threshold_ms = column_u32(s, 3),
                                                 .period_ms = column_u32(s, 4),
                                                 .max_sampling_count = column_u32(s, 5),
                                                 .start_wall_ms = column_wall_ms(s, 6),
                                                 .end_wall_ms = column_wall_ms(s, 7)},
                                .n_segments = column_count(s, 8),
                                .n_done = column_count(s, 9),
                                .n_snapshots = column_count(s, 10)});
        return database_iteration_end(d, s, r);
}

int database_result_segments(Database *d, uint64_t task, const char *segment_id, int64_t uid,
        void (*each)(void *userdata, const ResultSegmentRow *row), void *userdata)
{
        sqlite3_stmt *s = database_statement(d, RESULT_SEGMENTS);
        int r;

        sqlite3_bind_int64(s, 1, (int64_t)task);
        database_bind_text(s, 2, segment_id);
        sqlite3_bind_int64(s, 3, uid);
        while ((r = sqlite3_step(s)) == SQLITE_ROW) {
                ResultSegmentRow row = {.segment = {.id = column_count(s, 0),
                                                .task = column_count(s, 1),
                                                .instance = (char *)database_column_text(s, 2),
                                                .segment_id = (char *)database_column_text(s, 3),
                                                .operation = (char *)database_column_text(s, 4),
                                                .uid = column_u32(s, 5),
                                                .pid = sqlite3_column_int(s, 6),
                                                .tid = sqlite3_column_int(s, 7),
                                                .start_wall_ms = column_wall_ms(s, 8),
                                                .done = sqlite3_column_int(s, 9),
                                                .error = sqlite3_column_int(s, 10),
                                                .duration_ms = column_wall_ms(s, 11),
                                                .times = {.on_cpu_ns = column_count(s, 12),
                                                        .run_queue_ns = column_count(s, 13),
                                                        .blocked_ns = column_count(s, 14)},
                                                .losses = {.no_stack = column_count(s, 15),
                                                        .over = column_count(s, 16),
                                                        .not_taken = column_count(s, 17)}},
                        .n_snapshots = (int32_t)(column_u32(s, 18) & INT32_MAX),
                        .first_wall_ms = column_wall_ms(s, 19),
                        .last_wall_ms = column_wall_ms(s, 20)};

                snprintf(row.segment.thread, sizeof(row.segment.thread), "%s",
                        database_column_text(s, 21));
                each(userdata, &row);
        }
        r = database_iteration_end(d, s, r);
        sqlite3_clear_bindings(s);
        return r;
}

int database_result_snapshots(Database *d, uint64_t segment,
        bool (*each)(void *userdata, const ResultSnapshotRow *row), void *userdata)
{
        sqlite3_stmt *s = database_statement(d, RESULT_SNAPSHOTS);
        bool more = true;
        int r;

        sqlite3_bind_int64(s, 1, (int64_t)segment);
        while ((r = sqlite3_step(s)) == SQLITE_ROW && more) {
                unsigned state = (unsigned)sqlite3_column_int(s, 2);

                more = each(userdata,
                        &(ResultSnapshotRow){.sequence = (int32_t)(column_u32(s, 0) & INT32_MAX),
                                .time_wall_ms = column_wall_ms(s, 1),
                                .state = state <= THREAD_BLOCKED ? state : THREAD_BLOCKED,
                                .stack = column_count(s, 3)});
        }
        return database_iteration_end(d, s, r == SQLITE_ROW ? SQLITE_DONE : r);
}

/* NULL: it is damaged, or no memory. */
static const char *copy_stack(
        Database *d, sqlite3_stmt *s, size_t *ret_size, const uint8_t **ret_kinds)
{
        const char *text = sqlite3_column_blob(s, 0);
        size_t size = (size_t)sqlite3_column_bytes(s, 0), n = 0;
        const uint8_t *kinds = sqlite3_column_blob(s, 1);
        size_t n_kinds = (size_t)sqlite3_column_bytes(s, 1);

        if (!text || size == 0 || text[size - 1] != '\0' ||
                database_reserve_text(d, size + n_kinds) != 0)
                return NULL;
        memcpy(d->text, text, size);
        for (size_t i = 0; i < size; i++)
                n += text[i] == '\0';
        if (kinds && n_kinds == n)
                *ret_kinds = memcpy(d->text + size, kinds, n);
        *ret_size = size;
        return d->text;
}

const char *database_result_stack(
        Database *d, uint64_t id, size_t *ret_size, const uint8_t **ret_kinds)
{
        sqlite3_stmt *s = database_statement(d, RESULT_STACKS);
        const char *ret = NULL;

        *ret_kinds = NULL;
        sqlite3_bind_int64(s, 1, (int64_t)id);
        if (sqlite3_step(s) == SQLITE_ROW)
                ret = copy_stack(d, s, ret_size, ret_kinds);
        /* While it is open, the log cannot be written back, and grows. */
        sqlite3_reset(s);
        return ret;
}
