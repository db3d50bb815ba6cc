/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "target.h"
#include "unwind/cfi-code.h"
#include "unwind/cfi-rows.h"

/*
 * Code without CFI, and what is known of the frame at the places that are marked in it: "rsp N" is
 * CFA = rsp + N, "rbp" CFA = rbp + 16, "none" that nothing may be claimed.
 */

typedef struct Mark {
        uint64_t at, kind, depth;
} Mark;

enum {
        NONE,
        BY_RSP,
        BY_RBP,
};

extern const uint8_t code_begin[], code_end[];
extern const Mark marks_begin[], marks_end[];

asm(".pushsection .data.rel.ro.marks, \"aw\"\n"
    ".balign 8\n"
    "marks_begin:\n"
    ".popsection\n"
    ".macro mark kind depth\n"
    "9: .pushsection .data.rel.ro.marks, \"aw\"\n"
    ".quad 9b, \\kind, \\depth\n"
    ".popsection\n"
    ".endm\n"
    ".macro none\n"
    "mark 0 0\n"
    ".endm\n"
    ".macro rsp depth\n"
    "mark 1 \\depth\n"
    ".endm\n"
    ".macro rbp\n"
    "mark 2 0\n"
    ".endm\n"

    ".pushsection .rodata.code, \"a\"\n"
    ".balign 64\n"
    "code_begin:\n"

    /* It cannot be told how the first one began, but for a frame pointer. */
    "none; mov %rdi, %rax\n"
    "none; push %rbp\n"
    "none; mov %rsp, %rbp\n"
    "rbp; push %rbx\n"
    "rbp; je 0f\n"
    "rbp; pop %rbx\n"
    "rbp; pop %rbp\n"
    "rsp 8; ret\n"
    "0: rbp; call 1f\n"
    /* That may be the end of the function: its calls need not return. */
    "none; sub $8, %rsp\n"
    "none; ret\n"
    "nop\n"
    /* It does not begin with its frame. */
    "none; lea 8(%rsp), %r10\n"
    "none; and $-32, %rsp\n"
    "none; push -8(%r10)\n"
    "none; push %rbp\n"
    "none; mov %rsp, %rbp\n"
    "none; leave\n"
    "none; ret\n"

    /* Behind padding a function begins. */
    ".balign 64, 0xcc\n"
    "1: rsp 8; push %rbp\n"
    "rsp 16; mov %rsp, %rbp\n"
    "rbp; and $-32, %rsp\n"
    "rbp; je 2f\n"
    "rbp; leave\n"
    "rsp 8; ret\n"
    "2: rbp; lea -8(%rbp), %rsp\n"
    "rbp; pop %rbx\n"
    "rbp; pop %rbp\n"
    "rsp 8; ret\n"

    /* Without a frame pointer; rbp is saved late, and then used. */
    ".balign 64, 0xcc\n"
    "rsp 8; push %rbx\n"
    "rsp 16; push %rbp\n"
    "rsp 24; sub $0x88, %rsp\n"
    "rsp 160; add $0x88, %rsp\n"
    "rsp 24; mov %rdi, %rbp\n"
    "none; pop %rbp\n"
    "none; pop %rbx\n"
    "none; ret\n"

    /* Its place is not where a frame pointer's is. */
    ".balign 64, 0xcc\n"
    "rsp 8; push %rbx\n"
    "rsp 16; push %rbp\n"
    "rsp 24; mov %rsp, %rbp\n"
    "none; leave\n"
    "none; ret\n"

    /* Arguments are put below the return address. */
    ".balign 64, 0xcc\n"
    "rsp 8; pop %rcx\n"
    "none; push %rax\n"
    "none; push %rcx\n"
    "rsp 8; jmp *%rdx\n"

    /* The return address is lost. */
    ".balign 64, 0xcc\n"
    "rsp 8; pop %rcx\n"
    "none; mov %rax, %rcx\n"
    "none; push %rcx\n"
    "none; jmp *%rdx\n"

    /* An int3 that stands for "never comes here", and what is behind it by chance at a multiple of
     * 32, to which the frame comes along. */
    ".balign 64, 0xcc\n"
    "rsp 8; push %rbp\n"
    "rsp 16; mov %rsp, %rbp\n"
    "rbp; jne 3f\n"
    "rbp; call 1b\n"
    ".balign 32, 0xcc\n"
    "3: rbp; leave\n"
    "rsp 8; ret\n"

    /* A handler that no instruction leads to, but that goes on where the frame is known. */
    ".balign 64, 0xcc\n"
    "rsp 8; push %rbp\n"
    "rsp 16; mov %rsp, %rbp\n"
    "4: rbp; call 1b\n"
    "rbp; mov %rbp, %rsp\n"
    "rbp; pop %rbp\n"
    "rsp 8; ret\n"
    "rbp; mov -8(%rbp), %rax\n"
    "rbp; jmp 4b\n"
    "none; mov -8(%rbp), %rax\n"
    "none; mov %rax, %rbp\n"
    "none; jmp 4b\n"

    /* The same without a frame: a loop that is entered at its end. */
    ".balign 64, 0xcc\n"
    "rsp 8; push %rbx\n"
    "rsp 16; jmp 6f\n"
    "5: rsp 16; inc %rax\n"
    "6: rsp 16; dec %rbx\n"
    "rsp 16; jne 5b\n"
    "rsp 16; pop %rbx\n"
    "rsp 8; ret\n"

    /* Two ways that do not agree. */
    ".balign 64, 0xcc\n"
    "rsp 8; je 7f\n"
    "rsp 8; push %rbx\n"
    "7: none; ret\n"

    /* It drops its return address to go on in its caller's place. */
    ".balign 64, 0xcc\n"
    "rsp 8; nop\n"
    "rsp 8; add $8, %rsp\n"
    "none; push %rbp\n"
    "none; mov %rsp, %rbp\n"
    "rbp; call code_begin\n"
    "rbp; leave\n"
    "rsp 8; ret\n"

    /* No code, and nothing is known behind it but a frame pointer. */
    ".byte 0x06, 0x06, 0x06\n"
    "none; push %rbp\n"
    "none; mov %rsp, %rbp\n"
    "rbp; ret\n"
    ".balign 64, 0xcc\n"
    "code_end:\n"
    ".popsection\n"

    ".pushsection .data.rel.ro.marks, \"aw\"\n"
    "marks_end:\n"
    ".popsection\n");

