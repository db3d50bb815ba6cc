/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
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
        return held_add(h,
                &(SampleRun){
                        .mono_ns = mono_ns, .wall_ns = mono_ns, .n = 1, .stack = stacks[stack]},
                max);
}

/* "time:stack …" */
static const char *show(const Held *h)
{
        static char text[8192];
        size_t n = 0;

        text[0] = '\0';
        for (size_t i = 0; i < h->n_runs; i++) {
                SampleRun r = h->runs[h->first + i];

                for (; r.n > 0; sample_run_drop_first(&r), n++)
                        for (unsigned k = 0; k < 4; k++)
                                if (r.stack == stacks[k])
                                        sprintf(text + strlen(text), "%s%u:%u", n ? " " : "",
                                                (unsigned)r.mono_ns, k);
        }
        cr_assert_eq(n, h->n);
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
                cr_assert_eq(h.runs[h.first + i].mono_ns, h.runs[h.first].mono_ns + i);
        cr_assert_leq(h.size, 400);
        held_clear(&h);
}

/* A thread that sleeps for long is one run, however its samples come. */
Test(held, one_run)
{
        SampleRun run = {
                .mono_ns = 7, .wall_ns = 1007, .period_ns = 10, .n = 10, .stack = stacks[0]};
        Held h = {0};

        for (unsigned i = 0; i < 100; i++) {
                cr_assert_eq(held_add(&h, &run, 1000), 0);
                run.mono_ns += 100;
                run.wall_ns += 100;
        }
        cr_assert(h.n == 1000 && h.n_runs == 1);
        /* The wall clock was set. */
        run.wall_ns += 5;
        run.n = 1;
        cr_assert_eq(held_add(&h, &run, 1001), 0);
        cr_assert(h.n == 1001 && h.n_runs == 2);
        cr_assert_eq(held_cut(&h, 508), 950);
        cr_assert_eq(h.runs[h.first].n, 51);
        held_drop_first(&h);
        cr_assert(held_first(&h)->mono_ns == 17 && held_first(&h)->wall_ns == 1017);
        held_clear(&h);
}

/* Samples in runs and the same one by one: all that can be seen of them is alike. */
Test(held, runs_are_samples)
{
        Held runs = {0}, singles = {0};
        char seen[8192];

        srand(1);
        for (unsigned i = 0; i < 20000; i++) {
                size_t max = rand() % 20 ? 40 : 1 + (size_t)rand() % 40, a, b = 0;
                SampleRun run = {.mono_ns = i * 10 + (unsigned)rand() % 60,
                        .period_ns = 1 + (unsigned)rand() % 20,
                        .n = 1 + (unsigned)rand() % 12,
                        .stack = stacks[rand() % 3 ? 0 : rand() % 4]};

                run.wall_ns = run.mono_ns;
                a = held_add(&runs, &run, max);
                for (SampleRun left = run; left.n > 0; sample_run_drop_first(&left))
                        b += held_add(&singles,
                                &(SampleRun){.mono_ns = left.mono_ns,
                                        .wall_ns = left.wall_ns,
                                        .n = 1,
                                        .stack = left.stack},
                                max);
                cr_assert_eq(a, b);
                if (rand() % 8 == 0) {
                        uint64_t at = i * 10 + (unsigned)rand() % 200;

                        cr_assert_eq(held_cut(&runs, at), held_cut(&singles, at));
                }
                for (unsigned n = (unsigned)rand() % 8; n > 0 && runs.n > 0; n--) {
                        held_drop_first(&runs);
                        held_drop_first(&singles);
                }
                strcpy(seen, show(&runs));
                cr_assert_str_eq(seen, show(&singles));
        }
        held_clear(&runs);
        held_clear(&singles);
}
