/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "python-abi.h"
#include "runtime/cpython-layout.h"
#include "unwind/types.h"

/*
 * The native frames of a thread and the interpreter's own, of the same instant, become one stack.
 * Pure.
 *
 * Each time that C calls into Python, the interpreter loop is entered anew: one native frame of it
 * stands for all functions that Python called from there, until 3.10 for just one. Since 3.12 each
 * entry leaves an object on the native stack, which lies in the frame of the loop: they are matched
 * by address. Before, the frames of the loop and the entries must be as many, or they are not of one
 * stack; the innermost one may be without functions, being entered or left.
 */

typedef struct CpythonMerge {
        const CpythonLayout *layout;
        bool mixed; /* keep all native frames but the loop's; else the innermost one alone, unless
                         it is the interpreter's */
        bool partial; /* the native stack was not read up to its root: it has to be a greenlet's, which
                         begins before, or: */
        bool truncated; /* as far as it was copied: further out there are functions of Python only */
        size_t n_native;
        const Frame *native; /* innermost first */
        size_t n_python;
        const struct swp_python_frame *python;
} CpythonMerge;

enum {
        _CPYTHON_MERGE_E_SUCCESS,
        CPYTHON_MERGE_E_MISMATCH,
        CPYTHON_MERGE_E_TOO_DEEP, /* more than max */
        CPYTHON_MERGE_E_NO_ENTRY, /* done, but a frame of the loop is without functions: it is being
                                     entered or left, or they are of a state that was not read */
};

/* Functions of Python are frames of kind FRAME_PYTHON whose vaddr is their index in `python`. Return:
 * 0, CPYTHON_MERGE_E_…. */
int cpython_merge(const CpythonMerge *m, Frame *ret, size_t max, size_t *ret_n);

/* Whether the frame is one of the interpreter loop, as far as symbols tell. */
bool cpython_is_eval(const Frame *frame);
