/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "util/cleanup.h"

/* Kernel functions by address, from the text of /proc/kallsyms (pure parser: addresses all zero
 * without the right). */
typedef struct Kallsyms Kallsyms;

/* At most 64 MiB of text are looked at. Return: 0, -ENOMEM, -errno of reading. */
int kallsyms_load(Kallsyms **ret);
int kallsyms_parse(Kallsyms **ret, const char *text, size_t size);
Kallsyms *kallsyms_free(Kallsyms *k);
DEFINE_CLEANUP(Kallsyms *, kallsyms_free)

/* Borrowed; NULL: unknown. */
const char *kallsyms_find(const Kallsyms *k, uint64_t addr);
