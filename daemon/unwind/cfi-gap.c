/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "unwind/cfi-gap.h"
#include "util/error.h"

enum {
        CLONE_MAX = 32,   /* bytes of clone() behind its CFI */
        CLONE_MIN = 9,    /* shorter ones are the padding between functions */
        STUB_SIZE = 16,   /* bytes in a PLT; .plt.got has two in as many */
        STUB_PUSHED = 11, /* where in a stub its number has been pushed */
};

/* The signal trampoline of a C library that writes no CFI for it (musl). */
int cfi_gap_trampoline(CfiRows *rows, CfiBytes gap, bool *ret_found)
{
        /* mov $15, %rax; syscall: rt_sigreturn */
        static const uint8_t code[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
        static const CfiRule rule = {.cfa = CFI_CFA_SIGNAL};
        const uint8_t *hit = NULL;
        uint64_t at;
        int r;

        if (gap.end - gap.p >= (ptrdiff_t)sizeof(code))
                hit = memmem(gap.p, gap.end - gap.p, code, sizeof(code));
        *ret_found = hit;
        if (!hit)
                return 0;
        /* The byte before belongs to it, too: callers are looked up one byte lower. */
        at = gap.vaddr + (hit - gap.p);
        r = cfi_rows_add(rows, at > gap.vaddr ? at - 1 : at, &rule);
        if (r == 0)
                r = cfi_rows_add(rows, at + sizeof(code), &cfi_rule_none);
        return error_trace(r);
}

/* [endbr64;] [bnd] jmp *offset(%rip) */
static bool is_stub(const uint8_t *p)
{
        static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};

        if (memcmp(p, endbr64, sizeof(endbr64)) == 0)
                p += sizeof(endbr64);
        if (*p == 0xf2)
                p++;
        return p[0] == 0xff && p[1] == 0x25;
}

/* Stubs of a PLT for which the linker wrote no CFI: lld never does, GNU ld not in static programs.
 * They jump with the stack as it was when they were called, and only then may push once. */
int cfi_gap_stubs(CfiRows *rows, CfiBytes gap)
{
        const CfiRule rule = {.cfa = CFI_CFA_PLT,
                .cfa_reg = X86_RSP,
                .cfa_offset = STUB_PUSHED,
                .how = {[X86_RIP] = CFI_REG_OFFSET},
                .offset = {[X86_RIP] = -8}};
        int r = 0;

        for (; r == 0 && gap.end - gap.p >= STUB_SIZE && !cfi_rows_full(rows);
                gap.p += STUB_SIZE, gap.vaddr += STUB_SIZE)
                r = cfi_rows_add(rows, gap.vaddr, is_stub(gap.p) ? &rule : &cfi_rule_none);
        if (r == 0 && gap.p)
                r = cfi_rows_add(rows, gap.vaddr, &cfi_rule_none);
        return error_trace(r);
}

/* The C library ends the CFI of clone() before the system call: it would be wrong in the child, on
 * another stack. The parent, which may wait there (vfork), is on that of the entry up to its `ret`. */
int cfi_gap_clone(CfiRows *rows, CfiBytes gap)
{
        CfiRule rule = {.cfa = CFI_CFA_REG, .cfa_reg = X86_RSP, .cfa_offset = 8};
        ptrdiff_t n = gap.end - gap.p < CLONE_MAX ? gap.end - gap.p : CLONE_MAX;
        int r;

        if (n < CLONE_MIN || gap.p[0] != 0x0f || gap.p[1] != 0x05)
                return 0;
        rule.how[X86_RIP] = CFI_REG_OFFSET;
        rule.offset[X86_RIP] = -8;
        r = cfi_rows_add(rows, gap.vaddr, &rule);
        return error_trace(r ? r : cfi_rows_add(rows, gap.vaddr + (uint64_t)n, &cfi_rule_none));
}
