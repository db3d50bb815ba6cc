/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <libelf.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/cpython-layout.h"

/*
 * A file that holds CPython: an executable, or libpython3.x.so. What is needed of it stands in the
 * file itself, the same for all processes that run it. One allocation, immutable.
 */

#define CPYTHON_RANGES_MAX 16

typedef struct CpythonBinary {
        CpythonLayout layout;
        uint64_t runtime_vaddr; /* of _PyRuntime */
        bool tail_calls; /* each instruction is a function of its own (3.14, by some compilers) */
        /* The interpreter loop: [start, end) in the file's addresses. More than one where the compiler
         * moved parts of it away. */
        size_t n_ranges;
        struct {
                uint64_t start, end;
        } ranges[CPYTHON_RANGES_MAX];
} CpythonBinary;

enum {
        _CPYTHON_BINARY_E_SUCCESS,
        CPYTHON_BINARY_E_NONE,    /* no CPython */
        CPYTHON_BINARY_E_VERSION, /* one that is not known */
        CPYTHON_BINARY_E_THREADS, /* one without a GIL */
        CPYTHON_BINARY_E_BAD,     /* one in which something that is needed cannot be found */
};

/* `debug`: the separate debug file, or NULL. malloc'ed. Return: 0, CPYTHON_BINARY_E_…, -ENOMEM. */
int cpython_binary_new(CpythonBinary **ret, Elf *elf, Elf *debug);

/* The same quickly, without the interpreter loop; *ret_bias: where it was loaded, when the file's offset
 * `offset` is at `start`. Return: as above. */
int cpython_binary_peek(
        CpythonBinary **ret, Elf *elf, uint64_t start, uint64_t offset, uint64_t *ret_bias);

/* Whether the address is in the interpreter loop. */
bool cpython_binary_is_eval(const CpythonBinary *b, uint64_t vaddr);
