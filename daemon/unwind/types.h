/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Plain data of capturing and unwinding. */

/* DWARF numbers of the x86-64 registers (psABI, figure 3.36). */
enum {
        REG_RAX,
        REG_RDX,
        REG_RCX,
        REG_RBX,
        REG_RSI,
        REG_RDI,
        REG_RBP,
        REG_RSP,
        REG_R8,
        REG_R9,
        REG_R10,
        REG_R11,
        REG_R12,
        REG_R13,
        REG_R14,
        REG_R15,
        REG_RIP, /* the return address column */
        N_REGS,
};

typedef struct UnwindRegs {
        uint64_t r[N_REGS];
} UnwindRegs;

/* Registers of a thread and the bytes of its stack [addr, addr + n) at one instant; addr is rsp, or below it by the red
 * zone. Bytes are borrowed. */
typedef struct StackCopy {
        UnwindRegs regs;
        uint64_t addr;
        size_t n;
        const uint8_t *bytes;
} StackCopy;

struct Module;

typedef struct Frame {
        uint64_t pc;                 /* for callers: the return address */
        const struct Module *module; /* borrowed from the ProcMap; NULL: not in a file */
        uint64_t vaddr;              /* address in the module's ELF terms, already lowered by 1 for callers; else pc */
        bool kernel;                 /* pc is a kernel address */
} Frame;
