/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * A stack as the core sees it: an id until the symbolizer has named it, then code signatures,
 * outermost first. Counted references; main thread only. Many samples share one stack.
 */

typedef enum StackState {
        STACK_PENDING, /* being unwound or symbolized */
        STACK_READY,   /* signatures are there, at least one */
        STACK_FAILED,  /* could not be had; counted by whoever found out */
} StackState;

typedef struct Stack {
        unsigned n_refs;
        StackState state;
        size_t n_signatures;
        char **signatures; /* outermost first; one allocation with the strings behind the pointers
                            */
} Stack;

Stack *stack_new(void); /* STACK_PENDING, one reference; NULL: no memory */
Stack *stack_ref(Stack *s);
Stack *stack_unref(Stack *s);
DEFINE_CLEANUP(Stack *, stack_unref)

/* Copies the signatures in. Return: 0, -ENOMEM. */
int stack_set_ready(Stack *s, size_t n, const char *const *signatures);
void stack_set_failed(Stack *s);
