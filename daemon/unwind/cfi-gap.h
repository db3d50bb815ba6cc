/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "unwind/cfi-program.h"
#include "unwind/cfi-rows.h"

/*
 * Code without CFI whose kind is told by its bytes. Rows are added for what is found in `gap`, in
 * order, with CFI_CFA_NONE behind it. Return: 0, -ENOMEM.
 */

/* The signal trampoline of a C library that writes no CFI for it (musl). */
int cfi_gap_trampoline(CfiRows *rows, CfiBytes gap, bool *ret_found);

/* Stubs of a PLT for which the linker wrote no CFI. */
int cfi_gap_stubs(CfiRows *rows, CfiBytes gap);

/* The end of clone(), where its CFI ends with the stack as at the entry. */
int cfi_gap_clone(CfiRows *rows, CfiBytes gap);
