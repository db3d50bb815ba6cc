/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <elfutils/libdw.h>
#include <gelf.h>
#include <stdbool.h>

#include "unwind/cfi-program.h"

/* The ELF files that tables are made of, and entries of .eh_frame and .debug_frame, as libdw takes
 * them apart. */

enum {
        CFI_SECTION_MAX = 256 << 20, /* bytes; ClickHouse has about 20 MiB */
};

/* Whether it is one of this machine. */
bool cfi_elf_is_usable(Elf *elf);

/* The first section of that name with bytes in the file, CFI_SECTION_MAX at most; or NULL. */
Elf_Scn *cfi_elf_section(Elf *elf, const char *name, GElf_Shdr *ret);

/* What FDEs of that CIE start with. False: not understood. */
bool cfi_elf_cie(CfiCie *ret, const Dwarf_CIE *raw);

/* The code that an FDE is for. *bytes, all that follows the pointer to its CIE, then are its
 * instructions. False: broken. */
bool cfi_elf_fde(const CfiCie *cie, CfiBytes *bytes, uint64_t *ret_start, uint64_t *ret_size);
