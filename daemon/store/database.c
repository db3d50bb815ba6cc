/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/database-private.h"
#include "util/error.h"

#define PAGE_BYTES 4096
/* The tables of tasks and segments are small beside the kept snapshots, and may grow beyond the
 * bound of these. */
#define SPARE_BYTES (8 << 20)

static const char spool_tables[] =
        "CREATE TABLE instance (service TEXT NOT NULL, name TEXT NOT NULL,"
        " last_command_wall_ms INTEGER NOT NULL, used_wall_ms INTEGER NOT NULL,"
        " PRIMARY KEY (service, name)) STRICT, WITHOUT ROWID;"
        "CREATE TABLE task (service TEXT NOT NULL, instance TEXT NOT NULL, task_id TEXT NOT NULL,"
        " endpoint TEXT NOT NULL, threshold_ms INTEGER NOT NULL, period_ms INTEGER NOT NULL,"
        " max_sampling_count INTEGER NOT NULL, start_wall_ms INTEGER NOT NULL,"
        " end_wall_ms INTEGER NOT NULL, state INTEGER NOT NULL,"
        " PRIMARY KEY (service, instance, task_id)) STRICT, WITHOUT ROWID;"
        "CREATE TABLE segment (id INTEGER PRIMARY KEY, service TEXT NOT NULL,"
        " instance TEXT NOT NULL, task_id TEXT NOT NULL, segment_id TEXT NOT NULL,"
        " next_sequence INTEGER NOT NULL, reserved_sequence INTEGER NOT NULL,"
        " reserved_kept INTEGER NOT NULL, first_wall_ms INTEGER NOT NULL,"
        " last_wall_ms INTEGER NOT NULL, done INTEGER NOT NULL, report BLOB,"
        " left_id INTEGER NOT NULL) STRICT;"
        "CREATE TABLE snapshot (segment INTEGER NOT NULL, id INTEGER NOT NULL,"
        " time_wall_ms INTEGER NOT NULL, stack INTEGER NOT NULL,"
        " PRIMARY KEY (segment, id)) STRICT, WITHOUT ROWID;" COMMON_TABLES;

static const char *const spool_texts[N_SPOOL_STATEMENTS] = {
        COMMON_STATEMENTS,
        [PUT_INSTANCE] = "INSERT INTO instance VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET"
                         " last_command_wall_ms = ?3, used_wall_ms = ?4",
        [PUT_TASK] = "INSERT OR REPLACE INTO task VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        [END_TASK] = "INSERT INTO task VALUES (?1, ?2, ?3, '', 0, 0, 0, ?5, ?5, ?4)"
                     " ON CONFLICT DO UPDATE SET state = ?4",
        [PUT_SEGMENT] = "INSERT OR REPLACE INTO segment"
                        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        [PUT_REPORT] = "UPDATE segment SET report = ?2 WHERE id = ?1",
        [ADD_SNAPSHOT] = "INSERT INTO snapshot VALUES (?1, ?2, ?3, ?4)",
        [REMOVE_SNAPSHOT] = "DELETE FROM snapshot WHERE segment = ?1 AND id = ?2",
        [OLDEST] = "SELECT segment FROM snapshot WHERE segment > ?1 ORDER BY segment LIMIT 1",
        [REMOVE_SEGMENT] = "DELETE FROM snapshot WHERE segment = ?1",
        [INSTANCES] = "SELECT service, name, last_command_wall_ms FROM instance",
        [TASKS] = "SELECT service, instance, task_id, endpoint, threshold_ms, period_ms,"
                  " max_sampling_count, start_wall_ms, end_wall_ms, state FROM task"
                  " ORDER BY end_wall_ms",
        [SEGMENTS] = "SELECT id, service, instance, task_id, segment_id, next_sequence,"
                     " reserved_sequence, reserved_kept, first_wall_ms, last_wall_ms, done, report,"
                     " (SELECT count(*) FROM snapshot WHERE segment = segment.id AND snapshot.id > "
                     "left_id),"
                     " left_id"
                     " FROM segment ORDER BY id",
        [SNAPSHOTS] = "SELECT segment, snapshot.id, time_wall_ms, stack.id, text"
                      " FROM snapshot JOIN stack ON stack.id = stack"
                      " ORDER BY segment, snapshot.id LIMIT ?1",
};

const DatabaseSchema database_spool = {
        .application_id = 0x73777072, /* "swpr" */
        .version = 2,
        .upgrade = STACK_KINDS_UPGRADE,
        .tables = spool_tables,
        .texts = spool_texts,
        .n_texts = N_SPOOL_STATEMENTS,
};

/* ---- statements ---- */

int database_fail(Database *d)
{
        d->code = sqlite3_extended_errcode(d->db);
        snprintf(d->error, sizeof(d->error), "%s", sqlite3_errmsg(d->db));
        return DATABASE_E_FAILED;
}

const char *database_error(const Database *d)
{
        return d->error;
}

static bool code_is_broken(int code)
{
        switch (code & 0xff) {
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
        case SQLITE_FORMAT:
        case SQLITE_SCHEMA:
        case SQLITE_MISMATCH:
        case SQLITE_CONSTRAINT:
        case SQLITE_ERROR: /* another schema than ours */
                return true;
        default:
                return false;
        }
}

