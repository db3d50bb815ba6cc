/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "core/internal.h"
#include "util/error.h"

/* A binary heap of all segments. Most are due never (UINT64_MAX), and cost nothing at the bottom.
 */

static void place(Core *c, Segment *s, size_t index)
{
        c->heap[index] = s;
        s->heap_index = index;
}

/* Moves the segment from its place to where its due time belongs. */
static void sift(Core *c, Segment *s)
{
        size_t i = s->heap_index, child;

        for (; i > 0 && c->heap[(i - 1) / 2]->due_mono_ns > s->due_mono_ns; i = (i - 1) / 2)
                place(c, c->heap[(i - 1) / 2], i);
        for (; (child = 2 * i + 1) < c->n_heap; i = child) {
                if (child + 1 < c->n_heap &&
                        c->heap[child + 1]->due_mono_ns < c->heap[child]->due_mono_ns)
                        child++;
                if (c->heap[child]->due_mono_ns >= s->due_mono_ns)
                        break;
                place(c, c->heap[child], i);
        }
        place(c, s, i);
}

int schedule_reserve(Core *c)
{
        size_t size = c->heap_size ? c->heap_size * 2 : 64;
        Segment **heap;

        if (c->n_heap < c->heap_size)
                return 0;
        heap = realloc(c->heap, size * sizeof(*heap));
        if (!heap)
                return error_origin(-ENOMEM);
        c->heap = heap;
        c->heap_size = size;
        return 0;
}

void schedule_add(Core *c, Segment *s)
{
        s->due_mono_ns = UINT64_MAX;
        place(c, s, c->n_heap++);
}

void schedule_remove(Core *c, Segment *s)
{
        Segment *last = c->heap[--c->n_heap];

        if (last == s)
                return;
        place(c, last, s->heap_index);
        sift(c, last);
}

void schedule_set(Core *c, Segment *s, uint64_t due_mono_ns)
{
        if (s->due_mono_ns == due_mono_ns)
                return;
        s->due_mono_ns = due_mono_ns;
        sift(c, s);
}
