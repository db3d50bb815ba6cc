/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Where the frame is, told by the code that is about to run: whatever a function has done to its
 * stack, it undoes before it returns, and a frame that it is about to make is not there yet. For code
 * of which nothing is known but that its functions keep frame pointers, and make one frame each. A
 * pure function of the bytes.
 */

typedef enum AheadKind {
        AHEAD_UNKNOWN,
        AHEAD_NO_FRAME, /* CFA = rsp + cfa_offset, rbp is the caller's */
        AHEAD_PUSHED,   /* CFA = rsp + cfa_offset, the caller's rbp is saved at rsp + rbp_offset */
        AHEAD_FRAME,    /* CFA = rbp + 16, the caller's rbp is saved at rbp */
} AheadKind;

typedef struct Ahead {
        AheadKind kind;
        bool is_rbp; /* PUSHED: what is saved is to be the same as rbp */
        int32_t cfa_offset, rbp_offset;
} Ahead;

/* `code`: bytes from the next instruction on. */
Ahead code_ahead(const uint8_t *code, size_t n);