bool database_is_damaged(const Database *d)
{
        int code = d->code & 0xff;

        return code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

static int database_prepare(Database *d)
{
        for (size_t i = 0; i < d->schema->n_texts; i++)
                if (sqlite3_prepare_v3(d->db, d->schema->texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                            &d->statements[i], NULL) != SQLITE_OK)
                        return database_fail(d);
        return 0;
}

sqlite3_stmt *database_statement(Database *d, StatementId id)
{
        return d->statements[id];
}

/* A statement that gives no rows that matter. */
int database_run(Database *d, StatementId id)
{
        sqlite3_stmt *s = database_statement(d, id);
        int r = sqlite3_step(s);

        if (r != SQLITE_DONE && r != SQLITE_ROW)
                database_fail(d);
        sqlite3_reset(s);
        sqlite3_clear_bindings(s);
        return r == SQLITE_DONE || r == SQLITE_ROW ? 0 : DATABASE_E_FAILED;
}

/* ---- opening ---- */

int database_exec(Database *d, const char *sql)
{
        return sqlite3_exec(d->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : database_fail(d);
}

/* The first value of the first row as a number, or as a text. */
static int database_ask(Database *d, const char *sql, int64_t *ret_number, char *ret, size_t size)
{
        sqlite3_stmt *s;
        int r;

        if (sqlite3_prepare_v2(d->db, sql, -1, &s, NULL) != SQLITE_OK)
                return database_fail(d);
        r = sqlite3_step(s);
        if (r == SQLITE_ROW) {
                const unsigned char *text = sqlite3_column_text(s, 0);

                *ret_number = sqlite3_column_int64(s, 0);
                if (ret)
                        snprintf(ret, size, "%s", text ? (const char *)text : "");
        } else {
                database_fail(d);
        }
        sqlite3_finalize(s);
        return r == SQLITE_ROW ? 0 : DATABASE_E_FAILED;
}

static int database_set_up(Database *d, uint64_t max_bytes)
{
        char sql[512];

        sqlite3_extended_result_codes(d->db, 1);
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
        /* Exclusive: no second daemon, and the index of the log is in our memory, not in a file. */
        snprintf(sql, sizeof(sql),
                "PRAGMA page_size = %d; PRAGMA locking_mode = EXCLUSIVE;"
                " PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1024; PRAGMA mmap_size = 0;"
                " PRAGMA cell_size_check = ON; PRAGMA journal_size_limit = 4194304;"
                " PRAGMA max_page_count = %" PRIu64,
                PAGE_BYTES, (max_bytes + SPARE_BYTES) / PAGE_BYTES);
        return database_exec(d, sql);
}

static int database_identify(Database *d, int64_t version)
{
        const DatabaseSchema *schema = d->schema;
        int64_t application;

        if (database_ask(d, "PRAGMA application_id", &application, NULL, 0) != 0)
                return DATABASE_E_FAILED;
        if ((version != schema->version && version != schema->version - 1) || version == 0 ||
                application != schema->application_id) {
                d->code = SQLITE_FORMAT;
                if (version > schema->version && application == schema->application_id)
                        snprintf(d->error, sizeof(d->error),
                                "it is of a newer swprofd (schema %" PRIi64 ", this one knows %d)",
                                version, schema->version);
                else
                        snprintf(d->error, sizeof(d->error), "it is no database of swprofd");
                return DATABASE_E_FAILED;
        }
        return 0;
}

bool database_read_ahead(Database *d, uint64_t *at)
{
        sqlite3_file *file = NULL;
        uint8_t bytes[64 << 10];
        int r;

        /* With the descriptor that is there: when another one of the file is closed, its locks go. */
        r = sqlite3_file_control(d->db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
        if (r != SQLITE_OK || !file || !file->pMethods)
                return false;
        /* What cannot be read is the check's to find. */
        r = file->pMethods->xRead(file, bytes, sizeof(bytes), (sqlite3_int64)*at);
        *at += sizeof(bytes);
        return r == SQLITE_OK;
}

/* Asked once in so many instructions of SQLite's machine, some 10 µs. */
#define STOP_INSTRUCTIONS 1000

typedef struct Stop {
        bool (*stop)(void *userdata);
        void *userdata;
} Stop;

static int on_progress(void *userdata)
{
        const Stop *s = userdata;

        return s->stop(s->userdata);
}

int database_check(Database *d, bool (*stop)(void *userdata), void *userdata)
{
        Stop asked = {.stop = stop, .userdata = userdata};
        char result[128];
        int64_t number;
        int r;

        sqlite3_progress_handler(d->db, STOP_INSTRUCTIONS, on_progress, &asked);
        r = database_ask(d, "PRAGMA quick_check(1)", &number, result, sizeof(result));
        sqlite3_progress_handler(d->db, 0, NULL, NULL);
        if (r != 0)
                return (d->code & 0xff) == SQLITE_INTERRUPT ? 0 : DATABASE_E_FAILED;
        if (strcmp(result, "ok") != 0) {
                d->code = SQLITE_CORRUPT;
                snprintf(d->error, sizeof(d->error), "it is damaged: %s", result);
                return DATABASE_E_FAILED;
        }
        return 0;
}

/* `sql`: the tables, or what makes them of those of the version before. */
static int database_write_schema(Database *d, const char *sql)
{
        char end[128];

        snprintf(end, sizeof(end), "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
                (int)d->schema->application_id, d->schema->version);
        if (database_exec(d, "BEGIN IMMEDIATE") != 0 || database_exec(d, sql) != 0 ||
                database_exec(d, end) != 0)
                return DATABASE_E_FAILED;
        return 0;
}

static int database_read_last_id(Database *d)
{
        int64_t id;

        if (database_ask(d, "SELECT max(max(id), 0) FROM last_id", &id, NULL, 0) != 0)
                return DATABASE_E_FAILED;
        d->last_id = d->noted_id = (uint64_t)id;
        return 0;
}

static int database_start(Database *d, uint64_t max_bytes)
{
        int64_t version, n_objects, number;
        char mode[16];
        int r;

        r = database_set_up(d, max_bytes);
        if (r == 0)
                r = database_ask(d, "SELECT count(*) FROM sqlite_schema", &n_objects, NULL, 0);
        if (r == 0)
                r = database_ask(d, "PRAGMA user_version", &version, NULL, 0);
        if (r == 0 && (n_objects > 0 || version != 0))
                r = database_identify(d, version);
        /* An older log is written back, or it is made empty. */
        if (r == 0)
                r = database_ask(d, "PRAGMA journal_mode = WAL", &number, mode, sizeof(mode));
        if (r == 0 && strcmp(mode, "wal") != 0 && strcmp(mode, "memory") != 0) {
                snprintf(d->error, sizeof(d->error), "it takes no write-ahead log");
                r = DATABASE_E_FAILED;
        }
        if (r == 0)
                r = database_exec(d, "PRAGMA synchronous = NORMAL");
        if (r == 0 && n_objects == 0)
                r = database_write_schema(d, d->schema->tables);
        else if (r == 0 && version < d->schema->version)
                r = database_write_schema(d, d->schema->upgrade);
        if (r == 0)
                r = database_prepare(d);
        if (r == 0)
                r = database_read_last_id(d);
        /* That it can be written is to be known now. */
        if (r == 0)
                r = database_begin(d, false);
        if (r == 0)
                r = database_exec(d, "UPDATE last_id SET id = id");
        if (r == 0)
                r = database_commit(d);
        return r;
}

int database_open(Database **ret, const DatabaseSchema *schema, const char *path,
        uint64_t max_bytes, char **ret_error)
{
        _cleanup_(database_closep) Database *d = calloc(1, sizeof(*d));
        int r;

        *ret_error = NULL;
        if (!d)
                return error_origin(-ENOMEM);
        d->schema = schema;
        r = sqlite3_open_v2(path, &d->db,
                SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                        SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE,
                NULL);
        if (r == SQLITE_NOMEM || !d->db)
                return error_origin(-ENOMEM);
        if (r != SQLITE_OK)
                database_fail(d);
        if (r == SQLITE_OK && database_start(d, max_bytes) == 0) {
                *ret = TAKE_PTR(d);
                return 0;
        }
        *ret_error = strdup(d->error);
        return code_is_broken(d->code) ? DATABASE_E_BROKEN : DATABASE_E_FAILED;
}

Database *database_close(Database *d)
{
        if (!d)
                return NULL;
        for (int i = 0; i < N_STATEMENTS_MAX; i++)
                sqlite3_finalize(d->statements[i]);
        sqlite3_close(d->db);
        free(d->text);
        free(d);
        return NULL;
}

uint64_t database_bytes(Database *d)
{
        int64_t n_pages = 0, n_free = 0;

        /* 0 for want of memory only. */
        if (database_ask(d, "PRAGMA page_count", &n_pages, NULL, 0) != 0 ||
                database_ask(d, "PRAGMA freelist_count", &n_free, NULL, 0) != 0 || n_pages < n_free)
                return 0;
        return (uint64_t)(n_pages - n_free) * PAGE_BYTES;
}

uint64_t database_last_id(Database *d)
{
        return d->last_id;
}

int database_begin(Database *d, bool durable)
{
        if (durable != d->durable) {
                if (database_exec(d, durable ? "PRAGMA synchronous = FULL"
                                             : "PRAGMA synchronous = NORMAL") != 0)
                        return DATABASE_E_FAILED;
                d->durable = durable;
        }
        return database_run(d, BEGIN);
}

int database_commit(Database *d)
{
        int r = database_run(d, COMMIT);

        if (r == 0)
                d->last_id = d->noted_id;
        else
                database_rollback(d);
        return r;
}

void database_rollback(Database *d)
{
        d->noted_id = d->last_id;
        /* The error that is the reason is told, not one of this. */
        if (!sqlite3_get_autocommit(d->db)) {
                sqlite3_step(database_statement(d, ROLLBACK));
                sqlite3_reset(database_statement(d, ROLLBACK));
        }
}
