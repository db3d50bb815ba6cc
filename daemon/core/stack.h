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

/* What a signature stands for. The numbers are those of profile.proto. */
typedef enum StackKind {
        STACK_KIND_UNKNOWN,
        STACK_KIND_PYTHON,
        STACK_KIND_NATIVE,
        STACK_KIND_KERNEL,
        STACK_KIND_WAITING,   /* no function: what the thread waits for */
        STACK_KIND_ANONYMOUS, /* native, of a mapping without a file */
} StackKind;

typedef struct Stack {
        unsigned n_refs;
        StackState state;
        size_t n_signatures;
        char **signatures; /* outermost first; one allocation with the strings behind the pointers
                            */
        uint8_t *kinds;    /* StackKind of each signature; NULL: not known */
} Stack;

Stack *stack_new(void); /* STACK_PENDING, one reference; NULL: no memory */
Stack *stack_ref(Stack *s);
Stack *stack_unref(Stack *s);
DEFINE_CLEANUP(Stack *, stack_unref)

/* Copies the signatures in. Return: 0, -ENOMEM. */
int stack_set_ready(Stack *s, size_t n, const char *const *signatures);
/* Of one that is ready: as many as it has signatures, malloc'ed, taken over. */
void stack_take_kinds(Stack *s, uint8_t *kinds);
void stack_set_failed(Stack *s);
