/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <libelf.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * Lines and inlined functions of a file with DWARF, by libdw. Compilation units and the functions
 * of those that were asked for are indexed here: .debug_aranges is not to be had from every
 * compiler. Units whose DWARF lies in other files (-gsplit-dwarf) give lines, and no inlined
 * functions.
 */

typedef struct DwarfLines DwarfLines;

typedef struct DwarfFrame {
        const char *linkage_name; /* mangled; NULL: none */
        const char *name;         /* NULL: unknown */
        const char *file;         /* base name; NULL: unknown */
        int line;                 /* 0: unknown */
} DwarfFrame;

/* `elf` has .debug_info and outlives the lines; `alt` is what its .gnu_debugaltlink names, or NULL.
 * Return: 0, with *ret NULL when there is no usable DWARF; -ENOMEM. */
int dwarf_lines_new(DwarfLines **ret, Elf *elf, Elf *alt);
DwarfLines *dwarf_lines_free(DwarfLines *d);
DEFINE_CLEANUP(DwarfLines *, dwarf_lines_free)

/* Innermost first, the real function last. Strings live as long as the lines. Return: number of
 * frames, 0: nothing is known of the address. */
size_t dwarf_lines_find(DwarfLines *d, uint64_t addr, DwarfFrame *ret, size_t max);
