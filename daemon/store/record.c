/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/database-private.h"

/* A segment has far fewer snapshots. */
#define SEQUENCE_MAX (INT32_MAX / 2)

/* The backend forgets tasks within minutes; an app may announce a segment again as long as it
 * lasts. */
#define REMEMBER_MS (24 * 3600 * 1000LL)

/* Values are bound without a copy: they live until the statement is done. That fails for want of
 * memory only, and then the next step of the statement would store NULL, which the schema refuses. */
void database_bind_text(sqlite3_stmt *s, int n, const char *text)
{
        sqlite3_bind_text(s, n, text, -1, SQLITE_STATIC);
}

int database_put_instance(Database *d, const KeptInstance *i, int64_t now_wall_ms)
{
        sqlite3_stmt *s = database_statement(d, PUT_INSTANCE);

        database_bind_text(s, 1, i->service);
        database_bind_text(s, 2, i->instance);
        sqlite3_bind_int64(s, 3, i->last_command_wall_ms);
        sqlite3_bind_int64(s, 4, now_wall_ms);
        return database_run(d, PUT_INSTANCE);
}

int database_put_task(Database *d, const KeptTask *t)
{
        sqlite3_stmt *s = database_statement(d, PUT_TASK);

        database_bind_text(s, 1, t->service);
        database_bind_text(s, 2, t->instance);
        database_bind_text(s, 3, t->task_id);
        database_bind_text(s, 4, t->endpoint);
        sqlite3_bind_int64(s, 5, t->threshold_ms);
        sqlite3_bind_int64(s, 6, t->period_ms);
        sqlite3_bind_int64(s, 7, t->max_sampling_count);
        sqlite3_bind_int64(s, 8, t->start_wall_ms);
        sqlite3_bind_int64(s, 9, t->end_wall_ms);
        sqlite3_bind_int64(s, 10, t->state);
        return database_run(d, PUT_TASK);
}

int database_end_task(Database *d, const char *service, const char *instance, const char *task_id,
        KeptTaskState state, int64_t now_wall_ms)
{
        sqlite3_stmt *s = database_statement(d, END_TASK);

        database_bind_text(s, 1, service);
        database_bind_text(s, 2, instance);
        database_bind_text(s, 3, task_id);
        sqlite3_bind_int64(s, 4, state);
        sqlite3_bind_int64(s, 5, now_wall_ms);
        return database_run(d, END_TASK);
}

int database_note_id(Database *d, uint64_t id)
{
        if (id <= d->noted_id)
                return 0;
        d->noted_id = id;
        sqlite3_bind_int64(database_statement(d, PUT_LAST_ID), 1, (int64_t)id);
        return database_run(d, PUT_LAST_ID);
}

int database_put_segment(Database *d, const KeptSegment *k)
{
        sqlite3_stmt *s = database_statement(d, PUT_SEGMENT);

        sqlite3_bind_int64(s, 1, (int64_t)k->id);
        database_bind_text(s, 2, k->service);
        database_bind_text(s, 3, k->instance);
        database_bind_text(s, 4, k->task_id);
        database_bind_text(s, 5, k->segment_id);
        sqlite3_bind_int64(s, 6, k->next_sequence);
        sqlite3_bind_int64(s, 7, k->reserved_sequence);
        sqlite3_bind_int64(s, 8, k->reserved_kept);
        sqlite3_bind_int64(s, 9, k->first_wall_ms);
        sqlite3_bind_int64(s, 10, k->last_wall_ms);
        sqlite3_bind_int64(s, 11, k->done);
        sqlite3_bind_blob64(s, 12, k->report, k->report_size, SQLITE_STATIC);
        sqlite3_bind_int64(s, 13, (int64_t)k->left_id);
        if (database_run(d, PUT_SEGMENT) != 0)
                return DATABASE_E_FAILED;
        return database_note_id(d, k->id);
}

