/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/*
 * Stands in for the library's clock.c. Both clocks show fake_now_ns, and each look at the coarse
 * one moves it on by fake_tick_ns.
 */
extern _Atomic uint64_t fake_now_ns;
extern _Atomic uint64_t fake_tick_ns;
