/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <gelf.h>
#include <stdbool.h>

/* The ELF files that tables are made of. */

enum {
        CFI_SECTION_MAX = 256 << 20, /* bytes; ClickHouse has about 20 MiB */
};

/* Whether it is one of this machine. */
bool cfi_elf_is_usable(Elf *elf);

/* The first section of that name that is in the file, and not too large. NULL: there is none. */
Elf_Scn *cfi_elf_section(Elf *elf, const char *name, GElf_Shdr *ret);
