/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "core/core.h"
#include "core/keep.h"
#include "store/database.h"

/*
 * A piece of work for the store's thread. It holds copies of all that it needs; of stacks, which
 * are READY and so do not change, references, which are taken and dropped by the main thread.
 */

typedef struct Op Op;

/* What is not of the spool: work with data of its own, which the op owns. */
typedef struct OpWork {
        /* Inside of a transaction; may be called again after a failure. Return: 0, DATABASE_E_FAILED. */
        int (*run)(void *data, Database *d, uint64_t max_bytes);
        /* Main thread: tells whoever waits for it. */
        void (*answer)(void *data, bool failed);
        void (*free)(void *data);
        bool only_reads;
} OpWork;

/* Return: NULL: no memory. */
Op *op_new_record(const KeepRecord *record, KeepRecorded done, void *userdata);
Op *op_new_load(size_t n, KeepLoaded done, void *userdata);
Op *op_new_instance(const Instance *i, int64_t now_wall_ms);
Op *op_new_task(const Task *task);
Op *op_new_task_end(const char *service, const char *instance, const char *task_id,
        KeptTaskState state, int64_t now_wall_ms);
/* Takes the data over, also if there is no memory. */
Op *op_new_work(const OpWork *work, void *data);
/* On the main thread. */
Op *op_free(Op *op);

/* Whether losing it would let a snapshot be sent twice. */
bool op_is_durable(const Op *op);
/* Inside of a transaction. May be called again after a failure. Return: 0, DATABASE_E_FAILED. */
int op_do(Op *op, Database *d, uint64_t max_bytes);
/* Whether it only reads. */
bool op_is_load(const Op *op);
void op_fail(Op *op);
/* The same for good: there is no database any more. Who reads learns that nothing is there. */
void op_fail_for_good(Op *op);
/* Main thread: tells whoever waits for it. */
void op_answer(Op *op);
