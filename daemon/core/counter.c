/* SPDX-License-Identifier: Apache-2.0 */
#include "core/counter.h"

_Atomic uint64_t counter_values[N_COUNTERS];

const char *counter_name(CounterId id)
{
        static const char *const names[] = {
#define X(id, name, help) name,
                COUNTERS(X)
#undef X
        };

        return names[id];
}

const char *counter_help(CounterId id)
{
        static const char *const helps[] = {
#define X(id, name, help) help,
                COUNTERS(X)
#undef X
        };

        return helps[id];
}
