/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "target.h"
#include "unwind/cfi-rows.h"

/*
 * Made-up tables and stacks: each rule, and each way in which a stack can be wrong. The code of the
 * file begins at TEXT, and every 16 bytes another rule is in force.
 */

enum {
        WORDS = 32,
        FRAMES_MAX = 16,
        REGION = 16, /* bytes of code for a rule */
};

#define TEXT  0x400000UL
#define JIT   0x500000UL
#define DATA  0x600000UL
#define BARE  0x700000UL
#define STACK 0x7ffc00000000UL

/* The address of word i of the stack, and a return address into the code of rule i. */
#define AT(i)  (STACK + 8 * (i))
#define RET(i) (TEXT + REGION * (i) + 8)

typedef struct Walk {
        ProcMap *map;
        CfiRule rules[8];
        size_t n_rules;
        uint64_t words[WORDS];
        StackCopy copy;
        Frame frames[FRAMES_MAX];
        UnwindResult r;
} Walk;

/* rsp + offset, with the return address just below the CFA. */
static CfiRule rule_of(unsigned reg, int32_t offset)
{
        CfiRule rule = {.cfa = CFI_CFA_REG, .cfa_reg = (uint8_t)reg, .cfa_offset = offset};

        rule.how[X86_RIP] = CFI_REG_OFFSET;
        rule.offset[X86_RIP] = -8;
        return rule;
}

static void set(CfiRule *rule, unsigned reg, CfiReg how, int32_t offset)
{
        rule->how[reg] = how;
        rule->offset[reg] = offset;
        if (reg == X86_RIP)
                return;
        if (how == CFI_REG_UNDEF)
                rule->undef |= (uint16_t)(1 << reg);
        else
                rule->moved |= (uint16_t)(1 << reg);
}

static void begin(Walk *w)
{
        *w = (Walk){.copy = {.addr = STACK, .n = sizeof(w->words)}};
        w->copy.bytes = (const uint8_t *)w->words;
        w->copy.regs.r[X86_RSP] = STACK;
        w->copy.regs.r[X86_RIP] = TEXT;
}

static void walk(Walk *w)
{
        static const char maps[] = "400000-401000 r-xp 00001000 fe:00 7 /file\n"
                                   "500000-501000 rwxp 00000000 00:00 0 \n"
                                   "600000-601000 rw-p 00000000 00:00 0 \n"
                                   "700000-701000 r-xp 00000000 fe:00 8 /unreadable\n";
        ModuleSegment segment = {.offset = 0x1000, .vaddr = 0x3000, .filesz = 0x1000};
        CfiRows rows = {.base = 0x3000};
        CfiTable *t = NULL;

        if (!w->map) {
                cr_assert_eq(cfi_rows_add(&rows, 0x3000, &(CfiRule){.cfa = CFI_CFA_NONE}), 0);
                for (size_t i = 0; i < w->n_rules; i++)
                        cr_assert_eq(cfi_rows_add(&rows, 0x3000 + REGION * i, &w->rules[i]), 0);
                cr_assert_eq(cfi_rows_add(&rows, 0x3000 + REGION * w->n_rules,
                                     &(CfiRule){.cfa = CFI_CFA_NONE}),
                        0);
                cr_assert_eq(cfi_rows_finish(&rows, &t), 0);
                cfi_rows_deinit(&rows);
                cr_assert_eq(procmap_parse(&w->map, maps, sizeof(maps) - 1), 0);
                w->map->mappings[0].module = module_new("file", t, 1, &segment);
                cr_assert(w->map->mappings[0].module);
        }
        w->r = unwind_cfi(&w->copy, w->map, w->frames, FRAMES_MAX);
}

static void end(Walk *w)
{
        procmap_unref(w->map);
}

static void expect(const Walk *w, UnwindStatus status, size_t n_frames)
{
        cr_assert_eq(w->r.status, status, "status %d after %zu frames", w->r.status, w->r.n_frames);
        cr_assert_eq(
                w->r.n_frames, n_frames, "status %d after %zu frames", w->r.status, w->r.n_frames);
}

