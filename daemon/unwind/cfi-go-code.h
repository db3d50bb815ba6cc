/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "unwind/cfi-go.h"

/*
 * Rows of a function of Go. Those of its runtime that set rsp themselves are read: between its stacks a thread is switched by a
 * few of these, written in assembler, and their instructions tell where the frame is, which the
 * function table does not. A pure function of the bytes. What is not known for sure has no rule.
 *
 *   runtime.systemstack, asmcgocall  go on on the thread's own stack. The goroutine's stack pointer
 *                                    is in its g meanwhile.
 *   runtime.morestack                the same, and the goroutine goes on in the function that called
 *   runtime.mcall                    the same, but no goroutine waits for that: a root
 *   calls of the vDSO and of C       keep rsp in a register that the callee keeps
 */

enum {
        GO_STRETCHES_MAX = 16,
        GO_CODE_MAX = 512, /* bytes of one function that are looked at */
};

/* Code with one kind of frame, up to `end`. */
typedef struct GoStretch {
        uint64_t end;
        CfiCfa cfa; /* CFI_CFA_REG: as the function table says */
        uint8_t reg;
        int32_t offset, offset2;
} GoStretch;

typedef struct GoStretches {
        size_t n;
        GoStretch stretches[GO_STRETCHES_MAX]; /* behind the last one there is no rule */
} GoStretches;

typedef struct GoProgram {
        GoFunction function;
        CfiCfa kind; /* of all of it; CFI_CFA_REG: it depends */
        GoDepth depth;
        GoStretches stretches; /* of a function that sets rsp */
        size_t i;              /* of them */
        uint64_t pc;
        CfiRule rule;
} GoProgram;

/* The table is borrowed. `code`: the function's, as far as the file has it; needed if the function
 * sets rsp. That of runtime.systemstack and of runtime.nanotime1 tells t->places. */
void go_program_init(GoProgram *p, GoTable *t, const GoFunction *f, CfiBytes code);
/* The next row, as from cfi_program_next(). Return: 0, or 1 behind the last. */
int go_program_next(GoProgram *p, uint64_t *ret_start, uint64_t *ret_end, const CfiRule **ret_rule);
