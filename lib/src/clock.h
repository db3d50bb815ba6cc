/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#define NS_PER_MS 1000000ULL
#define NS_PER_S  1000000000ULL

/* CLOCK_MONOTONIC. Neither this nor the other is a system call: both are read through the vDSO. */
uint64_t clock_mono_ns(void);

/* The same as of the last tick of the kernel's timer: cheaper, and behind by some milliseconds. */
uint64_t clock_coarse_ns(void);
