/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "clock.h"

static uint64_t clock_ns(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
        return clock_ns(CLOCK_MONOTONIC);
}

uint64_t clock_coarse_ns(void)
{
        return clock_ns(CLOCK_MONOTONIC_COARSE);
}
