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
        /* The same of the stack that a signal interrupted, where its handler has another one, or of
         * a goroutine whose thread is on its own stack; other_n 0: not copied. */
        uint64_t other_addr;
        size_t other_n;
        const uint8_t *other_bytes;
        /* What that goroutine goes on with. */
        uint64_t go_sp, go_pc;
        /* The code that was about to run; NULL: not copied. */
        const uint8_t *code;
        size_t n_code;
} StackCopy;

/* Instead of a StackCopy.go_sp. */
#define GO_SP_UNKNOWN 0U
#define GO_SP_NONE    1U /* the thread runs none now */

/* Where the Go runtime of a program keeps the stack pointer of a goroutine whose thread runs
 * something else: offsets. */
typedef struct GoPlaces {
        int64_t g;        /* from fsbase: address of the g that runs */
        uint32_t m;       /* in a g: address of its thread's m */
        uint32_t curg;    /* in an m: address of the goroutine's g */
        uint32_t sched;   /* in a g: the stack pointer to go on with, and behind it the pc */
        uint32_t vdso_sp; /* in an m: the same of a call of the vDSO; 0: not known */
} GoPlaces;

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
