/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "unwind/cfi-program.h"

/*
 * Go's function table (.gopclntab, Go 1.18 and later), which is there in stripped programs, too: how
 * far rsp is from the CFA at each instruction. A pure function of its bytes, which may be hostile:
 * all of it is read in steps as many as its size and GO_ROWS_MAX.
 *
 * Roots are what the runtime calls the top frame of a stack, and runtime.mcall, under which the
 * scheduler runs that belongs to no goroutine. Where the runtime sets rsp itself (systemstack,
 * asmcgocall, calls of the vDSO) the rest of the stack is elsewhere: there is no rule.
 */

enum {
        GO_FUNCTIONS_MAX = 4 << 20,
        GO_ROWS_MAX = 8 << 20, /* functions share lists, so that there may be more than bytes */
};

typedef struct GoTable {
        const uint8_t *bytes;
        size_t size;
        uint64_t text; /* address of the code; 0: not told, set it to where .text begins */
        uint64_t names, values, functions; /* offsets of these tables */
        size_t n_functions;
        uint32_t flag_at;   /* of the flags in a function */
        uint32_t rows_left; /* of GO_ROWS_MAX */
} GoTable;

typedef struct GoFunction {
        uint64_t start, end;
        CfiBytes name;   /* up to a 0, if there is one */
        CfiBytes values; /* begin there */
        uint8_t flags;
} GoFunction;

/* False: not such a table. It is cut off before the first function that is below the one before. */
bool go_table_init(GoTable *t, const uint8_t *bytes, size_t size);

/* False: it makes no sense. */
bool go_table_function(const GoTable *t, size_t i, GoFunction *ret);

/* Where it says that runtime.goexit is. */
bool go_table_goexit(const GoTable *t, GoFunction *ret);

/* Whether the function is what it says: runtime.goexit has an instruction before its call, and one
 * behind it, on which the runtime relies. */
bool go_function_is_goexit(const GoFunction *f, CfiBytes code);

typedef struct GoProgram {
        GoTable *table;
        GoFunction function;
        uint64_t pc;
        int64_t value;
        bool begun;
        CfiRule rule;
} GoProgram;

/* The table is borrowed; all programs together give GO_ROWS_MAX rows. */
void go_program_init(GoProgram *p, GoTable *t, const GoFunction *f);
/* The next row, as from cfi_program_next(). Return: 0, or 1 behind the last. */
int go_program_next(GoProgram *p, uint64_t *ret_start, uint64_t *ret_end, const CfiRule **ret_rule);
