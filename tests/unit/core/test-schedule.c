/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/internal.h"

#define N 500

static unsigned next_random(unsigned *state)
{
        *state = *state * 1103515245 + 12345;
        return *state >> 16 & 0x7fff;
}

static void check_top(const Core *c)
{
        uint64_t least = UINT64_MAX;

        for (size_t i = 0; i < c->n_heap; i++) {
                cr_assert_eq(c->heap[i]->heap_index, i);
                if (c->heap[i]->due_mono_ns < least)
                        least = c->heap[i]->due_mono_ns;
        }
        if (c->n_heap > 0)
                cr_assert_eq(c->heap[0]->due_mono_ns, least);
}

Test(schedule, earliest_on_top)
{
        static Segment segments[N];
        Core c = {0};
        unsigned state = 1, n = 0;

        for (unsigned i = 0; i < 20000; i++) {
                unsigned dice = next_random(&state) % 10;

                if (dice < 3 && n < N) {
                        cr_assert_eq(schedule_reserve(&c), 0);
                        schedule_add(&c, &segments[n++]);
                } else if (dice == 3 && n > 0) {
                        /* The last of the table takes the place of the one that goes. */
                        Segment *gone = &segments[next_random(&state) % n];

                        schedule_remove(&c, gone);
                        if (gone != &segments[--n]) {
                                *gone = segments[n];
                                c.heap[gone->heap_index] = gone;
                        }
                } else if (n > 0) {
                        schedule_set(&c, &segments[next_random(&state) % n],
                                dice == 4 ? UINT64_MAX : next_random(&state) % 100);
                }
                cr_assert_eq(c.n_heap, n);
                check_top(&c);
        }
        free(c.heap);
}
