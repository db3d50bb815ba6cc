/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/held.h"

#define HELD_SIZE_MIN 16

void held_drop_first(Held *h)
{
        stack_unref(h->samples[h->first].stack);
        h->first++;
        h->n--;
}

static size_t held_thin(Held *h)
{
        Sample *s = h->samples + h->first;
        const Stack *before = NULL;
        size_t n_before = h->n, n = 0;

        for (size_t i = 0; i < n_before; i++) {
                Stack *stack = s[i].stack;

                /* What follows is not yet overwritten: n never overtakes i. */
                if (stack == before && i + 1 < n_before && s[i + 1].stack == stack)
                        stack_unref(stack);
                else
                        s[n++] = s[i];
                before = stack;
        }
        h->n = n;
        return n_before - n;
}

/* Room for one more at the end. Return: whether there is. */
static bool held_reserve(Held *h)
{
        size_t size = h->size ? h->size * 2 : HELD_SIZE_MIN;
        Sample *samples;

        if (h->first + h->n < h->size)
                return true;
        if (h->first > 0) {
                memmove(h->samples, h->samples + h->first, h->n * sizeof(*h->samples));
                h->first = 0;
        }
        /* Half of it free, so that moving stays rare. */
        if (h->n <= h->size / 2 && h->n < h->size)
                return true;
        samples = realloc(h->samples, size * sizeof(*samples));
        if (!samples)
                return h->n < h->size;
        h->samples = samples;
        h->size = size;
        return true;
}

size_t held_add(Held *h, const Sample *sample, size_t max)
{
        size_t n_dropped = 0, at;

        assert(max > 0);
        if (h->n >= max) {
                n_dropped = held_thin(h);
                for (; h->n >= max; n_dropped++)
                        held_drop_first(h);
        }
        if (!held_reserve(h))
                return n_dropped + 1;
        /* A late one of a former target goes to its place. */
        at = h->first + h->n;
        while (at > h->first && h->samples[at - 1].mono_ns > sample->mono_ns)
                at--;
        memmove(h->samples + at + 1, h->samples + at, (h->first + h->n - at) * sizeof(*h->samples));
        h->samples[at] = *sample;
        stack_ref(sample->stack);
        h->n++;
        return n_dropped;
}

size_t held_cut(Held *h, uint64_t mono_ns)
{
        size_t n_before = h->n;

        while (h->n > 0 && h->samples[h->first + h->n - 1].mono_ns >= mono_ns)
                stack_unref(h->samples[h->first + --h->n].stack);
        return n_before - h->n;
}

size_t held_clear(Held *h)
{
        size_t n = held_cut(h, 0);

        free(h->samples);
        *h = (Held){0};
        return n;
}
