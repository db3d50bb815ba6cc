/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/code-ahead.h"

/* What comes next in code as V8 writes it. */

static void check(const char *code, size_t n, Ahead wanted)
{
        Ahead a = code_ahead((const uint8_t *)code, n);

        cr_expect_eq(a.kind, wanted.kind, "%d", a.kind);
        cr_expect_eq(a.cfa_offset, wanted.cfa_offset, "%d", a.cfa_offset);
        cr_expect_eq(a.rbp_offset, wanted.rbp_offset, "%d", a.rbp_offset);
        cr_expect_eq(a.is_rbp, wanted.is_rbp);
}

#define CHECK(code, ...) check(code, sizeof(code) - 1, (Ahead){__VA_ARGS__})

#define ENTER      "\x55\x48\x89\xe5" /* push %rbp; mov %rsp, %rbp */
#define PUSH_RSI   "\x56"
#define POP_R10    "\x41\x5a"
#define PUSH_R10   "\x41\x52"
#define JNE_FAR    "\x0f\x85\x32\x76\xe4\x1f"
#define TEST       "\xf6\x43\x35\x01" /* testb $1, 0x35(%rbx) */
#define LEAVE      "\xc9"
#define MOV_SP_BP  "\x48\x89\xec" /* mov %rbp, %rsp */
#define POP_RBP    "\x5d"
#define RET        "\xc3"
#define RET_18     "\xc2\x18\x00"
#define SUB_RSP_18 "\x48\x83\xec\x18"
#define ADD_RSP_18 "\x48\x83\xc4\x18"
#define LEA_RSP    "\x48\x8d\x24\xcc" /* lea (%rsp,%rcx,8), %rsp */
#define CALL       "\xe8\x11\x22\x33\x44"
#define JMP_2      "\xeb\x02"
#define JMP_BACK   "\xeb\xf0"
#define JMP_RCX    "\xff\xe1"
#define INT3       "\xcc"
#define SET_RBP    "\x48\x89\xcd" /* mov %rcx, %rbp */

Test(ahead, prologue)
{
        CHECK(ENTER, .kind = AHEAD_NO_FRAME, .cfa_offset = 8);
        CHECK(TEST JNE_FAR ENTER PUSH_RSI, .kind = AHEAD_NO_FRAME, .cfa_offset = 8);
        CHECK(PUSH_RSI ENTER, .kind = AHEAD_NO_FRAME, .cfa_offset = 0);
        CHECK(POP_R10 ENTER, .kind = AHEAD_UNKNOWN);
        CHECK(POP_R10 PUSH_R10 ENTER, .kind = AHEAD_UNKNOWN);
        CHECK("\x48\x89\xe5" PUSH_RSI, .kind = AHEAD_PUSHED, .is_rbp = true, .cfa_offset = 16);
        /* je +5; jmp far */
        CHECK(TEST "\x74\x05\xe9\xb8\x81\xe5\x7f" ENTER, .kind = AHEAD_NO_FRAME, .cfa_offset = 8);
        CHECK(PUSH_RSI "\x74\x05\xe9\xb8\x81\xe5\x7f" ENTER, .kind = AHEAD_NO_FRAME);
        /* It may be another function's. */
        CHECK(CALL ENTER, .kind = AHEAD_UNKNOWN);
        CHECK(RET_18 ENTER, .kind = AHEAD_NO_FRAME, .cfa_offset = 8);
        CHECK(INT3 ENTER, .kind = AHEAD_UNKNOWN);
        CHECK(JMP_RCX ENTER, .kind = AHEAD_UNKNOWN);
}

Test(ahead, epilogue)
{
        CHECK(LEAVE RET, .kind = AHEAD_FRAME);
        CHECK(MOV_SP_BP POP_RBP RET_18, .kind = AHEAD_FRAME);
        CHECK(CALL TEST JNE_FAR MOV_SP_BP, .kind = AHEAD_FRAME);
        CHECK(POP_RBP RET, .kind = AHEAD_PUSHED, .cfa_offset = 16);
        CHECK(ADD_RSP_18 POP_RBP RET, .kind = AHEAD_PUSHED, .cfa_offset = 40, .rbp_offset = 24);
        CHECK(RET_18, .kind = AHEAD_NO_FRAME, .cfa_offset = 8);
        CHECK(TEST JNE_FAR RET_18, .kind = AHEAD_NO_FRAME, .cfa_offset = 8);
        CHECK(POP_R10 PUSH_R10 RET, .kind = AHEAD_NO_FRAME, .cfa_offset = 8);
        CHECK(PUSH_RSI JMP_2 INT3 INT3 ADD_RSP_18 RET, .kind = AHEAD_NO_FRAME, .cfa_offset = 24);
        CHECK(POP_R10 LEA_RSP PUSH_R10 RET, .kind = AHEAD_UNKNOWN);
        CHECK(CALL RET, .kind = AHEAD_UNKNOWN);
        CHECK(POP_RBP LEAVE, .kind = AHEAD_UNKNOWN);
        CHECK(POP_RBP POP_RBP RET, .kind = AHEAD_UNKNOWN);
        CHECK(SET_RBP LEAVE, .kind = AHEAD_UNKNOWN);
}

Test(ahead, nothing)
{
        CHECK("", .kind = AHEAD_UNKNOWN);
        CHECK(TEST JNE_FAR, .kind = AHEAD_UNKNOWN);
        CHECK("\x55\x48\x89", .kind = AHEAD_UNKNOWN);
        CHECK(TEST JMP_BACK, .kind = AHEAD_UNKNOWN);
        CHECK(JMP_2 RET, .kind = AHEAD_UNKNOWN);
}

/* Any bytes at all: it ends, and reads nothing beyond them (for the sanitizer). */
Test(ahead, hostile)
{
        srandom(1);
        for (int i = 0; i < 100000; i++) {
                size_t n = (size_t)random() % 65;
                uint8_t *code = malloc(n ? n : 1);

                cr_assert(code);
                for (size_t k = 0; k < n; k++)
                        code[k] = (uint8_t)random();
                code_ahead(code, n);
                free(code);
        }
}