int database_put_report(Database *d, const KeptReport *r)
{
        sqlite3_stmt *s = database_statement(d, PUT_REPORT);

        sqlite3_bind_int64(s, 1, (int64_t)r->segment);
        sqlite3_bind_blob64(s, 2, r->data, r->size, SQLITE_STATIC);
        return database_run(d, PUT_REPORT);
}

int database_reserve_text(Database *d, size_t size)
{
        char *p;

        if (size <= d->text_size)
                return 0;
        p = realloc(d->text, size);
        if (!p) {
                d->code = SQLITE_NOMEM;
                snprintf(d->error, sizeof(d->error), "out of memory");
                return DATABASE_E_FAILED;
        }
        d->text = p;
        d->text_size = size;
        return 0;
}

/* The signatures, outermost first, each with its NUL. */
static int database_make_text(Database *d, const Stack *stack, size_t *ret_size)
{
        size_t size = 0;
        char *p;

        for (size_t i = 0; i < stack->n_signatures; i++)
                size += strlen(stack->signatures[i]) + 1;
        if (database_reserve_text(d, size) != 0)
                return DATABASE_E_FAILED;
        p = d->text;
        for (size_t i = 0; i < stack->n_signatures; i++)
                p = stpcpy(p, stack->signatures[i]) + 1;
        *ret_size = size;
        return 0;
}

/* FNV-1a. That of util is another one in each process. */
static uint64_t text_hash(const char *text, size_t size)
{
        uint64_t hash = 0xcbf29ce484222325;

        for (size_t i = 0; i < size; i++)
                hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3;
        return hash;
}

/* A byte each; nothing where they are not known. */
static void bind_kinds(sqlite3_stmt *s, int n, const Stack *stack)
{
        sqlite3_bind_blob64(s, n, stack->kinds ? (const char *)stack->kinds : "",
                stack->kinds ? stack->n_signatures : 0, SQLITE_STATIC);
}

int database_find_stack(Database *d, const Stack *stack, int64_t *ret_id)
{
        sqlite3_stmt *s;
        size_t size;
        int64_t hash;
        int r;

        if (database_make_text(d, stack, &size) != 0)
                return DATABASE_E_FAILED;
        hash = (int64_t)text_hash(d->text, size);
        s = database_statement(d, FIND_STACK);
        sqlite3_bind_int64(s, 1, hash);
        sqlite3_bind_blob64(s, 2, d->text, size, SQLITE_STATIC);
        bind_kinds(s, 3, stack);
        r = sqlite3_step(s);
        if (r == SQLITE_ROW)
                *ret_id = sqlite3_column_int64(s, 0);
        else if (r != SQLITE_DONE)
                database_fail(d);
        sqlite3_reset(s);
        if (r == SQLITE_ROW)
                return 0;
        if (r != SQLITE_DONE)
                return DATABASE_E_FAILED;
        s = database_statement(d, ADD_STACK);
        sqlite3_bind_int64(s, 1, hash);
        sqlite3_bind_blob64(s, 2, d->text, size, SQLITE_STATIC);
        bind_kinds(s, 3, stack);
        if (database_run(d, ADD_STACK) != 0)
                return DATABASE_E_FAILED;
        *ret_id = sqlite3_last_insert_rowid(d->db);
        return 0;
}

int database_add_snapshot(Database *d, const KeptSnapshot *k)
{
        sqlite3_stmt *s = database_statement(d, ADD_SNAPSHOT);
        int64_t stack;

        if (database_find_stack(d, k->stack, &stack) != 0)
                return DATABASE_E_FAILED;
        sqlite3_bind_int64(s, 1, (int64_t)k->segment);
        sqlite3_bind_int64(s, 2, (int64_t)k->id);
        sqlite3_bind_int64(s, 3, k->time_wall_ms);
        sqlite3_bind_int64(s, 4, stack);
        if (database_run(d, ADD_SNAPSHOT) != 0)
                return DATABASE_E_FAILED;
        return database_note_id(d, k->id);
}

