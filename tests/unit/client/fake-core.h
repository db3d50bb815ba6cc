/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/core.h"

/* A core that follows nothing: it writes down each call as one line, and answers what it was told
 * to. */

extern char fake_log[16384];
extern int fake_result;           /* of the next span calls */
extern Instance *fake_instance;   /* the last one attached, or NULL */
extern SpanStartEvent fake_start; /* the last one; its strings are gone */
extern uint64_t fake_time;        /* of the last stop or switch */
extern unsigned fake_n_segments;  /* of every client */

void fake_watch(unsigned n, const char **operations);

/* The log, emptied: valid until the next call. */
const char *fake_take(void);
