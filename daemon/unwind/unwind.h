/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "unwind/procmap.h"
#include "unwind/types.h"

/*
 * Copied registers and stack bytes → frames. A pure function: reads nothing but its arguments,
 * never faults whatever the bytes say, and ends after at most max_frames steps, each of which moves
 * the CFA up.
 */

typedef enum UnwindStatus {
        UNWIND_DONE,        /* the root was reached */
        UNWIND_TRUNCATED,   /* the copy ended before the stack did: need_end says up to where it is
                              wanted */
        UNWIND_OTHER_STACK, /* it goes on on another stack, of which there is no copy: need_addr
                             tells where it is; 0: a goroutine's */
        UNWIND_NO_MAPPING,  /* a pc outside of every executable mapping (perhaps the map is out of
                              date) */
        UNWIND_UNREAD,      /* a pc of which a lazy table does not know: all is to be read first */
        UNWIND_NO_CFI,      /* a pc in a file without unwind information there */
        UNWIND_BROKEN,      /* the CFA did not rise, misaligned or wild values */
        UNWIND_TOO_DEEP,    /* max_frames reached: frames hold the innermost part */
        /* Said by who adds the frames of an interpreter: */
        UNWIND_NO_PYTHON,       /* they were not read with the stack */
        UNWIND_PYTHON_MISMATCH, /* they are not of the same stack */
} UnwindStatus;

typedef struct UnwindResult {
        UnwindStatus status;
        size_t n_frames;
        uint64_t need_end;  /* UNWIND_TRUNCATED: the address up to which bytes are needed at least;
                              UNWIND_DONE: up to which there is anything of the walk */
        uint64_t need_addr; /* UNWIND_OTHER_STACK: the stack pointer there */
        bool moved;         /* the walk went from one stack to another */
        bool other;         /* the walk came to the other stack, copied or not */
        bool python_doubtful; /* said by who adds an interpreter's frames: some may be missing */
        uint64_t
                bad_pc; /* NO_MAPPING, UNREAD, NO_CFI, BROKEN: the pc of the frame that could not be left */
} UnwindResult;

/*
 * Innermost frame first. Frames before the failure are filled in on every status. Module references
 * in the frames are borrowed from `map`.
 *
 * Code in files goes by the rows of its table, and by nothing else: where there is none, the walk
 * ends with NO_CFI. Rows of what has CFI are the compiler's word. Those of code without CFI are told
 * by its instructions (cfi-code.h, cfi-gap.h), and rest on what compilers and assemblers write:
 * functions begin behind padding of int3, or with "push %rbp; mov %rsp,%rbp", and calls leave rsp
 * and rbp as they were. That is proven by no one, nor is it looked whether a call is before the
 * return address that such a row gives.
 *
 * Code in anonymous memory (JIT), of which only data is known, goes by frame pointer, as V8, .NET and
 * others keep it. At a call the frame is in place. The innermost pc may be before that, or behind it,
 * and one caller would be missing: the code that is about to run tells (code-ahead.h), if it was
 * copied. Else, where the word at rsp is an address of code, or rbp itself, that cannot be told, and
 * the walk ends with BROKEN. Copied code tells the same of an innermost pc in a file without a row.
 *
 * Go's goroutines have stacks of their own, and the runtime leaves them for the thread's, with rows
 * that say so (cfi-go-code.h): the walk goes on where the goroutine was left, if that was copied.
 */
UnwindResult unwind_cfi(
        const StackCopy *copy, const ProcMap *map, Frame *ret_frames, size_t max_frames);

/* By rbp chain alone, for binaries that keep frame pointers; the root is a zero rbp or return
 * address, a CFI root, or where rbp is no frame pointer any more. */
UnwindResult unwind_fp(
        const StackCopy *copy, const ProcMap *map, Frame *ret_frames, size_t max_frames);

/* The innermost frame is a given list of pcs (user stack from a BPF stack-trace map), innermost
 * first → frames. */
UnwindResult unwind_pcs(
        const uint64_t *pcs, size_t n, const ProcMap *map, Frame *ret_frames, size_t max_frames);
