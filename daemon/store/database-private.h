/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <sqlite3.h>

#include "store/database.h"

/* What database.c (the file, statements, transactions), record.c (what is in that of the spool) and
 * results.c (and in that of the local backend) share. */

/* Every schema has tables `stack` and `last_id`, and these statements. */
typedef enum StatementId {
        BEGIN,
        COMMIT,
        ROLLBACK,
        FIND_STACK,
        ADD_STACK,
        PUT_LAST_ID,
        N_COMMON_STATEMENTS,

        PUT_INSTANCE = N_COMMON_STATEMENTS,
        PUT_TASK,
        END_TASK,
        PUT_SEGMENT,
        PUT_REPORT,
        ADD_SNAPSHOT,
        REMOVE_SNAPSHOT,
        OLDEST,
        REMOVE_SEGMENT,
        INSTANCES,
        TASKS,
        SEGMENTS,
        SNAPSHOTS,
        N_SPOOL_STATEMENTS,

        PUT_RESULT_TASK = N_COMMON_STATEMENTS,
        PUT_RESULT_SEGMENT,
        ADD_RESULT_SNAPSHOT,
        RESULT_TASKS,
        RESULT_SEGMENTS,
        RESULT_STACKS,
        RESULT_SNAPSHOTS,
        N_RESULT_STATEMENTS,

        N_STATEMENTS_MAX = N_SPOOL_STATEMENTS > N_RESULT_STATEMENTS ? (int)N_SPOOL_STATEMENTS
                                                                    : (int)N_RESULT_STATEMENTS,
} StatementId;

#define COMMON_TABLES                                                                            \
        "CREATE TABLE stack (id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, text BLOB NOT NULL," \
        " kinds BLOB NOT NULL DEFAULT x'') STRICT;"                                              \
        "CREATE INDEX stack_by_hash ON stack (hash);"                                            \
        "CREATE TABLE last_id (id INTEGER NOT NULL) STRICT;"                                     \
        "INSERT INTO last_id VALUES (0);"
#define STACK_KINDS_UPGRADE "ALTER TABLE stack ADD COLUMN kinds BLOB NOT NULL DEFAULT x'';"
#define COMMON_STATEMENTS                                                                   \
        [BEGIN] = "BEGIN IMMEDIATE", [COMMIT] = "COMMIT", [ROLLBACK] = "ROLLBACK",          \
        [FIND_STACK] = "SELECT id FROM stack WHERE hash = ?1 AND text = ?2 AND kinds = ?3", \
        [ADD_STACK] = "INSERT INTO stack (hash, text, kinds) VALUES (?1, ?2, ?3)",          \
        [PUT_LAST_ID] = "UPDATE last_id SET id = ?1 WHERE id < ?1"

struct DatabaseSchema {
        uint32_t application_id;
        int version;
        const char *upgrade; /* from the version before */
        const char *tables;
        const char *const *texts; /* of statements */
        size_t n_texts;
};

struct Database {
        sqlite3 *db;
        const DatabaseSchema *schema;
        sqlite3_stmt *statements[N_STATEMENTS_MAX];
        bool durable;               /* so are transactions now */
        uint64_t last_id, noted_id; /* committed; by the transaction that is open */
        char *text;                 /* of a stack */
        size_t text_size;
        int code;
        char error[256];
};

/* Notes the error. Return: DATABASE_E_FAILED. */
int database_fail(Database *d);
sqlite3_stmt *database_statement(Database *d, StatementId id);
/* A statement that gives no rows that matter. Its values are forgotten. Return: 0,
 * DATABASE_E_FAILED. */
int database_run(Database *d, StatementId id);
/* The highest id of a segment or snapshot there ever was. Return: 0, DATABASE_E_FAILED. */
int database_note_id(Database *d, uint64_t id);
/* Makes d->text as large, at least. Return: 0, DATABASE_E_FAILED. */
int database_reserve_text(Database *d, size_t size);
/* The id of a READY stack, which is added if it is new. Return: 0, DATABASE_E_FAILED. */
int database_find_stack(Database *d, const Stack *stack, int64_t *ret_id);
/* Values are bound without a copy: they live until the statement is done. */
void database_bind_text(sqlite3_stmt *s, int n, const char *text);
/* "" for NULL. */
const char *database_column_text(sqlite3_stmt *s, int n);
/* After the rows: `r` is what the last step gave. Return: 0, DATABASE_E_FAILED. */
int database_iteration_end(Database *d, sqlite3_stmt *s, int r);
/* Some that are not used often. Return: 0, DATABASE_E_FAILED. */
int database_exec(Database *d, const char *sql);
