/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "capture/capture-bpf.h"

/*
 * A perf event of one thread that fires once for each request: a task clock of 10 µs, disabled,
 * whose refresh count is 1. Refreshes add up, so the count is given only when the last one was used
 * up; what a cancelled shot leaves over serves the next. Private to this folder.
 */

typedef struct Shot {
        int perf_fd, link_fd; /* -1: not opened yet */
        bool out;             /* fired, and neither answered nor cancelled */
        bool left_over;       /* the refresh count is 1 still */
} Shot;

#define SHOT_INIT                            \
        {                                    \
                .perf_fd = -1, .link_fd = -1 \
        }

/* Opens the event at the first call. `slot` has its request already. Return: 0, -errno (-ESRCH: the
 * thread is gone). */
int shot_fire(Shot *s, CaptureBpf *b, pid_t tid, uint32_t slot);
/* It has been answered. */
void shot_answered(Shot *s);
/* When this returns the program does not run any more; it may have answered before. */
void shot_stop(Shot *s);
/* It was stopped without an answer. */
void shot_unanswered(Shot *s);
void shot_deinit(Shot *s);
