/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the daemon takes: UTF-8 without control characters. It drops a client that sends others. */
bool text_is_valid(const void *text, size_t size);

/* A string of 1 to `max` bytes that is valid. */
bool text_fits(const char *s, size_t max);

uint32_t text_hash(const void *text, size_t size);
