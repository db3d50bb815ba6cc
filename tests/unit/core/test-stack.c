/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "core/stack.h"

Test(stack, ready)
{
        char name[] = "main";
        Stack *s = stack_new();

        cr_assert_eq(s->state, STACK_PENDING);
        cr_assert_eq(stack_set_ready(s, 3, (const char *[]){name, "", "leaf"}), 0);
        /* The names are its own. */
        name[0] = 'x';
        cr_assert_eq(s->state, STACK_READY);
        cr_assert_eq(s->n_signatures, 3);
        cr_assert_str_eq(s->signatures[0], "main");
        cr_assert_str_eq(s->signatures[1], "");
        cr_assert_str_eq(s->signatures[2], "leaf");
        cr_assert_eq(stack_ref(s), s);
        cr_assert_null(stack_unref(s));
        cr_assert_str_eq(s->signatures[2], "leaf");
        stack_unref(s);
}

Test(stack, failed)
{
        Stack *s = stack_new();

        stack_set_failed(s);
        cr_assert_eq(s->state, STACK_FAILED);
        stack_unref(s);

        s = stack_new();
        cr_assert_eq(stack_set_ready(s, 1, (const char *[]){"main"}), 0);
        stack_set_failed(s);
        cr_assert_eq(s->state, STACK_READY);
        stack_unref(s);
        cr_assert_null(stack_unref(NULL));
}
