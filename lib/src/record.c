/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

static _Atomic uint64_t last_id;

Record *record_table_add(RecordTable *t)
{
        Record *record;

        if (t->n >= RECORDS_MAX)
                return NULL;
        if (t->n == t->n_allocated) {
                size_t n = t->n_allocated ? 2 * t->n_allocated : 16;
                Record **records = realloc(t->records, n * sizeof(*records));

                if (!records)
                        return NULL;
                t->records = records;
                t->n_allocated = n;
        }
        record = calloc(1, sizeof(*record));
        if (!record)
                return NULL;
        record->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
        t->records[t->n++] = record;
        return record;
}

/* Ids grow, so that the table is sorted. Return: the first place whose id is not less. */
static size_t place(const RecordTable *t, uint64_t id)
{
        size_t begin = 0, end = t->n;

        while (begin < end) {
                size_t middle = (begin + end) / 2;

                if (t->records[middle]->id < id)
                        begin = middle + 1;
                else
                        end = middle;
        }
        return begin;
}

void record_table_remove(RecordTable *t, Record *record)
{
        size_t i = place(t, record->id);

        t->n--;
        memmove(&t->records[i], &t->records[i + 1], (t->n - i) * sizeof(t->records[0]));
        free(record);
}

Record *record_table_find(const RecordTable *t, uint64_t id)
{
        size_t i = place(t, id);

        return i < t->n && t->records[i]->id == id ? t->records[i] : NULL;
}

Record *record_table_find_segment(const RecordTable *t, const char *segment)
{
        for (size_t i = 0; i < t->n; i++)
                if (strcmp(t->records[i]->segment, segment) == 0)
                        return t->records[i];
        return NULL;
}

void record_table_deinit(RecordTable *t)
{
        for (size_t i = 0; i < t->n; i++)
                free(t->records[i]);
        free(t->records);
        *t = (RecordTable){0};
}
