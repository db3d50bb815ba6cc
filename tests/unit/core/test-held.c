/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "core/held.h"

static Stack *stacks[4];

static void setup(void)
{
        for (unsigned i = 0; i < 4; i++)
                stacks[i] = stack_new();
}

static void teardown(void)
{
        /* No reference is lost, none given back twice. */
        for (unsigned i = 0; i < 4; i++) {
                cr_assert_eq(stacks[i]->n_refs, 1);
                stack_unref(stacks[i]);
        }
}

static size_t add(Held *h, uint64_t mono_ns, unsigned stack, size_t max)
{
        return held_add(h, &(Sample){.mono_ns = mono_ns, .stack = stacks[stack]}, max);
}

/* "time:stack …" */
static const char *show(const Held *h)
{
        static char text[256];

        text[0] = '\0';
        for (size_t i = 0; i < h->n; i++) {
                const Sample *s = &h->samples[h->first + i];

                for (unsigned k = 0; k < 4; k++)
                        if (s->stack == stacks[k])
                                sprintf(text + strlen(text), "%s%u:%u", i ? " " : "",
                                        (unsigned)s->mono_ns, k);
        }
        return text;
}

TestSuite(held, .init = setup, .fini = teardown);

Test(held, in_order)
{
        Held h = {0};

        cr_assert_null(held_first(&h));
        cr_assert_eq(add(&h, 10, 0, 8), 0);
        cr_assert_eq(add(&h, 30, 1, 8), 0);
        cr_assert_eq(add(&h, 20, 2, 8), 0);
        cr_assert_eq(add(&h, 5, 3, 8), 0);
        cr_assert_eq(add(&h, 30, 3, 8), 0);
        cr_assert_str_eq(show(&h), "5:3 10:0 20:2 30:1 30:3");
        held_drop_first(&h);
        cr_assert_eq(held_first(&h)->mono_ns, 10);
        cr_assert_eq(held_cut(&h, 20), 3);
        cr_assert_str_eq(show(&h), "10:0");
        cr_assert_eq(held_cut(&h, 20), 0);
        cr_assert_eq(held_clear(&h), 1);
        cr_assert_null(held_first(&h));
}

Test(held, thinned)
{
        Held h = {0};
        static const unsigned run[] = {0, 0, 0, 0, 1, 2, 2, 2, 0, 0};

        for (unsigned i = 0; i < 10; i++)
                cr_assert_eq(add(&h, i, run[i], 10), 0);
        cr_assert_eq(add(&h, 10, 0, 10), 3);
        cr_assert_str_eq(show(&h), "0:0 3:0 4:1 5:2 7:2 8:0 9:0 10:0");
        held_clear(&h);
}

Test(held, oldest_goes)
{
        Held h = {0};

        for (unsigned i = 0; i < 3; i++)
                cr_assert_eq(add(&h, i, i, 3), 0);
        cr_assert_eq(add(&h, 3, 3, 3), 1);
        cr_assert_str_eq(show(&h), "1:1 2:2 3:3");
        /* A smaller bound than before. */
        cr_assert_eq(add(&h, 4, 0, 1), 3);
        cr_assert_str_eq(show(&h), "4:0");
        held_clear(&h);
}

/* As of a segment that runs for long: in at the end, out at the front. */
Test(held, flows)
{
        Held h = {0};

        for (unsigned i = 0; i < 10000; i++) {
                cr_assert_eq(add(&h, i, i % 4, 100), 0);
                if (h.n == 60)
                        for (unsigned n = 0; n < 50; n++)
                                held_drop_first(&h);
        }
        for (unsigned i = 1; i < h.n; i++)
                cr_assert_eq(h.samples[h.first + i].mono_ns, h.samples[h.first].mono_ns + i);
        cr_assert_leq(h.size, 400);
        held_clear(&h);
}
