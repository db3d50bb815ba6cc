/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/time.h"

/*
 * Which thread a client means: a tid as the client's pid namespace numbers it, found among the
 * threads of the client's process, as the daemon's namespace numbers it. Every answer was looked up
 * in /proc just now.
 */

#define THREAD_MAP_MAX_THREADS 65536
#define THREAD_MAP_CACHE       1024

typedef struct ThreadMap {
        pid_t pid;
        /* Of a process in another pid namespace: where a tid was found the last time; NULL: the
         * same namespace. */
        struct {
                pid_t theirs, ours;
        } * cache;
        /* Searching costs up to a file per thread: a client gets a small share of our time for it.
         */
        int64_t search_budget_ns;
        uint64_t budget_mono_ns;
} ThreadMap;

enum {
        _THREAD_MAP_E_SUCCESS,
        THREAD_MAP_E_UNKNOWN, /* no such thread (any more) */
};

/* Return: 0, THREAD_MAP_E_UNKNOWN: there is no such process, -ENOMEM. */
int thread_map_init(ThreadMap *ret, pid_t pid);
void thread_map_deinit(ThreadMap *m);

/* Return: 0, THREAD_MAP_E_UNKNOWN, -ENOMEM. */
int thread_map_find(ThreadMap *m, pid_t theirs, pid_t *ret_tid);
