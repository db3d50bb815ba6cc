/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "unwind/cfi-table.h"

/*
 * The rules of one binary, each found when it is asked for: by the table of FDEs that linkers write
 * for the same purpose (.eh_frame_hdr; LSB 5.0, 10.6.2). There at once however large the file is,
 * and slow: a microsecond for each address that was not asked for before. Holds copies of both
 * sections; any thread.
 */

typedef struct CfiLazy CfiLazy;

enum {
        _CFI_LAZY_E_SUCCESS,
        CFI_LAZY_E_NONE, /* the file has no such table, or one of an unusual kind */
};

/* The ELF file is not needed any more afterwards. Return: 0, CFI_LAZY_E_NONE, -ENOMEM. */
int cfi_lazy_new(CfiLazy **ret, Elf *elf);
CfiLazy *cfi_lazy_free(CfiLazy *l);
DEFINE_CLEANUP(CfiLazy *, cfi_lazy_free)

size_t cfi_lazy_bytes(CfiLazy *l);

/* The rule at that address, valid as long as this is; CFI_CFA_UNREAD where there is no FDE: other
 * sources have not been asked. */
const CfiRule *cfi_lazy_find(CfiLazy *l, uint64_t vaddr);
