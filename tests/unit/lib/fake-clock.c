/* SPDX-License-Identifier: Apache-2.0 */
#include "fake-clock.h"
#include "clock.h"

_Atomic uint64_t fake_now_ns = 1000 * NS_PER_S;
_Atomic uint64_t fake_tick_ns;

uint64_t clock_mono_ns(void)
{
        return fake_now_ns;
}

uint64_t clock_coarse_ns(void)
{
        return fake_now_ns += fake_tick_ns;
}