#define WALK_TEST(name) Test(walk, name, .fini = check_leaks)

WALK_TEST(return_address_zero)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 16);
        w.words[1] = RET(0);
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        cr_assert_eq(w.frames[0].pc, TEXT);
        cr_assert_eq(w.frames[0].vaddr, 0x3000);
        cr_assert_eq(w.frames[1].pc, RET(0));
        cr_assert_eq(w.frames[1].vaddr, 0x3000 + 7);
        cr_assert_eq(w.frames[1].module, w.map->mappings[0].module);
        end(&w);
}

/* A call that is the last instruction of its function returns into the next one. */
WALK_TEST(lowered_pc)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_ROOT};
        w.words[0] = TEXT + REGION;
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        cr_assert_eq(w.frames[1].vaddr, 0x3000 + REGION - 1);
        w.copy.regs.r[X86_RIP] = TEXT + REGION;
        walk(&w);
        expect(&w, UNWIND_DONE, 1);
        end(&w);
}

WALK_TEST(cfa_does_not_rise)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RBP, 8);
        w.copy.regs.r[X86_RBP] = AT(4);
        w.words[4] = RET(0); /* with the same rbp */
        walk(&w);
        expect(&w, UNWIND_BROKEN, 2);
        cr_assert_eq(w.r.bad_pc, RET(0));
        end(&w);
}

WALK_TEST(misaligned)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 12);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        end(&w);
}

/* In a caller only what was kept or saved is known. */
WALK_TEST(lost_registers)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        w.rules[w.n_rules++] = rule_of(X86_RAX, 8);
        w.rules[w.n_rules++] = rule_of(X86_RBX, 8);
        w.copy.regs.r[X86_RAX] = w.copy.regs.r[X86_RBX] = AT(2);
        w.copy.regs.r[X86_RIP] = TEXT + REGION;
        walk(&w);
        expect(&w, UNWIND_DONE, 1); /* innermost: rax is what it is */

        w.copy.regs.r[X86_RIP] = TEXT;
        w.words[0] = RET(1);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 2);
        w.words[0] = RET(2);
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        end(&w);
}

WALK_TEST(undefined_register)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        set(&w.rules[0], X86_RBX, CFI_REG_UNDEF, 0);
        w.rules[w.n_rules++] = rule_of(X86_RBX, 8);
        w.copy.regs.r[X86_RBX] = AT(2);
        w.words[0] = RET(1);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 2);
        end(&w);
}

WALK_TEST(ways_to_save)
{
        Walk w;

        /* rbx at CFA - 16, rbp = CFA + 8, r12 = rax, r13 at rbp + 8; then each of them is used. */
        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 16);
        set(&w.rules[0], X86_RBX, CFI_REG_OFFSET, -16);
        set(&w.rules[0], X86_RBP, CFI_REG_VALUE, 8);
        set(&w.rules[0], X86_R12, CFI_REG_COPY, X86_RAX);
        set(&w.rules[0], X86_R13, CFI_REG_AT_RBP, 8);
        w.rules[w.n_rules++] = rule_of(X86_RBX, 0);
        w.rules[w.n_rules++] = rule_of(X86_RBP, 8);
        w.rules[w.n_rules++] = rule_of(X86_R12, 0);
        w.rules[w.n_rules++] = rule_of(X86_R13, 0);
        w.words[0] = AT(6);              /* rbx: its return address is word 5 */
        w.copy.regs.r[X86_RAX] = AT(8);  /* r12: word 7 */
        w.copy.regs.r[X86_RBP] = AT(10); /* r13 is word 11 */
        w.words[11] = AT(13);            /* word 12 */
        w.words[1] = RET(1);
        w.words[5] = RET(4);
        walk(&w);
        expect(&w, UNWIND_DONE, 3);
        cr_assert_eq(w.frames[2].pc, RET(4));
        w.words[5] = RET(3);
        w.words[7] = RET(4);
        walk(&w);
        expect(&w, UNWIND_DONE, 4);
        w.words[1] = RET(2); /* CFA = rbp + 8 = CFA + 16 = word 4: returns to word 3 */
        w.words[3] = RET(3);
        walk(&w);
        expect(&w, UNWIND_DONE, 4);
        end(&w);
}

