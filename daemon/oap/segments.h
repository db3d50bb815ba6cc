/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "oap/backend.h"
#include "oap/buffer.h"
#include "util/list.h"

/*
 * Encoded trace segments on their way to the backend, in order, bounded in number. At most once,
 * like snapshots: a storage may answer a repeated one with an error that takes its neighbours
 * along. What is on record is struck off before it leaves.
 */

typedef struct Segments {
        Backend *backend;
        const Keep *keep; /* NULL: nothing is on record */
        ListLink queue;
        size_t n, n_taken;
        bool streaming; /* or about to */
        bool waiting;   /* for what is to be sent to be struck off */
        uint64_t started_mono_ns;
} Segments;

void segments_init(Segments *s, Backend *backend, const Keep *keep);
/* After the backend's calls were cancelled. */
void segments_deinit(Segments *s);

/* Takes the malloc'ed bytes; one that cannot be kept is counted as lost. */
void segments_add(Segments *s, BufferReport segment);

bool segments_idle(const Segments *s);
uint64_t segments_next_mono_ns(const Segments *s);
void segments_step(Segments *s);
