/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One x86-64 instruction, as far as unwinding is concerned: how long it is, where it goes on, and
 * what becomes of rsp and rbp. A pure function of the bytes.
 */

typedef enum X86Kind {
        X86_OTHER,        /* sets neither rsp nor rbp, and goes on behind it */
        X86_PUSH,         /* of `reg`; X86_INSN_NO_REG: of something else */
        X86_POP,          /* into `reg`; X86_INSN_NO_REG: into memory */
        X86_ADD_RSP,      /* value: by so many bytes */
        X86_RSP_FROM_RBP, /* rsp = rbp + value */
        X86_RBP_FROM_RSP, /* rbp = rsp */
        X86_LEAVE,        /* rsp = rbp, pop rbp */
        X86_SETS_RSP,     /* in any other way */
        X86_SETS_RBP,     /* in any other way */
        X86_CALL,
        X86_JUMP,      /* value: the target, from the end of this instruction */
        X86_BRANCH,    /* the same, or goes on behind it */
        X86_JUMP_AWAY, /* to what cannot be told */
        X86_RET,
        X86_TRAP, /* does not go on: int3, ud2, hlt */
} X86Kind;

typedef struct X86Insn {
        X86Kind kind;
        uint8_t length;
        uint8_t reg; /* a number of the architecture (rax, rcx, rdx, rbx, rsp, …): see X86_INSN_RBP */
        int32_t value;
        uint32_t
                written; /* X86_OTHER: a bit for each register that it may set, besides rax and rdx */
} X86Insn;

enum {
        X86_INSN_RSP = 4,
        X86_INSN_RBP = 5,
        X86_INSN_NO_REG = 16,
};

/* False: there is no such instruction, or it does not end within the bytes. */
bool x86_insn_decode(const uint8_t *bytes, size_t n, X86Insn *ret);
