/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Plain data of capturing and unwinding. */

/* DWARF numbers of the x86-64 registers (psABI, figure 3.36). */
enum {
        X86_RAX,
        X86_RDX,
        X86_RCX,
        X86_RBX,
        X86_RSI,
        X86_RDI,
        X86_RBP,
        X86_RSP,
        X86_R8,
        X86_R9,
        X86_R10,
        X86_R11,
        X86_R12,
        X86_R13,
        X86_R14,
        X86_R15,
        X86_RIP, /* the return address column */
        N_REGS,
};

typedef struct UnwindRegs {
        uint64_t r[N_REGS];
} UnwindRegs;

/* Registers of a thread and the bytes of its stack [addr, addr + n) at one instant; addr is rsp, or
 * below it by the red zone. Bytes are borrowed. */
typedef struct StackCopy {
        UnwindRegs regs;
        uint64_t addr;
        size_t n;
        const uint8_t *bytes;
        /* The same of the stack that a signal interrupted, where its handler has another one;
         * other_n 0: not copied. */
        uint64_t other_addr;
        size_t other_n;
        const uint8_t *other_bytes;
} StackCopy;

struct Module;

typedef enum FrameKind {
        FRAME_CODE,   /* of the program */
        FRAME_LEAF,   /* the same: of several, the innermost one that has a name is enough */
        FRAME_KERNEL, /* pc and vaddr are a kernel address */
        FRAME_WAIT,   /* no code: pc and vaddr say what the thread waits for (symbol/wait.h) */
        FRAME_PYTHON, /* a function of Python: pc is unlike any other's, vaddr the number of the
                         instruction */
} FrameKind;

typedef struct Frame {
        uint64_t pc; /* for callers: the return address */
        union {
                const struct Module *module; /* borrowed from the ProcMap; NULL: not in a file */
                struct CpythonCode *python;  /* FRAME_PYTHON: borrowed from its CpythonCodes */
        };
        uint64_t vaddr; /* address in the module's ELF terms, already lowered by 1 for callers; else
                         * pc; UINT64_MAX: no segment of the module covers it */
        uint64_t sp; /* its stack begins there, and ends where its caller's begins; 0: not known */
        FrameKind kind;
} Frame;
