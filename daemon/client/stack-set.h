/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

#include "core/stack.h"
#include "util/hash.h"
#include "util/list.h"

/*
 * The stacks that a client has given, each content once: a program waits in few places, again and
 * again. What one client can have in use is bounded.
 */

#define STACK_SET_BYTES_MAX (1024 * 1024)

typedef struct StackSet {
        HashTable by_content;
        ListLink stacks; /* the one that was given last at the end */
        size_t n_bytes;
} StackSet;

enum {
        _STACK_SET_E_SUCCESS,
        STACK_SET_E_FULL, /* all of it is in use */
};

void stack_set_init(StackSet *s);
/* The stacks live on with whoever has a reference. */
void stack_set_deinit(StackSet *s);

/* A READY stack of that content, borrowed until the next call. Return: 0, STACK_SET_E_FULL, -ENOMEM. */
int stack_set_get(StackSet *s, Stack **ret, size_t n, const char *const *signatures);
