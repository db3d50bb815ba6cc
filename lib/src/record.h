/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "swprof.h"

/*
 * The live spans that the daemon is told of, so that it can be told again after it was away. They
 * are copies: nothing here points into spans, whose memory is the caller's and may be gone without
 * a stop. A span knows its record by an id that is never used again in this process, so that a span
 * of another client, or of before a fork, finds none.
 */

/* The daemon follows that many segments of a client by default. */
#define RECORDS_MAX 4096

typedef struct Record {
        uint64_t id;
        uint64_t start_mono_ns;
        int32_t tid; /* 0: on no thread now */
        bool told;   /* on the connection that is there */
        bool let_go; /* the daemon may have, since the span got another name */
        char segment[SWPROF_NAME_MAX + 1]; /* not empty */
        char parent[SWPROF_NAME_MAX +
                    1]; /* segment that it continues; empty: it is a request's first */
        char operation[SWPROF_OPERATION_MAX + 1]; /* empty: the parent's */
} Record;

/* In the order of their starts. */
typedef struct RecordTable {
        Record **records;
        size_t n, n_allocated;
} RecordTable;

/* Return: NULL: there are too many, or there is no memory. Valid until it is removed. */
Record *record_table_add(RecordTable *t);
void record_table_remove(RecordTable *t, Record *record);
Record *record_table_find(const RecordTable *t, uint64_t id);
Record *record_table_find_segment(const RecordTable *t, const char *segment);
void record_table_deinit(RecordTable *t);
