/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/core.h"

/* Samples that wait, in order of time, bounded. Each run holds a reference of its stack. */

typedef struct Held {
        SampleRun *runs;
        size_t first, n_runs, size;
        size_t n; /* samples */
} Held;

static inline uint64_t sample_run_last_mono_ns(const SampleRun *r)
{
        return r->mono_ns + (r->n - 1) * r->period_ns;
}

static inline void sample_run_drop_first(SampleRun *r)
{
        r->mono_ns += r->period_ns;
        r->wall_ns += r->period_ns;
        r->n--;
}

/*
 * Takes samples in, of which there may be at most `max` (≥ 1). When there are as many, those go that
 * have the same stack before and behind them: the backend computes the same durations without
 * them. If there are none of these, the oldest sample goes. Return: how many were dropped; new ones
 * are among them if there is no memory.
 */
size_t held_add(Held *h, const SampleRun *run, size_t max);

/* The oldest sample, at the head of its run. */
static inline SampleRun *held_first(const Held *h)
{
        return h->n > 0 ? &h->runs[h->first] : NULL;
}

void held_drop_first(Held *h);

/* Drops those at or after mono_ns, or all. Return: how many. */
size_t held_cut(Held *h, uint64_t mono_ns);
size_t held_clear(Held *h);
