/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"
#include "core/stack.h"
#include "manager/sampler.h"
#include "manager/worker.h"
#include "util/cleanup.h"

/*
 * The sampler's stack ids → the core's stacks. An id's frames go to the worker to be named; until
 * its answer is here the Stack is PENDING. An id lives as long as it is its target's newest (it may
 * be repeated), or is not named yet. Main thread.
 */

typedef struct StackTable StackTable;

/* Return: 0, -ENOMEM. */
int stack_table_new(StackTable **ret, Worker *worker);
StackTable *stack_table_free(StackTable *t);
DEFINE_CLEANUP(StackTable *, stack_table_free)

/* The stack that a sample of `target` names. Borrowed. NULL: no memory. */
Stack *stack_table_sample(StackTable *t, TargetId target, uint64_t stack_id);

/* Takes a SAMPLER_STACK event over: frames go to the worker, a failed stack is marked so, and one
 * that nothing waits for any more is dropped. When too much waits for the worker, the stack fails:
 * counted. Return: 0, -ENOMEM. */
int stack_table_frames(StackTable *t, SamplerEvent *event);

/* Takes the worker's answers, and sends it what had to wait. Call when worker_stacks() is readable.
 */
void stack_table_dispatch(StackTable *t);

/* Stacks wait for room in the worker's mailbox. It may be full of requests that answer nothing here:
 * then nobody calls, and they are to be sent every now and then. */
bool stack_table_waits(const StackTable *t);
void stack_table_send(StackTable *t);

/* No samples of this target any more, save those on their way: it is forgotten some time later. */
void stack_table_target_removed(StackTable *t, TargetId target, uint64_t now_mono_ns);
void stack_table_expire(StackTable *t, uint64_t now_mono_ns);

/* Stacks that are still being named. */
unsigned stack_table_n_pending(const StackTable *t);
