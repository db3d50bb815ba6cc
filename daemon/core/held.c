/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/held.h"

#define HELD_SIZE_MIN 8

static SampleRun *held_run(const Held *h, size_t i)
{
        return &h->runs[h->first + i];
}

void held_drop_first(Held *h)
{
        SampleRun *r = held_run(h, 0);

        h->n--;
        sample_run_drop_first(r);
        if (r->n > 0)
                return;
        stack_unref(r->stack);
        h->first++;
        h->n_runs--;
}

/* Leaves but the first and the last sample of neighbours with the same stack. Return: how many
 * went. */
static size_t held_thin(Held *h)
{
        SampleRun *runs = h->runs + h->first;
        size_t n_before = h->n, n_runs = 0, next;

        for (size_t i = 0; i < h->n_runs; i = next) {
                SampleRun first = runs[i];
                size_t n = 0;

                for (next = i; next < h->n_runs && runs[next].stack == first.stack &&
                               runs[next].state == first.state;
                        next++)
                        n += runs[next].n;
                /* What follows is not yet overwritten: n_runs never overtakes i. */
                if (next - i == 1) {
                        if (n > 2) {
                                first.period_ns *= n - 1;
                                first.n = 2;
                        }
                        runs[n_runs++] = first;
                } else {
                        SampleRun last = runs[next - 1];

                        while (last.n > 1)
                                sample_run_drop_first(&last);
                        for (size_t k = i + 2; k < next; k++)
                                stack_unref(first.stack);
                        first.n = 1;
                        runs[n_runs++] = first;
                        runs[n_runs++] = last;
                }
                h->n -= n > 2 ? n - 2 : 0;
        }
        h->n_runs = n_runs;
        return n_before - h->n;
}

/* Room for two more at the end. Return: whether there is. */
static bool held_reserve(Held *h)
{
        size_t size = h->size ? h->size * 2 : HELD_SIZE_MIN;
        SampleRun *runs;

        if (h->first + h->n_runs + 2 <= h->size)
                return true;
        if (h->first > 0) {
                memmove(h->runs, h->runs + h->first, h->n_runs * sizeof(*h->runs));
                h->first = 0;
        }
        /* Half of it free, so that moving stays rare. */
        if (h->n_runs <= h->size / 2 && h->n_runs + 2 <= h->size)
                return true;
        runs = realloc(h->runs, size * sizeof(*runs));
        if (!runs)
                return h->n_runs + 2 <= h->size;
        h->runs = runs;
        h->size = size;
        return true;
}

/* Whether the run goes on where the other one ends. */
static bool run_continues(const SampleRun *run, const SampleRun *before)
{
        return run->stack == before->stack && run->state == before->state &&
               (before->n == 1 || before->period_ns == run->period_ns) &&
               run->mono_ns == sample_run_last_mono_ns(before) + run->period_ns &&
               run->wall_ns == before->wall_ns + before->n * run->period_ns;
}

/* Behind all others. Return: whether there was memory. */
static bool held_append(Held *h, const SampleRun *run)
{
        SampleRun *last = h->n_runs > 0 ? held_run(h, h->n_runs - 1) : NULL;

        if (last && run_continues(run, last)) {
                last->period_ns = run->period_ns;
                last->n += run->n;
        } else {
                if (!held_reserve(h))
                        return false;
                *held_run(h, h->n_runs++) = *run;
                stack_ref(run->stack);
        }
        h->n += run->n;
        return true;
}

/* A late one of a former target goes to its place, which may be within a run. */
static bool held_insert(Held *h, const SampleRun *one)
{
        size_t at = h->n_runs;
        SampleRun *r;

        if (!held_reserve(h))
                return false;
        while (at > 0 && held_run(h, at - 1)->mono_ns > one->mono_ns)
                at--;
        r = held_run(h, at);
        if (at > 0 && sample_run_last_mono_ns(&r[-1]) > one->mono_ns) {
                memmove(r + 1, r, (h->n_runs - at) * sizeof(*r));
                *r = r[-1];
                r[-1].n = 0;
                for (; r->mono_ns <= one->mono_ns; r[-1].n++)
                        sample_run_drop_first(r);
                stack_ref(r->stack);
                h->n_runs++;
        }
        memmove(r + 1, r, (h->n_runs - at) * sizeof(*r));
        *r = *one;
        stack_ref(one->stack);
        h->n_runs++;
        h->n++;
        return true;
}

static bool held_is_behind(const Held *h, const SampleRun *run)
{
        return h->n_runs == 0 ||
               run->mono_ns >= sample_run_last_mono_ns(held_run(h, h->n_runs - 1));
}

static size_t held_add_one(Held *h, const SampleRun *one, size_t max)
{
        size_t n_dropped = 0;

        if (h->n >= max) {
                n_dropped = held_thin(h);
                for (; h->n >= max; n_dropped++)
                        held_drop_first(h);
        }
        return n_dropped + !(held_is_behind(h, one) ? held_append(h, one) : held_insert(h, one));
}

size_t held_add(Held *h, const SampleRun *run, size_t max)
{
        size_t n_dropped = 0;
        SampleRun left = *run;

        assert(max > 0 && run->n > 0);
        if (h->n + run->n <= max && held_is_behind(h, run))
                return held_append(h, run) ? 0 : run->n;
        for (; left.n > 0; sample_run_drop_first(&left)) {
                SampleRun one = left;

                one.n = 1;
                n_dropped += held_add_one(h, &one, max);
        }
        return n_dropped;
}

size_t held_cut(Held *h, uint64_t mono_ns)
{
        size_t n_before = h->n;

        while (h->n_runs > 0) {
                SampleRun *last = held_run(h, h->n_runs - 1);

                for (; last->n > 0 && sample_run_last_mono_ns(last) >= mono_ns; last->n--)
                        h->n--;
                if (last->n > 0)
                        break;
                stack_unref(last->stack);
                h->n_runs--;
        }
        return n_before - h->n;
}

size_t held_clear(Held *h)
{
        size_t n = held_cut(h, 0);

        free(h->runs);
        *h = (Held){0};
        return n;
}
