/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/* The operations that somebody wants profiled. A handful, mostly. */

typedef struct WatchList {
        size_t n;
        struct {
                uint32_t hash;
                uint32_t size;
                const char *text; /* not terminated */
        } operations[];
} WatchList;

/* Operations that no span can have are left out. Return: NULL: no memory. */
WatchList *watch_list_new(WireSlice watch);

bool watch_list_has(const WatchList *l, const char *operation, size_t size);
