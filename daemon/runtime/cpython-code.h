/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "python-abi.h"
#include "runtime/cpython-layout.h"
#include "util/cleanup.h"

/*
 * The code objects of a process that were met on stacks. The sampler finds and adds them; the
 * symbolizer reads their names, once, and each then knows that this is done: they share nothing
 * else. A set lives as long as anything refers to it, its codes as long as the set.
 *
 * A code object is known by its address and by what was there when its frame was read (its
 * identity). The names are read some time later: only if the object still has that identity before
 * and after they were read, they are its names.
 */

typedef struct CpythonCodes CpythonCodes;

typedef struct CpythonCode {
        /* constant */
        CpythonCodes *codes;
        uint64_t id; /* unique for the daemon's life time */
        uint64_t address, identity;
        /* the symbolizer's */
        enum {
                CPYTHON_CODE_UNREAD,
                CPYTHON_CODE_NAMED,
                CPYTHON_CODE_HIDDEN, /* the interpreter's own, which tracebacks do not show */
                CPYTHON_CODE_LOST,   /* another one was there by then, or it cannot be read */
        } state;
        char *filename, *name;
        int first_line;
        uint8_t *lines;
        size_t n_lines;
} CpythonCode;

/* With that many, or with too many bytes of names, it is time for a new set. */
#define CPYTHON_CODES_MAX 65536

/* NULL: no memory. */
CpythonCodes *cpython_codes_new(pid_t pid, const CpythonLayout *layout);
CpythonCodes *cpython_codes_ref(CpythonCodes *c);
CpythonCodes *cpython_codes_unref(CpythonCodes *c);
DEFINE_CLEANUP(CpythonCodes *, cpython_codes_unref)
const CpythonLayout *cpython_codes_layout(const CpythonCodes *c);
pid_t cpython_codes_pid(const CpythonCodes *c);

/* The code of that frame, added if need be (*ret_new). By one thread. NULL: no memory. */
CpythonCode *cpython_codes_get(CpythonCodes *c, const struct swp_python_frame *f, bool *ret_new);
bool cpython_codes_full(const CpythonCodes *c);

/* Reads what is not read yet, from the process's memory. By the symbolizer. May wait for the
 * process's pages. */
void cpython_code_read(CpythonCode *code);

/* The number of the frame's instruction, in code units; -1: the function has not begun. */
int64_t cpython_code_unit(const CpythonLayout *layout, const struct swp_python_frame *f);

/* "file.function: line", as SkyWalking's Python agent writes it, of a code that is NAMED. `lines`:
 * with the line. malloc'ed; NULL: no memory. */
char *cpython_code_signature(const CpythonCode *code, int64_t unit, bool lines);
