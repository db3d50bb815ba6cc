/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/stack.h"
#include "util/error.h"

Stack *stack_new(void)
{
        Stack *s = calloc(1, sizeof(*s));

        if (s)
                s->n_refs = 1;
        return s;
}

Stack *stack_ref(Stack *s)
{
        s->n_refs++;
        return s;
}

Stack *stack_unref(Stack *s)
{
        if (s && --s->n_refs == 0) {
                free(s->signatures);
                free(s->kinds);
                free(s);
        }
        return NULL;
}

int stack_set_ready(Stack *s, size_t n, const char *const *signatures)
{
        size_t size = n * sizeof(*s->signatures);
        char **copy, *p;

        assert(s->state == STACK_PENDING && n > 0);
        for (size_t i = 0; i < n; i++)
                size += strlen(signatures[i]) + 1;
        copy = malloc(size);
        if (!copy)
                return error_origin(-ENOMEM);
        p = (char *)(copy + n);
        for (size_t i = 0; i < n; i++) {
                copy[i] = p;
                p = stpcpy(p, signatures[i]) + 1;
        }
        s->signatures = copy;
        s->n_signatures = n;
        s->state = STACK_READY;
        return 0;
}

void stack_take_kinds(Stack *s, uint8_t *kinds)
{
        assert(s->state == STACK_READY && !s->kinds);
        s->kinds = kinds;
}

void stack_set_failed(Stack *s)
{
        /* What has a name keeps it. */
        if (s->state == STACK_PENDING)
                s->state = STACK_FAILED;
}
