/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "unwind/cfi-program.h"
#include "unwind/cfi-rows.h"

/*
 * Rows for code without CFI (V8's builtins, assembly), from its instructions: one after the other,
 * with what each does to rsp and rbp; forward jumps take what is known to where they go.
 *
 * Known is where a frame is
 *   - behind "push %rbp; mov %rsp,%rbp", as nothing else begins so: the CFA is rbp + 16 until rbp
 *     is set anew;
 *   - at the beginning of a function, as far as that can be told: behind padding of int3 up to a
 *     multiple of 32, to which no instruction goes on: the CFA is rsp + 8, then with what is pushed
 *     and popped.
 * These two are taken for granted, and that calls give rsp and rbp back as they were.
 * All else is CFI_CFA_NONE: where ways meet that do not agree, where rsp or rbp is set in a way that
 * is not understood, behind what is no code. Of the registers a caller gets rbp and rsp alone.
 *
 * The last row is CFI_CFA_NONE at the code's end, or where the rows are full. Return: 0, -ENOMEM.
 */
int cfi_code_rows(CfiRows *rows, CfiBytes code);
