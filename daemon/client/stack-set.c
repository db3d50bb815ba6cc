/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/stack-set.h"
#include "util/error.h"

typedef struct Entry {
        HashLink by_content;
        ListLink link;
        Stack *stack;
        size_t n_bytes;
} Entry;

void stack_set_init(StackSet *s)
{
        *s = (StackSet){0};
        list_init(&s->stacks);
}

static void entry_drop(StackSet *s, Entry *e)
{
        hash_table_remove(&s->by_content, &e->by_content);
        list_remove(&e->link);
        s->n_bytes -= e->n_bytes;
        stack_unref(e->stack);
        free(e);
}

void stack_set_deinit(StackSet *s)
{
        Entry *e, *tmp;

        list_for_each_safe (e, tmp, &s->stacks, link)
                entry_drop(s, e);
        hash_table_deinit(&s->by_content);
}

static bool is_content(const Stack *stack, size_t n, const char *const *signatures)
{
        if (stack->n_signatures != n)
                return false;
        for (size_t i = 0; i < n; i++)
                if (strcmp(stack->signatures[i], signatures[i]) != 0)
                        return false;
        return true;
}

/* Return: whether there is that much room now. */
static bool make_room(StackSet *s, size_t n_bytes)
{
        Entry *e, *tmp;

        if (s->n_bytes + n_bytes <= STACK_SET_BYTES_MAX)
                return true;
        list_for_each_safe (e, tmp, &s->stacks, link) {
                if (e->stack->n_refs > 1)
                        continue;
                entry_drop(s, e);
                if (s->n_bytes + n_bytes <= STACK_SET_BYTES_MAX)
                        return true;
        }
        return false;
}

static int entry_new(StackSet *s, Stack **ret, uint64_t hash, size_t n_bytes, size_t n,
        const char *const *signatures)
{
        _cleanup_(stack_unrefp) Stack *stack = stack_new();
        _cleanup_(freep) Entry *e = calloc(1, sizeof(*e));
        int r;

        if (!stack || !e)
                return error_origin(-ENOMEM);
        r = stack_set_ready(stack, n, signatures);
        if (r)
                return error_trace(r);
        r = hash_table_add(&s->by_content, &e->by_content, hash);
        if (r)
                return error_trace(r);
        *ret = stack;
        e->stack = TAKE_PTR(stack);
        e->n_bytes = n_bytes;
        s->n_bytes += n_bytes;
        list_append(&s->stacks, &e->link);
        TAKE_PTR(e);
        return 0;
}

int stack_set_get(StackSet *s, Stack **ret, size_t n, const char *const *signatures)
{
        size_t n_bytes = sizeof(Entry) + sizeof(Stack);
        uint64_t hash = n;
        int r;

        for (size_t i = 0; i < n; i++) {
                hash = hash_u64(hash ^ hash_string(signatures[i]));
                n_bytes += sizeof(char *) + strlen(signatures[i]) + 1;
        }
        for (HashLink *l = hash_table_find(&s->by_content, hash); l; l = hash_link_next(l)) {
                Entry *e = container_of(l, Entry, by_content);

                if (!is_content(e->stack, n, signatures))
                        continue;
                list_remove(&e->link);
                list_append(&s->stacks, &e->link);
                *ret = e->stack;
                return 0;
        }
        if (!make_room(s, n_bytes))
                return STACK_SET_E_FULL;
        r = entry_new(s, ret, hash, n_bytes, n, signatures);
        return error_trace(r);
}
