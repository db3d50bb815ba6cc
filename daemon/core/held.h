/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/core.h"

/* Samples that wait, in order of time, bounded. Each holds a reference of its stack. */

typedef struct Held {
        Sample *samples;
        size_t first, n, size;
} Held;

/*
 * Takes a sample in, of which there may be at most `max` (≥ 1). When there are as many, the
 * interior ones of runs of the same stack go: the backend computes the same durations without
 * them. If there are none of these, the oldest sample goes. Return: how many were dropped; the
 * sample itself is among them if there is no memory.
 */
size_t held_add(Held *h, const Sample *sample, size_t max);

static inline Sample *held_first(const Held *h)
{
        return h->n > 0 ? &h->samples[h->first] : NULL;
}

void held_drop_first(Held *h);

/* Drops those at or after mono_ns, or all. Return: how many. */
size_t held_cut(Held *h, uint64_t mono_ns);
size_t held_clear(Held *h);
