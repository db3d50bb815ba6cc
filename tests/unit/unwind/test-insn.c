/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "unwind/x86-insn.h"

/* Lengths and effects of instructions of every encoding, as the assembler writes them. */

typedef struct Case {
        const char *name;
        uint8_t bytes[15];
        uint8_t length;
        X86Kind kind;
        uint8_t reg;
        int32_t value;
} Case;

#define NO_REG X86_INSN_NO_REG

static const Case cases[] = {
        {"push %rbp", {0x55}, 1, X86_PUSH, 5, 0},
        {"push %r13", {0x41, 0x55}, 2, X86_PUSH, 13, 0},
        {"push $300", {0x68, 0x2c, 1, 0, 0}, 5, X86_PUSH, NO_REG, 0},
        {"push -0x10(%rbp)", {0xff, 0x75, 0xf0}, 3, X86_PUSH, NO_REG, 0},
        {"push %rsp", {0x54}, 1, X86_SETS_RSP, 4, 0},
        {"push %bp", {0x66, 0x55}, 2, X86_SETS_RSP, 5, 0},
        {"pop %rbp", {0x5d}, 1, X86_POP, 5, 0},
        {"pop (%rax)", {0x8f, 0x00}, 2, X86_POP, NO_REG, 0},
        {"popf", {0x9d}, 1, X86_POP, NO_REG, 0},
        {"leave", {0xc9}, 1, X86_LEAVE, NO_REG, 0},
        {"enter $8, $0", {0xc8, 8, 0, 0}, 4, X86_SETS_RBP, NO_REG, 0},
        {"mov %rsp, %rbp", {0x48, 0x89, 0xe5}, 3, X86_RBP_FROM_RSP, NO_REG, 0},
        {"mov %rsp, %rbp (load)", {0x48, 0x8b, 0xec}, 3, X86_RBP_FROM_RSP, NO_REG, 0},
        {"mov %rbp, %rsp", {0x48, 0x89, 0xec}, 3, X86_RSP_FROM_RBP, NO_REG, 0},
        {"mov %esp, %ebp", {0x89, 0xe5}, 2, X86_SETS_RBP, NO_REG, 0},
        {"mov %rsp, %r13", {0x49, 0x89, 0xe5}, 3, X86_OTHER, NO_REG, 0},
        {"lea -0x28(%rbp), %rsp", {0x48, 0x8d, 0x65, 0xd8}, 4, X86_RSP_FROM_RBP, NO_REG, -0x28},
        {"lea 8(%rsp), %rsp", {0x48, 0x8d, 0x64, 0x24, 8}, 5, X86_ADD_RSP, NO_REG, 8},
        {"lea (%rsp,%rcx,8), %rsp", {0x48, 0x8d, 0x24, 0xcc}, 4, X86_SETS_RSP, NO_REG, 0},
        {"lea 0x1(%r13), %rsp", {0x49, 0x8d, 0x65, 1}, 4, X86_SETS_RSP, NO_REG, 0},
        {"sub $0x88, %rsp", {0x48, 0x81, 0xec, 0x88, 0, 0, 0}, 7, X86_ADD_RSP, NO_REG, -0x88},
        {"add $8, %rsp", {0x48, 0x83, 0xc4, 8}, 4, X86_ADD_RSP, NO_REG, 8},
        {"and $-32, %rsp", {0x48, 0x83, 0xe4, 0xe0}, 4, X86_SETS_RSP, NO_REG, 0},
        {"cmp $8, %rsp", {0x48, 0x83, 0xfc, 8}, 4, X86_OTHER, NO_REG, 0},
        {"sub %rax, %rsp", {0x48, 0x29, 0xc4}, 3, X86_SETS_RSP, NO_REG, 0},
        {"cmp %rax, %rsp", {0x48, 0x39, 0xc4}, 3, X86_OTHER, NO_REG, 0},
        {"test %rbp, %rbp", {0x48, 0x85, 0xed}, 3, X86_OTHER, NO_REG, 0},
        {"mov (%rax), %rbp", {0x48, 0x8b, 0x28}, 3, X86_SETS_RBP, NO_REG, 0},
        {"mov %rbp, (%rax)", {0x48, 0x89, 0x28}, 3, X86_OTHER, NO_REG, 0},
        {"mov (%rax), %r13", {0x4c, 0x8b, 0x28}, 3, X86_OTHER, NO_REG, 0},
        {"mov $1, %ebp", {0xbd, 1, 0, 0, 0}, 5, X86_SETS_RBP, NO_REG, 0},
        {"mov $1, %ch", {0xb5, 1}, 2, X86_OTHER, NO_REG, 0},
        {"mov $1, %bpl", {0x40, 0xb5, 1}, 3, X86_SETS_RBP, NO_REG, 0},
        {"movabs", {0x48, 0xbd, 1, 2, 3, 4, 5, 6, 7, 8}, 10, X86_SETS_RBP, NO_REG, 0},
        {"xchg %rax, %rbp", {0x48, 0x95}, 2, X86_SETS_RBP, NO_REG, 0},
        {"neg %rbp", {0x48, 0xf7, 0xdd}, 3, X86_SETS_RBP, NO_REG, 0},
        {"test $1, %rbp", {0x48, 0xf7, 0xc5, 1, 0, 0, 0}, 7, X86_OTHER, NO_REG, 0},
        {"test $1, %ch", {0xf6, 0xc5, 1}, 3, X86_OTHER, NO_REG, 0},
        {"imul $3, %rax, %rbp", {0x48, 0x6b, 0xe8, 3}, 4, X86_SETS_RBP, NO_REG, 0},
        {"movzbl %al, %ebp", {0x0f, 0xb6, 0xe8}, 3, X86_SETS_RBP, NO_REG, 0},
        {"cmove %rax, %rbp", {0x48, 0x0f, 0x44, 0xe8}, 4, X86_SETS_RBP, NO_REG, 0},
        {"sete %bpl", {0x40, 0x0f, 0x94, 0xc5}, 4, X86_SETS_RBP, NO_REG, 0},
        {"sete %ch", {0x0f, 0x94, 0xc5}, 3, X86_OTHER, NO_REG, 0},
        {"bswap %ebp", {0x0f, 0xcd}, 2, X86_SETS_RBP, NO_REG, 0},
        {"movaps %xmm5, %xmm4", {0x0f, 0x28, 0xe5}, 3, X86_OTHER, NO_REG, 0},
        {"movq %xmm0, %rbp", {0x66, 0x48, 0x0f, 0x7e, 0xc5}, 5, X86_SETS_RBP, NO_REG, 0},
        {"pshufd $1, %xmm1, %xmm5", {0x66, 0x0f, 0x70, 0xe9, 1}, 5, X86_OTHER, NO_REG, 0},
        {"palignr", {0x66, 0x0f, 0x3a, 0x0f, 0xe9, 8}, 6, X86_OTHER, NO_REG, 0},
        {"pshufb", {0x66, 0x0f, 0x38, 0x00, 0xe9}, 5, X86_OTHER, NO_REG, 0},
        {"vzeroupper", {0xc5, 0xf8, 0x77}, 3, X86_OTHER, NO_REG, 0},
        {"vmovdqu 8(%rax), %ymm5", {0xc5, 0xfe, 0x6f, 0x68, 8}, 5, X86_OTHER, NO_REG, 0},
        {"andn %rax, %rbx, %rbp", {0xc4, 0xe2, 0xe0, 0xf2, 0xe8}, 5, X86_SETS_RBP, NO_REG, 0},
        {"rorx $1, %rax, %rbp", {0xc4, 0xe3, 0xfb, 0xf0, 0xe8, 1}, 6, X86_SETS_RBP, NO_REG, 0},
        {"vmovdqu64 64(%rax), %zmm5", {0x62, 0xf1, 0xfe, 0x48, 0x6f, 0x68, 1}, 7, X86_OTHER, NO_REG,
                0},
        {"nopw 0(%rax,%rax,1)", {0x66, 0x0f, 0x1f, 0x44, 0, 0}, 6, X86_OTHER, NO_REG, 0},
        {"lock cmpxchg %rcx, (%rdx)", {0xf0, 0x48, 0x0f, 0xb1, 0x0a}, 5, X86_OTHER, NO_REG, 0},
        {"mov 8(%rip), %rax", {0x48, 0x8b, 0x05, 8, 0, 0, 0}, 7, X86_OTHER, NO_REG, 0},
        {"mov 0x1000(,%rcx,8), %rax", {0x48, 0x8b, 0x04, 0xcd, 0, 0x10, 0, 0}, 8, X86_OTHER, NO_REG,
                0},
        {"endbr64", {0xf3, 0x0f, 0x1e, 0xfa}, 4, X86_OTHER, NO_REG, 0},
        {"call", {0xe8, 1, 2, 0, 0}, 5, X86_CALL, NO_REG, 0x201},
        {"call *8(%rax)", {0xff, 0x50, 8}, 3, X86_CALL, NO_REG, 0},
        {"jmp", {0xe9, 0xfb, 0xff, 0xff, 0xff}, 5, X86_JUMP, NO_REG, -5},
        {"jmp short", {0xeb, 0x10}, 2, X86_JUMP, NO_REG, 16},
        {"notrack jmp *%rax", {0x3e, 0xff, 0xe0}, 3, X86_JUMP_AWAY, NO_REG, 0},
        {"je short", {0x74, 0xfe}, 2, X86_BRANCH, NO_REG, -2},
        {"je", {0x0f, 0x84, 0, 1, 0, 0}, 6, X86_BRANCH, NO_REG, 256},
        {"loop", {0xe2, 0xfe}, 2, X86_BRANCH, NO_REG, -2},
        {"ret", {0xc3}, 1, X86_RET, NO_REG, 0},
        {"ret $8", {0xc2, 8, 0}, 3, X86_RET, NO_REG, 8},
        {"int3", {0xcc}, 1, X86_TRAP, NO_REG, 0},
        {"ud2", {0x0f, 0x0b}, 2, X86_TRAP, NO_REG, 0},
};

