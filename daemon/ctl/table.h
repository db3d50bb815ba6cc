/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "util/cleanup.h"

/* Rows of text in aligned columns under a heading. */

typedef struct Column {
        const char *heading;
        bool right; /* numbers */
} Column;

typedef struct Table {
        const Column *columns;
        size_t n_columns;
        char **cells; /* row by row */
        size_t n_cells;
} Table;

Table *table_new(const Column *columns, size_t n_columns);
/* Of an array. */
#define TABLE(columns) table_new(columns, sizeof(columns) / sizeof((columns)[0]))
Table *table_free(Table *t);
DEFINE_CLEANUP(Table *, table_free)

/* The next cell, row by row; escaped. */
void table_add(Table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same of a text that it frees. */
void table_take(Table *t, char *text);

void table_print(const Table *t, FILE *f, bool colour);
