/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "oap/backend.h"
#include "oap/buffer.h"
#include "util/list.h"

/*
 * Reports of finished tasks: each waits for the last snapshot of its task to leave the buffer, and
 * is then repeated until the backend has taken it, for an hour at most. A repetition does no harm
 * there.
 */

typedef struct Finish Finish;

typedef struct Finishes {
        Backend *backend;
        const Buffer *buffer;
        const Keep *keep; /* NULL: nothing is on record */
        ListLink queue;
        size_t n;
        Finish *calling; /* of the queue; NULL: none is being reported */
        uint64_t started_mono_ns;
} Finishes;

void finishes_init(Finishes *f, Backend *backend, const Buffer *buffer, const Keep *keep);
/* After the backend's calls were cancelled. */
void finishes_deinit(Finishes *f);

/* Return: 0, -ENOMEM, -ENOBUFS: too many wait. */
int finishes_add(Finishes *f, const char *service, const char *instance, const char *task_id);

bool finishes_idle(const Finishes *f);
uint64_t finishes_next_mono_ns(const Finishes *f);
void finishes_step(Finishes *f);