int database_remove_snapshot(Database *d, uint64_t segment, uint64_t id)
{
        sqlite3_stmt *s = database_statement(d, REMOVE_SNAPSHOT);

        sqlite3_bind_int64(s, 1, (int64_t)segment);
        sqlite3_bind_int64(s, 2, (int64_t)id);
        return database_run(d, REMOVE_SNAPSHOT);
}

int database_remove_segment(Database *d, uint64_t segment)
{
        sqlite3_bind_int64(database_statement(d, REMOVE_SEGMENT), 1, (int64_t)segment);
        return database_run(d, REMOVE_SEGMENT);
}

int database_remove_oldest(
        Database *d, uint64_t in_use, uint64_t *ret_segment, size_t *ret_n_snapshots)
{
        sqlite3_stmt *s = database_statement(d, OLDEST);
        int r;

        sqlite3_bind_int64(s, 1, (int64_t)in_use);
        r = sqlite3_step(s);
        *ret_segment = r == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(s, 0) : 0;
        if (r != SQLITE_ROW && r != SQLITE_DONE)
                database_fail(d);
        sqlite3_reset(s);
        if (r != SQLITE_ROW)
                return r == SQLITE_DONE ? 0 : DATABASE_E_FAILED;
        if (database_remove_segment(d, *ret_segment) != 0)
                return DATABASE_E_FAILED;
        *ret_n_snapshots = (size_t)sqlite3_changes(d->db);
        return database_remove_stacks(d);
}

int database_remove_stacks(Database *d)
{
        return database_exec(d, "DELETE FROM stack WHERE id NOT IN (SELECT stack FROM snapshot)");
}

int database_sweep(Database *d, int64_t now_wall_ms)
{
        sqlite3_stmt *oldest = database_statement(d, OLDEST);
        char sql[2048];
        int found;

        /* What comes from a clock that was ahead goes, too. */
        snprintf(sql, sizeof(sql),
                "DELETE FROM instance WHERE abs(%" PRIi64 " - used_wall_ms) > %lld;"
                "DELETE FROM task WHERE state != %d AND abs(%" PRIi64 " - end_wall_ms) > %lld;"
                "DELETE FROM segment WHERE report IS NULL"
                " AND NOT EXISTS (SELECT 1 FROM snapshot WHERE segment = segment.id)"
                " AND NOT EXISTS (SELECT 1 FROM task WHERE task.service = segment.service"
                " AND task.instance = segment.instance AND task.task_id = segment.task_id"
                " AND task.state = %d);"
                /* From one segment to the next, not from snapshot to snapshot. */
                "WITH RECURSIVE there (s) AS (SELECT min(segment) FROM snapshot UNION ALL"
                " SELECT (SELECT min(segment) FROM snapshot WHERE segment > s) FROM there"
                " WHERE s IS NOT NULL)"
                " DELETE FROM snapshot WHERE segment IN (SELECT s FROM there WHERE s IS NOT NULL"
                " AND s NOT IN (SELECT id FROM segment))",
                now_wall_ms, REMEMBER_MS, KEPT_TASK_LIVE, now_wall_ms, REMEMBER_MS, KEPT_TASK_LIVE);
        if (database_exec(d, sql) != 0)
                return DATABASE_E_FAILED;
        /* Not as a condition of the removal, which would look at each stack for that. */
        sqlite3_bind_int64(oldest, 1, -1);
        found = sqlite3_step(oldest);
        sqlite3_reset(oldest);
        return found == SQLITE_DONE ? database_exec(d, "DELETE FROM stack") : 0;
}

/* ---- iteration ---- */

const char *database_column_text(sqlite3_stmt *s, int n)
{
        const unsigned char *text = sqlite3_column_text(s, n);

        return text ? (const char *)text : "";
}

int database_iteration_end(Database *d, sqlite3_stmt *s, int r)
{
        if (r != SQLITE_DONE)
                database_fail(d);
        sqlite3_reset(s);
        return r == SQLITE_DONE ? 0 : DATABASE_E_FAILED;
}

