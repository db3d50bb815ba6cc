/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Values of options. Return: whether it is one. */

bool parse_timeout(const char *s, unsigned *ret);
/* "10", "2.5s", "500ms", "5m", up to an hour. */
bool parse_duration(const char *s, uint32_t *ret_ms);
/* The same, or 0. */
bool parse_threshold(const char *s, uint32_t *ret_ms);
bool parse_percent(const char *s, double *ret);
bool parse_depth(const char *s, unsigned *ret);