/* rax and rbx change places: neither may be overwritten before it was read. */
WALK_TEST(exchanged)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        set(&w.rules[0], X86_RBX, CFI_REG_COPY, X86_RAX);
        set(&w.rules[0], X86_RAX, CFI_REG_COPY, X86_RBX);
        w.rules[w.n_rules++] = rule_of(X86_RBX, 8);
        w.rules[w.n_rules++] = rule_of(X86_RAX, 8);
        w.copy.regs.r[X86_RAX] = AT(4);
        w.copy.regs.r[X86_RBX] = AT(6);
        w.words[0] = RET(1);
        w.words[4] = TEXT + REGION * 3; /* no rule */
        w.words[6] = RET(0);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 3); /* of rule 2, with rax lost */
        w.words[0] = RET(2);
        walk(&w);
        expect(&w, UNWIND_DONE, 3);
        end(&w);
}

WALK_TEST(loaded_cfa_and_plt)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_PLT, .cfa_offset = 11};
        set(&w.rules[0], X86_RIP, CFI_REG_OFFSET, -8);
        w.rules[w.n_rules] = rule_of(X86_RSP, 16);
        w.rules[w.n_rules].cfa_offset2 = 8;
        w.rules[w.n_rules++].cfa = CFI_CFA_DEREF;
        w.words[0] = RET(1);
        w.words[3] = AT(8);
        w.words[8] = TEXT + 6;
        w.copy.regs.r[X86_RIP] = TEXT + 10;
        walk(&w);
        expect(&w, UNWIND_DONE, 3); /* PLT: 8, DEREF: *(rsp + 16) + 8, PLT: 8 */
        w.copy.regs.r[X86_RIP] = TEXT + 11;
        w.words[1] = RET(1);
        w.words[4] = AT(8);
        walk(&w);
        expect(&w, UNWIND_DONE, 3); /* PLT: 16 */
        end(&w);
}

/* What is wanted beyond the copy: more of this stack, or of another one that is none of ours. */
WALK_TEST(beyond_the_copy)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RBP, 16);
        w.copy.regs.r[X86_RBP] = AT(WORDS);
        walk(&w);
        expect(&w, UNWIND_TRUNCATED, 1);
        cr_assert_eq(w.r.need_end, AT(WORDS + 2));
        w.copy.regs.r[X86_RBP] = STACK + (8 << 20) - 16;
        walk(&w);
        expect(&w, UNWIND_TRUNCATED, 1);
        cr_assert_eq(w.r.need_end, STACK + (8 << 20));
        w.copy.regs.r[X86_RBP] += 8;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        w.copy.regs.r[X86_RBP] = STACK - 4096;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        w.copy.regs.r[X86_RBP] = UINT64_MAX - 23;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        w.copy.regs.r[X86_RBP] = 0;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        cr_assert_eq(w.r.bad_pc, TEXT);

        /* The copy's last word is in it. */
        w.copy.regs.r[X86_RBP] = AT(WORDS - 2);
        walk(&w);
        expect(&w, UNWIND_DONE, 1);
        w.copy.n--;
        walk(&w);
        expect(&w, UNWIND_TRUNCATED, 1);
        w.copy.n = 0;
        walk(&w);
        expect(&w, UNWIND_TRUNCATED, 1);
        end(&w);
}

/* A register that was popped already: known with the red zone, lost without. */
WALK_TEST(red_zone)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        set(&w.rules[0], X86_RBP, CFI_REG_OFFSET, -16);
        w.rules[w.n_rules++] = rule_of(X86_RBP, 16);
        w.words[16] = RET(1);
        w.words[15] = AT(20);
        w.copy.regs.r[X86_RSP] = AT(16);
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        w.copy.addr = AT(16);
        w.copy.bytes = (const uint8_t *)&w.words[16];
        w.copy.n -= 16 * 8;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 2);
        end(&w);
}