int database_instances(
        Database *d, void (*each)(void *userdata, const KeptInstance *i), void *userdata)
{
        sqlite3_stmt *s = database_statement(d, INSTANCES);
        int r;

        while ((r = sqlite3_step(s)) == SQLITE_ROW)
                each(userdata, &(KeptInstance){.service = database_column_text(s, 0),
                                       .instance = database_column_text(s, 1),
                                       .last_command_wall_ms = sqlite3_column_int64(s, 2)});
        return database_iteration_end(d, s, r);
}

int database_tasks(Database *d, void (*each)(void *userdata, const KeptTask *t), void *userdata)
{
        sqlite3_stmt *s = database_statement(d, TASKS);
        int r;

        while ((r = sqlite3_step(s)) == SQLITE_ROW)
                each(userdata, &(KeptTask){.service = database_column_text(s, 0),
                                       .instance = database_column_text(s, 1),
                                       .task_id = database_column_text(s, 2),
                                       .endpoint = database_column_text(s, 3),
                                       .threshold_ms = sqlite3_column_int64(s, 4),
                                       .period_ms = sqlite3_column_int64(s, 5),
                                       .max_sampling_count = sqlite3_column_int64(s, 6),
                                       .start_wall_ms = sqlite3_column_int64(s, 7),
                                       .end_wall_ms = sqlite3_column_int64(s, 8),
                                       .state = sqlite3_column_int(s, 9)});
        return database_iteration_end(d, s, r);
}

int database_segments(Database *d,
        void (*each)(void *userdata, const KeptSegment *s, size_t n_snapshots), void *userdata)
{
        sqlite3_stmt *s = database_statement(d, SEGMENTS);
        int r;

        while ((r = sqlite3_step(s)) == SQLITE_ROW) {
                int next = sqlite3_column_int(s, 5), reserved = sqlite3_column_int(s, 6);

                /* The file is not to be trusted. */
                if (sqlite3_column_int64(s, 0) <= 0 || next < 0 || reserved < next ||
                        reserved > SEQUENCE_MAX)
                        continue;
                each(userdata,
                        &(KeptSegment){.id = (uint64_t)sqlite3_column_int64(s, 0),
                                .service = database_column_text(s, 1),
                                .instance = database_column_text(s, 2),
                                .task_id = database_column_text(s, 3),
                                .segment_id = database_column_text(s, 4),
                                .next_sequence = next,
                                .reserved_sequence = reserved,
                                .left_id = (uint64_t)sqlite3_column_int64(s, 13),
                                .reserved_kept = sqlite3_column_int(s, 7),
                                .first_wall_ms = sqlite3_column_int64(s, 8),
                                .last_wall_ms = sqlite3_column_int64(s, 9),
                                .done = sqlite3_column_int(s, 10),
                                .report = sqlite3_column_blob(s, 11),
                                .report_size = (size_t)sqlite3_column_bytes(s, 11)},
                        (size_t)sqlite3_column_int64(s, 12));
        }
        return database_iteration_end(d, s, r);
}

int database_snapshots(Database *d, size_t n,
        void (*each)(void *userdata, const KeptSnapshot *s, uint64_t stack_id, const char *text,
                size_t size),
        void *userdata)
{
        sqlite3_stmt *s = database_statement(d, SNAPSHOTS);
        int r;

        sqlite3_bind_int64(s, 1, (int64_t)n);
        while ((r = sqlite3_step(s)) == SQLITE_ROW) {
                /* The bytes first: their number is that of what was asked for before. */
                const char *text = sqlite3_column_blob(s, 4);

                each(userdata,
                        &(KeptSnapshot){.segment = (uint64_t)sqlite3_column_int64(s, 0),
                                .id = (uint64_t)sqlite3_column_int64(s, 1),
                                .time_wall_ms = sqlite3_column_int64(s, 2)},
                        (uint64_t)sqlite3_column_int64(s, 3), text,
                        (size_t)sqlite3_column_bytes(s, 4));
        }
        return database_iteration_end(d, s, r);
}
