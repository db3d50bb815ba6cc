/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unwind/module.h"

/*
 * The mappings of a process at one time: sorted, immutable once published, counted references from
 * any thread. procmap_parse is a pure function of the text of /proc/PID/maps (proc(5)), which is
 * hostile (file names).
 */

typedef struct Mapping {
        uint64_t start, end, offset; /* offset: in the file */
        uint64_t inode;              /* 0: anonymous */
        uint32_t dev_major, dev_minor;
        bool read, exec, write;
        bool special;   /* "[vdso]", "[vvar]", "[stack]" …, but not "[anon:…]": name tells */
        bool deleted;   /* the name ended in " (deleted)", which is cut off */
        Module *module; /* set by the loader for executable file mappings; NULL: none or unreadable
                         */
        char *name;     /* as in the text: path or "[…]"; "" when anonymous */
} Mapping;

typedef struct ProcMap {
        atomic_uint n_refs;
        size_t n;
        Mapping *mappings;   /* by start, not overlapping */
        char *text;          /* the names point into it */
        bool generates_code; /* there is code that is in no file */
        const GoPlaces *go;  /* of a module; set by the loader */
} ProcMap;

enum {
        _PROCMAP_E_SUCCESS,
        PROCMAP_E_MALFORMED, /* not what a kernel writes: syntax, order, overlap, cut off in a line
                              */
};

/* At most 65530 mappings (vm.max_map_count's default), later ones are ignored. No text: no
 * mappings. Return: 0 (reference 1), PROCMAP_E_MALFORMED, -ENOMEM. */
int procmap_parse(ProcMap **ret, const char *text, size_t size);

ProcMap *procmap_ref(ProcMap *p);
/* Drops the mappings' module references, too. */
ProcMap *procmap_unref(ProcMap *p);
DEFINE_CLEANUP(ProcMap *, procmap_unref)

/* Whether the same code is at the same places. */
bool procmap_same_code(const ProcMap *a, const ProcMap *b);

/* The mapping that covers the address, or NULL. */
const Mapping *procmap_find(const ProcMap *p, uint64_t addr);
