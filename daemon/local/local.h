/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"
#include "core/results.h"
#include "core/task-source.h"
#include "util/cleanup.h"
#include "util/time.h"

/*
 * The local backend: tasks that swprofctl makes, for a service each, and what they yield, kept on
 * this host. A backend beside oap, see core/task-source.h. Main thread.
 *
 * A task is offered to every instance of its service that there is, and to those that come until
 * its end. It is over at its end, when it is stopped, or when as many of its segments are over as it
 * asks for, whichever instances these were of. As at the OAP, a service has one task at a time.
 *
 * What is to be kept is gathered for some 100 ms, and handed over as a batch, one at a time. While
 * that fails it is tried again, and what comes is held in memory, up to a bound; beyond that,
 * snapshots are not taken.
 */

typedef struct Local Local;

/* `config`, `core` and `results` are borrowed. Return: 0, -ENOMEM. */
int local_new(Local **ret, const Config *config, Core *core, const Results *results);
Local *local_free(Local *l);
DEFINE_CLEANUP(Local *, local_free)

const TaskSource *local_source(const Local *l);

/* ---- tasks ---- */

typedef struct LocalTaskSpec {
        const char *service, *endpoint;
        int64_t duration_ms, threshold_ms, period_ms, max_sampling_count;
} LocalTaskSpec;

enum {
        _LOCAL_E_SUCCESS,
        LOCAL_E_REFUSED, /* see *ret_error */
};

/*
 * Begins one now. `ret_id` has room for RESULT_TASK_ID_SIZE. Return: 0; LOCAL_E_REFUSED with
 * *ret_error, malloc'ed: a value is out of bounds, the service has a task already; -ENOMEM.
 */
int local_task_start(Local *l, const LocalTaskSpec *spec, char *ret_id, char **ret_error, Now now);
/* Ends it with what it has. Return: 0; LOCAL_E_REFUSED: there is none, or it is over; -ENOMEM. */
int local_task_stop(Local *l, const char *id, char **ret_error, Now now);

/* Snapshots that are not on record yet. */
size_t local_n_pending(const Local *l);

/* ---- what a former daemon has left: tasks first, before anything else ---- */

/* `last`: its number is the highest, it may be over. Return: 0, -ENOMEM. */
int local_restore_task(Local *l, const ResultTask *task, Now now);
/* Of such a task, with so many snapshots. Return: 0, -ENOMEM. */
int local_restore_segment(Local *l, const ResultSegment *segment, int32_t n_snapshots,
        int64_t first_wall_ms, int64_t last_wall_ms, Now now);
