/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "client/stack-set.h"

static StackSet set;

static void setup(void)
{
        stack_set_init(&set);
}

static void teardown(void)
{
        stack_set_deinit(&set);
        cr_assert_eq(set.n_bytes, 0);
}

TestSuite(stack_set, .init = setup, .fini = teardown);

static Stack *get(size_t n, const char *a, const char *b)
{
        Stack *stack = NULL;

        cr_assert_eq(stack_set_get(&set, &stack, n, (const char *[]){a, b}), 0);
        cr_assert_eq(stack->state, STACK_READY);
        cr_assert_eq(stack->n_signatures, n);
        cr_assert_str_eq(stack->signatures[0], a);
        return stack;
}

Test(stack_set, same_content)
{
        Stack *stack = get(2, "a", "b");

        cr_assert_eq(get(2, "a", "b"), stack);
        cr_assert_eq(stack->n_refs, 1);
        cr_assert_neq(get(1, "a", NULL), stack);
        cr_assert_neq(get(2, "b", "a"), stack);
        cr_assert_neq(get(2, "ab", ""), stack);
}

static int get_large(unsigned n, Stack **ret)
{
        char text[1024];

        snprintf(text, sizeof(text), "%01000u", n);
        return stack_set_get(&set, ret, 1, (const char *[]){text});
}

/* What nobody uses goes, the oldest first; what is in use stays, and is all there is. */
Test(stack_set, bounded)
{
        static Stack *used[2000];
        Stack *stack, *first;
        unsigned n = 0;

        cr_assert_eq(get_large(0, &first), 0);
        stack_ref(first);
        for (n = 1; n < 3000; n++) {
                cr_assert_eq(get_large(n, &stack), 0);
                cr_assert_leq(set.n_bytes, STACK_SET_BYTES_MAX);
                if (n == 2000) {
                        cr_assert_eq(get_large(1999, &stack), 0);
                        cr_assert_eq(get_large(1500, &stack), 0);
                        cr_assert_eq(get_large(0, &stack), 0);
                        cr_assert_eq(stack, first);
                }
        }
        for (n = 0; get_large(10000 + n, &stack) == 0; n++)
                used[n] = stack_ref(stack);
        cr_assert_gt(n, 800);
        cr_assert_lt(n, 1050);
        cr_assert_eq(get_large(20000, &stack), STACK_SET_E_FULL);
        cr_assert_eq(get_large(10000, &stack), 0);
        stack_unref(used[--n]);
        cr_assert_eq(get_large(20000, &stack), 0);
        /* They outlive the set. */
        stack_set_deinit(&set);
        cr_assert_eq(strlen(first->signatures[0]), 1000);
        while (n > 0)
                stack_unref(used[--n]);
        stack_unref(first);
        stack_set_init(&set);
}