Test(insn, decode)
{
        for (const Case *c = cases; c < cases + sizeof(cases) / sizeof(*cases); c++) {
                X86Insn insn;

                cr_assert(x86_insn_decode(c->bytes, sizeof(c->bytes), &insn), "%s", c->name);
                cr_expect_eq(insn.length, c->length, "%s: %d bytes", c->name, insn.length);
                cr_expect_eq(insn.kind, c->kind, "%s: kind %d", c->name, insn.kind);
                cr_expect_eq(insn.reg, c->reg, "%s: register %d", c->name, insn.reg);
                if (c->value)
                        cr_expect_eq(insn.value, c->value, "%s: %d", c->name, insn.value);
                for (size_t n = 0; n < c->length; n++)
                        cr_expect_not(
                                x86_insn_decode(c->bytes, n, &insn), "%s, %zu bytes", c->name, n);
        }
}

Test(insn, no_instruction)
{
        static const uint8_t bad[][15] = {
                {0x06}, {0x60}, {0x82, 0xc0}, {0x9a}, {0xd6}, {0xea}, {0x48, 0xc5, 0xf8, 0x77}};
        static const uint8_t prefixes[15] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                0x66, 0x66, 0x66, 0x66, 0x66, 0x66};
        X86Insn insn;

        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
                cr_expect_not(x86_insn_decode(bad[i], sizeof(bad[i]), &insn), "case %zu", i);
        cr_expect_not(x86_insn_decode(prefixes, sizeof(prefixes), &insn));
}

Test(insn, written)
{
        static const uint8_t mov[] = {0x48, 0x89, 0xc1},
                             load[] = {0x8a, 0x28}; /* %rcx; (%rax), %ch */
        X86Insn insn;

        cr_assert(x86_insn_decode(mov, sizeof(mov), &insn));
        cr_expect_eq(insn.written, 1 << 1);
        cr_assert(x86_insn_decode(load, sizeof(load), &insn));
        cr_expect_eq(insn.written, 1 << 1);
}