WALK_TEST(places_without_rules)
{
        static const struct {
                uint64_t pc;
                UnwindStatus status;
                size_t n_frames;
        } cases[] = {
                {0, UNWIND_NO_MAPPING, 0},
                {TEXT - 1, UNWIND_NO_MAPPING, 0},
                {DATA, UNWIND_NO_MAPPING, 0},
                {UINT64_MAX, UNWIND_NO_MAPPING, 0},
                {BARE, UNWIND_NO_CFI, 1},
                {TEXT + REGION, UNWIND_NO_CFI, 1},
        };
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
                w.copy.regs.r[X86_RIP] = cases[i].pc;
                walk(&w);
                expect(&w, cases[i].status, cases[i].n_frames);
                cr_assert_eq(w.r.bad_pc, cases[i].pc);
        }
        w.copy.regs.r[X86_RIP] = TEXT;
        w.words[0] = DATA;
        walk(&w);
        expect(&w, UNWIND_NO_MAPPING, 1);
        end(&w);
}

WALK_TEST(generated_code)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RBP, 16);
        w.copy.regs.r[X86_RIP] = JIT;
        w.copy.regs.r[X86_RBP] = AT(2);
        w.words[2] = AT(6);
        w.words[3] = JIT + 100;
        w.words[6] = AT(10);
        w.words[7] = RET(0);
        walk(&w);
        expect(&w, UNWIND_DONE, 3);
        cr_assert_null(w.frames[1].module);
        cr_assert_eq(w.frames[1].vaddr, JIT + 100);
        w.words[6] = AT(2); /* back to where it came from */
        w.words[7] = JIT + 100;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 3);
        end(&w);
}

/* Generated code before its frame is in place, and behind: the caller is not left out. */
WALK_TEST(generated_code_without_a_frame)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RBP, 16);
        set(&w.rules[0], X86_RBP, CFI_REG_OFFSET, -16);
        w.copy.regs.r[X86_RIP] = JIT;
        w.copy.regs.r[X86_RBP] = AT(2);
        w.words[2] = AT(6);
        w.words[3] = RET(0);
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        w.words[0] = JIT + 100; /* as called */
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        w.words[0] = RET(0);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        w.words[0] = AT(2); /* rbp was pushed */
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        w.words[0] = DATA;
        walk(&w);
        expect(&w, UNWIND_DONE, 2);

        /* In place, with rbp just set: there is the caller's. */
        w.copy.regs.r[X86_RBP] = AT(0);
        w.words[0] = JIT + 100;
        w.words[1] = 0;
        walk(&w);
        expect(&w, UNWIND_DONE, 1);

        /* At a call it is in place, whatever is on the stack. */
        w.copy.regs.r[X86_RIP] = TEXT;
        w.copy.regs.r[X86_RBP] = AT(0);
        w.words[0] = AT(4);
        w.words[1] = JIT + 100;
        w.words[2] = RET(0);
        w.words[5] = 0;
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        end(&w);
}

/* A signal on an alternate stack that the copy happens to hold: down it goes, and only there. */
WALK_TEST(signal)
{
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_SIGNAL};
        w.rules[w.n_rules++] = rule_of(X86_RAX, 8);
        w.copy.regs.r[X86_RSP] = AT(4);
        w.words[4] = RET(1);
        w.words[5 + 5 + 13] = AT(1);             /* ucontext at word 5: rax */
        w.words[5 + 5 + 15] = AT(0);             /* rsp */
        w.words[5 + 5 + 16] = TEXT + 2 * REGION; /* rip: exact */
        w.words[1] = RET(0);                     /* by rax, known once more */
        walk(&w);
        expect(&w, UNWIND_DONE, 4);
        cr_assert_eq(w.frames[2].vaddr, 0x3000 + 2 * REGION);
        end(&w);
}

