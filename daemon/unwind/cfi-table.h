/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unwind/types.h"
#include "util/cleanup.h"

/*
 * Compact unwind table of one binary: rows sorted by address, each naming one of few distinct rules
 * (unwinding.md, 3.2: 8–708 rules a binary). Immutable once built, but for a memo of what was looked
 * up; may be read by any thread. Built from .eh_frame, .debug_frame (libdw, whose only user here
 * this is, takes them apart, cfi-program.h runs the entries) and Go's function table (cfi-go.h).
 * Code that is in none of them is read itself (cfi-gap.h, cfi-code.h): what its instructions do not
 * tell is CFI_CFA_NONE.
 */

typedef enum CfiCfa {
        CFI_CFA_NONE,    /* no unwind information here */
        CFI_CFA_REG,     /* r[reg] + offset */
        CFI_CFA_DEREF,   /* *(r[reg] + offset) + offset2 (stack switches in libcrypto and others) */
        CFI_CFA_PLT,     /* GNU ld's PLT stubs: rsp + 8 + ((rip & 15) >= offset ? 8 : 0) */
        CFI_CFA_ROOT,    /* return address undefined: the outermost frame */
        CFI_CFA_SIGNAL,  /* signal trampoline: registers lie in the rt_sigframe at rsp */
        CFI_CFA_UNREAD,  /* of a lazy table: not known yet */
        CFI_CFA_GO_NEXT, /* r[reg] + offset, in Go's scheduler, which is about to go on with another
                            goroutine */
        CFI_CFA_OTHER,   /* r[reg] + offset, which may be on another stack */
        CFI_CFA_GOROUTINE, /* Go's systemstack: the goroutine's stack pointer + offset */
        CFI_CFA_GO_CALLER, /* Go's morestack: the caller is where the goroutine goes on */
} CfiCfa;

typedef enum CfiReg {
        CFI_REG_SAME,   /* unchanged (also "unspecified"); rsp: is the CFA */
        CFI_REG_UNDEF,  /* lost */
        CFI_REG_OFFSET, /* saved at CFA + offset */
        CFI_REG_VALUE,  /* is CFA + offset */
        CFI_REG_COPY,   /* is in register `offset` */
        CFI_REG_AT_RBP, /* saved at this frame's rbp + offset (GCC, where it realigns the stack) */
} CfiReg;

enum {
        CFI_PLAIN_REGS = 6,
        CFI_KEPT = -8, /* where the return address is, and so no register */
};

/* What most rules come down to, in half a cache line: the CFA is a register plus an offset, the
 * return address is below it, and registers that a callee keeps are further below. */
typedef struct CfiPlain {
        uint8_t is_plain; /* else nothing here is set */
        uint8_t cfa_reg;
        uint16_t moved, undef;
        int16_t lowest; /* of all offsets */
        int32_t cfa_offset;
        int16_t saved
                [CFI_PLAIN_REGS]; /* offsets from the CFA of rbx, rbp, r12 to r15, or CFI_KEPT */
} CfiPlain;

_Static_assert(sizeof(CfiPlain) == 24, "no hidden padding");

/* The registers that rules may restore: callee-saved ones and the rest that hand-written code uses.
 */
typedef struct CfiRule {
        CfiPlain plain; /* the table fills it in */
        uint8_t cfa;    /* CfiCfa */
        uint8_t cfa_reg;
        uint16_t moved; /* a bit for each register but X86_RIP that is neither SAME nor UNDEF */
        uint16_t undef; /* a bit for each register but X86_RIP that is UNDEF */
        uint16_t pad;   /* 0, as pad2: rules are compared as bytes */
        int32_t cfa_offset, cfa_offset2;
        uint8_t how[N_REGS]; /* CfiReg of each register, X86_RIP: the return address */
        uint8_t pad2[3];
        int32_t offset[N_REGS];
} CfiRule;

_Static_assert(sizeof(CfiRule) == 24 + 36 + 4 * N_REGS, "no hidden padding");

typedef struct CfiTable CfiTable;

/*
 * Reads the rows of an ELF file (and of its separate debug file where that alone has .debug_frame;
 * may be NULL). Addresses are the file's own (vaddr). Broken CFI of single functions is skipped:
 * CFI_CFA_NONE there. So is what goes beyond the limits on rows, rules and work, which hardly any
 * sane file meets: 16 MiB of code without CFI. Return: 0, also when there is no CFI at all (an empty table); -ENOMEM; -EBADMSG: not a
 * usable ELF file.
 */
int cfi_table_new(CfiTable **ret, Elf *elf, Elf *debug_elf);
/*
 * The same without reading all of it: what .eh_frame has is found when it is asked for (cfi-lazy.h),
 * all else is CFI_CFA_UNREAD. Return: 0; CFI_TABLE_E_NOT_LAZY: not possible with that file; -ENOMEM.
 */
enum {
        _CFI_TABLE_E_SUCCESS,
        CFI_TABLE_E_NOT_LAZY,
};
int cfi_table_new_lazy(CfiTable **ret, Elf *elf);
bool cfi_table_is_lazy(const CfiTable *t);
CfiTable *cfi_table_free(CfiTable *t);
DEFINE_CLEANUP(CfiTable *, cfi_table_free)

/* The rule at that address; never NULL (CFI_CFA_NONE where nothing is known). */
const CfiRule *cfi_table_find(const CfiTable *t, uint64_t vaddr);

/* Of a program in Go, where its runtime keeps what a thread runs; NULL: another one, or not known. */
const GoPlaces *cfi_table_go(const CfiTable *t);

size_t cfi_table_n_rows(const CfiTable *t);
size_t cfi_table_n_rules(const CfiTable *t);
/* Bytes of code without CFI that were read for it, of which each costs some 20 ns. */
size_t cfi_table_n_gap_bytes(const CfiTable *t);
size_t cfi_table_bytes(const CfiTable *t);
