/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "unwind/cfi-table.h"
#include "util/cleanup.h"

/*
 * A binary (executable, library, vDSO) as unwinding needs it, shared by all processes that map the
 * same file. Immutable after creation, but for a lazy table that is replaced by the full one;
 * counted references from any thread.
 */

typedef struct ModuleSegment {
        uint64_t offset, vaddr, filesz; /* of a PT_LOAD */
} ModuleSegment;

typedef struct Module {
        atomic_uint n_refs;
        uint32_t id;             /* unique for the daemon's life time, from 1 */
        char *name;              /* base name of the file, "[vdso]" */
        _Atomic(CfiTable *) cfi; /* NULL: the file could not be read */
        CfiTable *lazy;          /* the one before: its rules may be in use */
        size_t n_segments;
        ModuleSegment *segments;
        void *symbols; /* the symbolizer's, owned elsewhere */
        void *python;  /* CpythonBinary: the file holds an interpreter; malloc'ed, the module's */
} Module;

/* Takes over cfi and copies the rest. NULL: no memory (cfi is then still the caller's). */
Module *module_new(
        const char *name, CfiTable *cfi, size_t n_segments, const ModuleSegment *segments);
/* Takes over the full table of a module whose table is lazy; there is always one while stacks are unwound.
 * One thread at a time. */
void module_set_full(Module *m, CfiTable *cfi);
static inline CfiTable *module_cfi(const Module *m)
{
        return atomic_load_explicit(&m->cfi, memory_order_acquire);
}
Module *module_ref(Module *m);
Module *module_unref(Module *m);
DEFINE_CLEANUP(Module *, module_unref)

/* The PT_LOAD that covers a file offset, or NULL; [*ret_begin, *ret_end) are offsets around it for
 * which the answer is the same. */
const ModuleSegment *module_segment(
        const Module *m, uint64_t file_offset, uint64_t *ret_begin, uint64_t *ret_end);

/* File offset → ELF vaddr; UINT64_MAX when no PT_LOAD covers it. */
uint64_t module_vaddr(const Module *m, uint64_t file_offset);