/* A signal that came on another stack, which was copied or was not. */
WALK_TEST(other_stack)
{
        const uint64_t other_addr = STACK - (1 << 20);
        uint64_t other[8] = {0, 0, RET(0), 0};
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_SIGNAL};
        w.words[0] = RET(1);
        w.words[1 + 5 + 15] = other_addr + 16; /* ucontext at word 1: rsp */
        w.words[1 + 5 + 16] = TEXT;            /* rip */
        walk(&w);
        expect(&w, UNWIND_OTHER_STACK, 3);
        cr_assert_eq(w.r.need_addr, other_addr + 16);
        cr_assert(w.r.other);
        w.copy.other_addr = other_addr;
        w.copy.other_n = sizeof(other);
        w.copy.other_bytes = (const uint8_t *)other;
        walk(&w);
        expect(&w, UNWIND_DONE, 4);
        cr_assert(w.r.other);
        /* The copy ends too early, or is of somewhere else by now. */
        w.copy.other_n = 24;
        walk(&w);
        expect(&w, UNWIND_TRUNCATED, 4);
        cr_assert_eq(w.r.need_end, other_addr + 32);
        w.copy.other_n = 16;
        walk(&w);
        expect(&w, UNWIND_OTHER_STACK, 3);
        cr_assert_eq(w.r.need_addr, other_addr + 16);
        /* Too far away to be the same stack, though above it. */
        w.words[1 + 5 + 15] = STACK + (1 << 20);
        walk(&w);
        expect(&w, UNWIND_OTHER_STACK, 3);
        cr_assert_eq(w.r.need_addr, STACK + (1 << 20));
        end(&w);
}

/* The same as without a signal: what is at rsp is looked up on the stack that rsp is on. */
WALK_TEST(other_stack_generated_code_without_a_frame)
{
        const uint64_t other_addr = STACK - (1 << 20);
        uint64_t other[8] = {JIT + 100, 0, 0, 0, 0, RET(0)};
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RBP, 16);
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_SIGNAL};
        w.copy.regs.r[X86_RIP] = TEXT + REGION;
        w.words[5 + 10] = other_addr + 32; /* ucontext at word 0: rbp */
        w.words[5 + 15] = other_addr;      /* rsp */
        w.words[5 + 16] = JIT;             /* rip */
        walk(&w);
        expect(&w, UNWIND_OTHER_STACK, 2);
        w.copy.other_addr = other_addr;
        w.copy.other_n = sizeof(other);
        w.copy.other_bytes = (const uint8_t *)other;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 2);
        other[0] = DATA;
        other[4] = 0;
        walk(&w);
        cr_assert_gt(w.r.n_frames, 2);
        end(&w);
}

/* The goroutine's stack is where it was left, and is gone on with once. */
WALK_TEST(goroutine)
{
        const uint64_t other_addr = STACK - (1 << 20);
        uint64_t other[8] = {0, 0, RET(0), RET(2), 0, RET(3), 0, 0};
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_GOROUTINE, .cfa_offset = 16};
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_ROOT};
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_GO_CALLER};
        w.rules[w.n_rules++] = rule_of(X86_RSP, 8);
        w.rules[4].cfa = CFI_CFA_GO_NEXT;
        set(&w.rules[1], X86_RIP, CFI_REG_OFFSET, -8);
        w.words[0] = RET(1);
        walk(&w);
        expect(&w, UNWIND_OTHER_STACK, 2);
        cr_assert(w.r.other && w.r.need_addr == 0);
        w.copy.go_sp = other_addr + 8;
        w.copy.go_pc = RET(0);
        walk(&w);
        expect(&w, UNWIND_OTHER_STACK, 2);
        cr_assert_eq(w.r.need_addr, other_addr + 16);
        w.copy.other_addr = other_addr;
        w.copy.other_n = sizeof(other);
        w.copy.other_bytes = (const uint8_t *)other;
        walk(&w);
        expect(&w, UNWIND_DONE, 4);
        cr_assert_eq(w.frames[2].pc, RET(0));
        cr_assert_eq(w.frames[3].pc, RET(2));
        cr_assert_not(w.r.other);
        other[3] = RET(1);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 4);
        /* The thread has none: systemstack cannot be there. */
        w.copy.go_sp = GO_SP_NONE;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 2);

        /* morestack: not where it was called from, but where the goroutine goes on. */
        w.words[0] = RET(3);
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        w.copy.go_sp = other_addr + 24;
        other[3] = RET(2);
        walk(&w);
        expect(&w, UNWIND_DONE, 4);
        cr_assert_eq(w.frames[2].pc, RET(0));
        cr_assert_eq(w.frames[3].pc, RET(2));
        w.copy.go_sp = GO_SP_UNKNOWN;
        walk(&w);
        expect(&w, UNWIND_OTHER_STACK, 2);
        /* The scheduler is about to go on with another goroutine. */
        w.copy.go_sp = other_addr + 24;
        w.words[0] = RET(4);
        w.words[1] = RET(3);
        walk(&w);
        expect(&w, UNWIND_DONE, 3);
        w.words[1] = RET(1);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 3);
        end(&w);
}

