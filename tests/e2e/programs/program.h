/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "swprof.h"

/* Helpers of the instrumented test programs: they say what is true, one JSON object a line. */

#define NOINLINE __attribute__((noinline))

/* Keeps a call from becoming a jump (tail call), so that its caller stays on the stack. */
#define NO_TAIL_CALL() __asm__ volatile("" ::: "memory")

static inline uint64_t clock_ns(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline double now_wall_ms(void)
{
        return (double)clock_ns(CLOCK_REALTIME) / 1e6;
}

static inline void sleep_ms(unsigned ms)
{
        struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

        while (nanosleep(&t, &t) < 0)
                ;
}

/* For how long the program is to sleep where a real machine would for that long (SWPROFD_TEST_SLOW). */
static inline unsigned slow_ms(unsigned ms)
{
        const char *slow = getenv("SWPROFD_TEST_SLOW");

        return slow ? ms * (unsigned)atoi(slow) : ms;
}

static inline struct swprof *connect_daemon(const char *service, const char *instance)
{
        struct swprof_options options = {};
        struct swprof *c = NULL;

        options.size = sizeof(options);
        options.service = service;
        options.instance = instance;
        if (swprof_open(&c, &options) < 0) {
                fputs("swprof_open failed\n", stderr);
                exit(1);
        }
        return c;
}

/* Until a task watches the operation (any task: at most 30 s). */
static inline void wait_watched(struct swprof *c, const char *operation)
{
        for (unsigned i = 0; i < 3000 && swprof_watched(c, operation) <= 0; i++)
                sleep_ms(10);
        if (swprof_watched(c, operation) <= 0) {
                fputs("no task came\n", stderr);
                exit(1);
        }
}

static inline void start_span(struct swprof *c, struct swprof_span *span, const char *operation)
{
        int r = swprof_span_start(c, span, NULL, operation);

        if (r != 1) {
                fprintf(stderr, "swprof_span_start: %d\n", r);
                exit(1);
        }
}
