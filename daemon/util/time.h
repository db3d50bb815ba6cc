/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>
#include <time.h>

/* Times are plain integers whose names say clock and unit: x_mono_ns (CLOCK_MONOTONIC), x_wall_ms
 * (CLOCK_REALTIME). */

#define NS_PER_US 1000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_S  1000000000ULL

/* One instant on both clocks. Pure code gets it as a parameter, so that tests can invent it. */
typedef struct Now {
        uint64_t mono_ns;
        int64_t wall_ms;
        uint32_t wall_rest_ns; /* beyond wall_ms */
} Now;

static inline uint64_t timespec_ns(const struct timespec *t)
{
        return (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_nsec;
}

static inline uint64_t clock_ns(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return timespec_ns(&t);
}

static inline uint64_t mono_now_ns(void)
{
        return clock_ns(CLOCK_MONOTONIC);
}

static inline uint64_t wall_now_ns(void)
{
        return clock_ns(CLOCK_REALTIME);
}

static inline Now now_get(void)
{
        uint64_t mono_ns = mono_now_ns(), wall_ns = wall_now_ns();

        return (Now){.mono_ns = mono_ns,
                .wall_ms = (int64_t)(wall_ns / NS_PER_MS),
                .wall_rest_ns = (uint32_t)(wall_ns % NS_PER_MS)};
}
