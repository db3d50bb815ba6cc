/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "unwind/types.h"
#include "util/cleanup.h"

/*
 * Frames → code signatures. Remembers the signatures of each address of each module, for naming is
 * slow (inlined functions and lines are searched for) and the same code shows up again and again.
 * The memory for that is bounded. Symbolizer thread only.
 */

typedef struct Namer Namer;

/* `lines`: signatures end with the source line. `max_depth`: signatures of a stack at most.
 * Return: 0, -ENOMEM. */
int namer_new(Namer **ret, bool lines, size_t max_depth);
Namer *namer_free(Namer *n);
DEFINE_CLEANUP(Namer *, namer_free)

enum {
        _NAMER_E_SUCCESS,
        NAMER_E_TORN, /* a function of Python was gone before its name was read: counted */
};

/*
 * The signatures of a stack whose frames are given innermost first: outermost first, pointers and
 * strings in one allocation, and the StackKind of each in another; NULL when there are no frames.
 * The frames' modules are alive, with the symbols of this thread. Deeper than max_depth: the
 * outermost part, and "[cut]" as the innermost. Return: 0, NAMER_E_TORN, -ENOMEM.
 */
int namer_stack(Namer *n, const Frame *frames, size_t n_frames, char ***ret, uint8_t **ret_kinds,
        size_t *ret_n, bool *ret_cut);
