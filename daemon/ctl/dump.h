/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `swprofctl dump`: the stacks of a process' threads, or of one thread, now. */

/* The process, and the thread or 0, that the number names. Return: whether it is one. */
bool dump_parse(const char *number, int32_t *ret_pid, int32_t *ret_tid);

/* A profile's first samples as text, or as JSON; malloc'ed. NULL: it is no profile. */
char *dump_show(const void *profile, size_t size, bool json, bool colour);
