/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "unwind/cfi-table.h"
#include "util/hash.h"

/*
 * A CfiTable in the making: rows come in the order of their addresses, equal rules become one, and
 * neighbours of the same rule one row.
 */

typedef struct RuleNode RuleNode;

enum {
        CFI_RECENT_RULES = 256,
};

/* As small as can be, and what is searched for beside what is found. */
typedef struct CfiRow {
        uint32_t pc; /* less base */
        uint16_t rule;
} __attribute__((packed)) CfiRow;

typedef struct CfiRows {
        uint64_t base; /* lowest code address of the file; set by the user before the first row */
        size_t n_rows, n_rules, size;
        size_t n_gap_bytes; /* of code without CFI that were read; the user counts them */
        GoPlaces go;        /* the user sets them; .m 0: none */
        CfiRow *rows;
        HashTable by_hash;
        RuleNode *nodes;
        RuleNode *recent[CFI_RECENT_RULES]; /* found without hashing all of a rule */
} CfiRows;

extern const CfiRule cfi_rule_none; /* CFI_CFA_NONE */

/*
 * A row from pc on; one at the address of the last row takes that one's place, and one below it
 * is dropped (segments of a file may lie in each other). The first row ever
 * must be CFI_CFA_NONE at the base. Beyond 65535 rules every further one is CFI_CFA_NONE.
 * Return: 0, -ENOMEM.
 */
int cfi_rows_add(CfiRows *rows, uint64_t pc, const CfiRule *rule);

/* Whether there are as many as may be; the user adds but one more, to end the last. */
bool cfi_rows_full(const CfiRows *rows);

/* Return: 0, -ENOMEM. */
int cfi_rows_finish(CfiRows *rows, CfiTable **ret);
void cfi_rows_deinit(CfiRows *rows);

/* Brings a rule into the form in which a table has it. */
void cfi_rule_finish(CfiRule *rule);

/* A table that asks a CfiLazy, which it takes over in any case. Return: 0, -ENOMEM. */
struct CfiLazy;
int cfi_table_of_lazy(CfiTable **ret, struct CfiLazy *lazy);

/* Makes room for one more element in an array that doubles: `array` points to its pointer.
 * Return: 0, -ENOMEM. */
int cfi_reserve(void *array, size_t n, size_t *size, size_t element);
