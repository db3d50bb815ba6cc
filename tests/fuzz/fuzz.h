/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* What each fuzzer defines: libFuzzer's entry, which replay.c calls as well. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
