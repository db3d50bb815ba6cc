/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "store/op.h"
#include "store/store.h"

/* What store.c (a database, its thread) and results-store.c (one of results) share. */

typedef struct StoreKind {
        const char *file_name;
        const DatabaseSchema *schema;
        /* Where there can be no file, a database of that size is in memory; 0: none. */
        uint64_t max_memory_bytes;
        /* In the thread: forgets what is of no use any more. Return: 0, DATABASE_E_FAILED. */
        int (*sweep)(const Store *s, Database *d, int64_t now_wall_ms);
} StoreKind;

int store_new_kind(Store **ret, const StoreKind *kind, const char *dir, uint64_t max_bytes,
        uint64_t max_age_ms);
/* Takes the op over. Return: 0, -EBUSY. */
int store_push(Store *s, Op *op);
/* Whether writing is likely to succeed. */
bool store_works(void *userdata);
uint64_t store_max_age_ms(const Store *s);
/* NULL: there is none. Not the main thread's any more once the store's runs. */
Database *store_database(Store *s);
void store_log_restore(const Store *s);

int store_record_results(
        void *userdata, ResultBatch *batch, ResultRecorded done, void *done_userdata);
