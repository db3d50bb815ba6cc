/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <sqlite3.h>

#include "store/database.h"

/* What database.c (the file, statements, transactions) and record.c (what is in it) share. */

typedef enum StatementId {
        BEGIN,
        COMMIT,
        ROLLBACK,
        PUT_INSTANCE,
        PUT_TASK,
        END_TASK,
        PUT_SEGMENT,
        PUT_REPORT,
        FIND_STACK,
        ADD_STACK,
        ADD_SNAPSHOT,
        REMOVE_SNAPSHOT,
        PUT_LAST_ID,
        OLDEST,
        REMOVE_SEGMENT,
        INSTANCES,
        TASKS,
        SEGMENTS,
        SNAPSHOTS,
        N_STATEMENTS,
} StatementId;

struct Database {
        sqlite3 *db;
        sqlite3_stmt *statements[N_STATEMENTS];
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
/* Some that are not used often. Return: 0, DATABASE_E_FAILED. */
int database_exec(Database *d, const char *sql);
