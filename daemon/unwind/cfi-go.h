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
 * asmcgocall, calls of the vDSO) the rest of the stack is elsewhere: see cfi-go-code.h.
 */

enum {
        GO_FUNCTIONS_MAX = 4 << 20,
        GO_ROWS_MAX = 8 << 20, /* functions share lists, so that there may be more than bytes */
        GO_CODE_BYTES_MAX = 64 << 10, /* of functions that set rsp; Go has 4 KiB */
};

typedef struct GoTable {
        const uint8_t *bytes;
        size_t size;
        uint64_t text; /* address of the code; 0: not told, set it to where .text begins */
        uint64_t names, values, functions; /* offsets of these tables */
        size_t n_functions;
        uint32_t flag_at;   /* of the flags in a function */
        uint32_t rows_left; /* of GO_ROWS_MAX */
        uint32_t code_left; /* of GO_CODE_BYTES_MAX */
        GoPlaces places;    /* once the rows of the functions that tell them were made */
} GoTable;

typedef struct GoFunction {
        uint64_t start, end;
        CfiBytes name;   /* up to a 0, if there is one */
        CfiBytes values; /* begin there */
        uint8_t flags;
} GoFunction;

/* False: not such a table. It is cut off before the first function that is below the one before. */
bool go_table_init(GoTable *t, const uint8_t *bytes, size_t size);

/* A signal trampoline begins one byte earlier. False: it makes no sense. */
bool go_table_function(const GoTable *t, size_t i, GoFunction *ret);

/* Where it says that runtime.goexit is. */
bool go_table_goexit(const GoTable *t, GoFunction *ret);

/* Whether the function is what it says: runtime.goexit has an instruction before its call, and one
 * behind it, on which the runtime relies. */
bool go_function_is_goexit(const GoFunction *f, CfiBytes code);

/* Of signals. */
bool go_function_is_trampoline(const GoFunction *f);
bool go_function_sets_rsp(const GoFunction *f);
bool go_function_is(const GoFunction *f, const char *name);

/* How far rsp is below where it was at a function's entry, at addresses that ascend. */
typedef struct GoDepth {
        GoTable *table;
        CfiBytes values;
        uint64_t start, end; /* `depth` holds for these */
        uint64_t function_end;
        int64_t depth;
        bool begun;
} GoDepth;

/* The table is borrowed; all together give GO_ROWS_MAX values. */
void go_depth_init(GoDepth *d, GoTable *t, const GoFunction *f);
/* Goes on to the next [start, end). False: there is none. */
bool go_depth_next(GoDepth *d);
bool go_depth_at(GoDepth *d, uint64_t vaddr, int32_t *ret);
