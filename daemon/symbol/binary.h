/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * One ELF file with its symbols and lines. Symbolizer thread only; slow calls are fine here. Files
 * are hostile. Functions: a sorted index of .symtab (of the file, else of its separate debug file,
 * else .gnu_debugdata) and .dynsym. Lines and inlined calls: libdw, where DWARF exists (in the
 * file, by .gnu_debuglink or build-id under /usr/lib/debug). Names are demangled (C++, Rust). All
 * of it is read when the first address is asked for: most files that a process maps never are.
 */

typedef struct Binary Binary;

typedef struct SymbolFrame {
        const char *function; /* demangled, without parameters; NULL: unknown. Valid as long as the
                                 binary */
        const char *file;     /* base name of the source file; NULL: unknown */
        int line;             /* 0: unknown */
} SymbolFrame;

#define SYMBOL_MAX_INLINE 32

/*
 * Takes over fd (closed on failure, too). `name`: base name for messages. `root_fd`: directory
 * under which separate debug files are looked for ("/" of the target's mount namespace), or -1;
 * borrowed for the call. Return: 0; BINARY_E_BAD: not a usable x86-64 ELF file; -errno.
 */
enum {
        _BINARY_E_SUCCESS,
        BINARY_E_BAD,
};
int binary_new(Binary **ret, int fd, const char *name, int root_fd);
/* The same from memory (vDSO): bytes are copied. */
int binary_new_memory(Binary **ret, const void *bytes, size_t size, const char *name);
Binary *binary_free(Binary *b);
DEFINE_CLEANUP(Binary *, binary_free)

/* Reads its symbols ahead. */
void binary_prepare(Binary *b);

/* What the loader maps of the file (PT_LOAD). */
typedef struct BinarySegment {
        uint64_t offset, vaddr, filesz;
} BinarySegment;
/* Return: number of segments, 0..max; further ones are left out. */
size_t binary_segments(Binary *b, BinarySegment *ret, size_t max);

Elf *binary_elf(Binary *b);       /* borrowed */
Elf *binary_debug_elf(Binary *b); /* separate debug file, or NULL; borrowed */
const char *binary_name(const Binary *b);
const char *binary_build_id(const Binary *b); /* hex, "" when it has none */

/*
 * The functions at that address, innermost (inlined) first, the real function last. Addresses
 * without any symbol give one frame whose function is NULL. `lines`: look into DWARF, too. When
 * there is no room for all, the innermost are left out. Return: number of frames, 1..max.
 */
size_t binary_symbolize(Binary *b, uint64_t vaddr, bool lines, SymbolFrame *ret, size_t max);

/* How a symbol reads: C++ and Rust names demangled, without parameters and Rust's hash; without the
 * version behind '@'; parts and copies that the compiler made (".cold", ".isra.0") as the function
 * that they are of. At most 4 KiB. malloc'ed; NULL: no memory. */
char *symbol_demangle(const char *name);
