/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <gelf.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * The functions of a binary, sorted by address: 16 bytes each, names stay in the ELF files' string
 * tables. Filled from one or several symbol tables and from the PLT, then finished, then read.
 * Symbol tables are hostile: what makes no sense in them is left out.
 */

typedef struct ElfSymbols ElfSymbols;

/* Return: 0, -ENOMEM. */
int elf_symbols_new(ElfSymbols **ret);
ElfSymbols *elf_symbols_free(ElfSymbols *s);
DEFINE_CLEANUP(ElfSymbols *, elf_symbols_free)

/* The functions of the first section of that type (SHT_SYMTAB, SHT_DYNSYM) in the file, which must
 * outlive the index. A file without such a section adds nothing. Return: 0, -ENOMEM. */
int elf_symbols_add(ElfSymbols *s, Elf *elf, GElf_Word type);

/* The PLT's stubs: "target@plt", or "[plt]" where the target is unknown. Return: 0, -ENOMEM. */
int elf_symbols_add_plt(ElfSymbols *s, Elf *elf);

/* Sorts, and leaves one symbol per address. Nothing can be added after that. */
void elf_symbols_finish(ElfSymbols *s);

/* The function at that address as the file calls it (mangled, perhaps with a version behind '@');
 * NULL: none. */
const char *elf_symbols_find(const ElfSymbols *s, uint64_t addr);

size_t elf_symbols_n(const ElfSymbols *s);
