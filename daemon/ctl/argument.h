/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Values of options. Return: whether it is one. */

/* 1 to 3600. */
bool argument_timeout(const char *s, unsigned *ret_s);
/* "10", "2.5s", "500ms", "5m": up to an hour. */
bool argument_duration(const char *s, uint32_t *ret_ms);
/* 0 to 100. */
bool argument_percent(const char *s, double *ret);
/* 1 to a million. */
bool argument_number(const char *s, unsigned *ret);
