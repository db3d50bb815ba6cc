/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "python-abi.h"

/* Where things are in the objects of a CPython, x86-64 builds with a GIL. */

#define CPYTHON_MINOR_MIN 8
#define CPYTHON_MINOR_MAX 14

typedef struct CpythonLayout {
        unsigned minor;                    /* of 3.minor */
        uint16_t runtime_interpreters;     /* in _PyRuntime: the pointer to the first interpreter */
        uint16_t code_adaptive;            /* the bytecode within the code object; 0: elsewhere */
        uint16_t text_ascii, text_compact; /* where a string's characters begin */
        struct swp_python_layout walk;
} CpythonLayout;

enum {
        _CPYTHON_LAYOUT_E_SUCCESS,
        CPYTHON_LAYOUT_E_VERSION, /* not 3.8 to 3.14 */
        CPYTHON_LAYOUT_E_THREADS, /* a build without a GIL */
        CPYTHON_LAYOUT_E_BAD,     /* values that make no sense */
};

/* Of a version before 3.13, whose layout is known. Return: 0, CPYTHON_LAYOUT_E_VERSION. */
int cpython_layout_known(CpythonLayout *ret, unsigned minor);

/* By the offsets that _PyRuntime begins with since 3.13 (_Py_DebugOffsets). They are the target's
 * word: checked. Return: 0, CPYTHON_LAYOUT_E_…. */
int cpython_layout_parse(CpythonLayout *ret, const void *runtime, size_t size);