static CfiTable *table_of_code(void)
{
        CfiRows rows = {.base = (uint64_t)code_begin};
        CfiBytes code = {.p = code_begin, .end = code_end, .vaddr = (uint64_t)code_begin};
        CfiTable *t = NULL;

        cr_assert_eq(cfi_rows_add(&rows, rows.base, &(CfiRule){.cfa = CFI_CFA_NONE}), 0);
        cr_assert_eq(cfi_code_rows(&rows, code), 0);
        cr_assert_eq(cfi_rows_finish(&rows, &t), 0);
        cfi_rows_deinit(&rows);
        return t;
}

Test(code, frames, .fini = check_leaks)
{
        _cleanup_(cfi_table_freep) CfiTable *t = table_of_code();

        cr_assert_gt(marks_end - marks_begin, 60);
        for (const Mark *m = marks_begin; m < marks_end; m++) {
                const CfiRule *rule = cfi_table_find(t, m->at);
                size_t mark = (size_t)(m - marks_begin);

                if (m->kind == NONE) {
                        cr_expect_eq(rule->cfa, CFI_CFA_NONE, "mark %zu: r%u + %d", mark,
                                rule->cfa_reg, rule->cfa_offset);
                        continue;
                }
                cr_expect_eq(rule->cfa, CFI_CFA_REG, "mark %zu", mark);
                cr_expect_eq(
                        rule->cfa_reg, m->kind == BY_RSP ? X86_RSP : X86_RBP, "mark %zu", mark);
                cr_expect_eq(rule->cfa_offset, m->kind == BY_RSP ? (int32_t)m->depth : 16,
                        "mark %zu: %d", mark, rule->cfa_offset);
                cr_expect_eq(rule->offset[X86_RIP], -8);
                cr_expect_eq(rule->how[X86_RBP], m->kind == BY_RSP ? CFI_REG_SAME : CFI_REG_OFFSET);
                cr_expect_eq(rule->how[X86_RBX], CFI_REG_UNDEF);
        }
        cr_expect_eq(cfi_table_find(t, (uint64_t)code_end)->cfa, CFI_CFA_NONE);
}

/* Bytes that are no code at all: nothing beyond them is read (for the sanitizer), rows are in order. */
Test(code, random_bytes, .fini = check_leaks)
{
        static const uint8_t often[] = {
                0xcc, 0x55, 0x48, 0x89, 0xe5, 0xc9, 0xc3, 0xe8, 0xeb, 0x74, 0x0f};
        uint32_t state = 1;

        for (size_t n = 1; n < 2000; n++) {
                uint8_t *bytes = malloc(n);
                CfiRows rows = {.base = 0x400000};
                CfiBytes code = {.p = bytes, .end = bytes + n, .vaddr = rows.base};
                CfiTable *t = NULL;

                cr_assert(bytes);
                for (size_t i = 0; i < n; i++) {
                        state = state * 1664525 + 1013904223;
                        bytes[i] = state >> 31 ? (uint8_t)(state >> 16)
                                               : often[(state >> 16) % sizeof(often)];
                }
                cr_assert_eq(cfi_rows_add(&rows, rows.base, &(CfiRule){.cfa = CFI_CFA_NONE}), 0);
                cr_assert_eq(cfi_code_rows(&rows, code), 0);
                cr_assert_eq(cfi_rows_finish(&rows, &t), 0);
                cr_assert_eq(cfi_table_find(t, rows.base + n)->cfa, CFI_CFA_NONE);
                cfi_rows_deinit(&rows);
                cfi_table_free(t);
                free(bytes);
        }
}

/* Code is read no further than there is room for rows. */
Test(code, stops_when_full, .fini = check_leaks)
{
        const CfiRule none = {.cfa = CFI_CFA_NONE};
        CfiRule rule = {.cfa = CFI_CFA_REG, .cfa_reg = X86_RSP, .cfa_offset = 8};
        CfiRows rows = {.base = 0x400000};
        uint64_t at = rows.base;
        CfiBytes code = {.p = code_begin, .end = code_end};

        rule.how[X86_RIP] = CFI_REG_OFFSET;
        rule.offset[X86_RIP] = -8;
        for (; !cfi_rows_full(&rows) || at % 2 == 1; at++)
                cr_assert_eq(cfi_rows_add(&rows, at, at % 2 == 0 ? &none : &rule), 0);
        code.vaddr = at;
        cr_assert_eq(cfi_rows_add(&rows, at - 1, &rule), 0);
        cr_assert_eq(cfi_code_rows(&rows, code), 0);
        cr_expect_eq(rows.rows[rows.n_rows - 1].pc, at - rows.base);
        cfi_rows_deinit(&rows);
}