/* A register has the stack pointer of the stack that was left, or of the same one. */
WALK_TEST(stack_in_a_register)
{
        const uint64_t other_addr = STACK - (1 << 20);
        uint64_t other[4] = {0, RET(1), 0, 0};
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] =
                (CfiRule){.cfa = CFI_CFA_OTHER, .cfa_reg = X86_R12, .cfa_offset = 16};
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_ROOT};
        for (int i = 0; i < 2; i++) {
                w.rules[i].how[X86_RIP] = CFI_REG_OFFSET;
                w.rules[i].offset[X86_RIP] = -8;
        }
        w.copy.regs.r[X86_R12] = AT(4);
        w.words[5] = RET(1);
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        w.copy.regs.r[X86_R12] = other_addr;
        walk(&w);
        expect(&w, UNWIND_OTHER_STACK, 1);
        cr_assert_eq(w.r.need_addr, other_addr + 8);
        w.copy.other_addr = other_addr;
        w.copy.other_n = sizeof(other);
        w.copy.other_bytes = (const uint8_t *)other;
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        w.copy.regs.r[X86_R12] = other_addr + 1;
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        /* Not below where it is. */
        w.copy.regs.r[X86_R12] = AT(0) - 16;
        walk(&w);
        cr_assert_neq(w.r.status, UNWIND_DONE);
        end(&w);
}

/* Generated code whose next instructions tell where the frame is, whatever is at rsp. */
WALK_TEST(generated_code_ahead)
{
        static const uint8_t enter[] = {0x55, 0x48, 0x89, 0xe5}, leave[] = {0xc9, 0xc3};
        Walk w;

        begin(&w);
        w.rules[w.n_rules++] = (CfiRule){.cfa = CFI_CFA_ROOT};
        w.copy.regs.r[X86_RIP] = JIT;
        w.copy.regs.r[X86_RBP] = AT(8);
        w.words[0] = JIT + 100;
        w.words[8] = 0;
        w.words[9] = RET(0);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        w.copy.code = enter;
        w.copy.n_code = sizeof(enter);
        walk(&w);
        expect(&w, UNWIND_DONE, 3);
        cr_assert_eq(w.frames[1].pc, JIT + 100);
        w.copy.code = leave;
        w.copy.n_code = sizeof(leave);
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        /* rbp was pushed. */
        w.copy.code = enter + 1;
        w.copy.n_code = sizeof(enter) - 1;
        w.words[0] = AT(8);
        w.words[1] = JIT + 100;
        walk(&w);
        expect(&w, UNWIND_DONE, 3);
        cr_assert_eq(w.frames[1].pc, JIT + 100);
        w.words[0] = AT(7);
        walk(&w);
        expect(&w, UNWIND_BROKEN, 1);
        /* A file without a rule there; its callers need one. */
        w.copy.regs.r[X86_RIP] = TEXT + 10 * REGION;
        w.copy.code = enter;
        w.copy.n_code = sizeof(enter);
        w.words[0] = RET(0);
        walk(&w);
        expect(&w, UNWIND_DONE, 2);
        w.words[0] = TEXT + 10 * REGION;
        walk(&w);
        expect(&w, UNWIND_NO_CFI, 2);
        w.copy.n_code = 0;
        walk(&w);
        expect(&w, UNWIND_NO_CFI, 1);
        end(&w);
}
