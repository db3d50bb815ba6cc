/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unwind/cfi-table.h"

/*
 * The byte code of call frame information (DWARF 5, 6.4; psABI x86-64, 3.7): what a CIE or an FDE
 * says is run once from its first to its last address, giving one rule for each stretch of code.
 * Written anew because libdw starts from the beginning for every address and lets a few bytes ask
 * for gigabytes; here work is linear in the program's size and memory constant, whatever the bytes
 * say.
 */

enum {
        _CFI_PROGRAM_E_SUCCESS,
        CFI_PROGRAM_E_END,    /* no more rows */
        CFI_PROGRAM_E_BROKEN, /* not understood from here on */
};

enum {
        CFI_STATES_MAX = 32, /* nested DW_CFA_remember_state; compilers write one or two */
};

/* Bytes of the file that know at which address they lie, for pointers relative to themselves. */
typedef struct CfiBytes {
        const uint8_t *p, *end;
        uint64_t vaddr; /* of p */
} CfiBytes;

typedef struct CfiCie {
        uint64_t code_align;
        int64_t data_align;
        uint8_t encoding; /* of its FDEs' addresses: DW_EH_PE_… */
        bool augmented;   /* its FDEs carry augmentation data */
        bool signal;      /* its FDEs are signal trampolines */
        CfiRule initial;  /* what its FDEs start with */
} CfiCie;

typedef struct CfiProgram {
        const CfiCie *cie;
        CfiBytes bytes;
        uint64_t pc, end;
        CfiRule rule;
        CfiRule states[CFI_STATES_MAX];
        size_t n_states;
} CfiProgram;

/* Reads an address in that encoding; with DW_EH_PE_absptr's application bits (0) it is a plain
 * number, as for sizes. False: cut off, or an encoding that code addresses do not have. */
bool cfi_bytes_address(CfiBytes *b, uint8_t encoding, uint64_t *ret);
bool cfi_bytes_uleb(CfiBytes *b, uint64_t *ret);

/* Reads what the letters of the augmentation say of its data. False: not all are known. */
bool cfi_cie_augmentation(CfiCie *cie, const char *letters, CfiBytes b);

/* Fills cie->initial by its instructions; the other members are set. Return: 0,
 * CFI_PROGRAM_E_BROKEN. */
int cfi_cie_run(CfiCie *cie, CfiBytes instructions);

/* An FDE for [start, end). The CIE is borrowed. */
void cfi_program_init(
        CfiProgram *p, const CfiCie *cie, CfiBytes instructions, uint64_t start, uint64_t end);

/* The next row, [*ret_start, *ret_end) and not empty; *ret_rule is valid until the next call.
 * Return: 0, CFI_PROGRAM_E_END, CFI_PROGRAM_E_BROKEN. */
int cfi_program_next(
        CfiProgram *p, uint64_t *ret_start, uint64_t *ret_end, const CfiRule **ret_rule);
