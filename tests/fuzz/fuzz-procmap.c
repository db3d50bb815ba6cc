/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "unwind/procmap.h"

/* Text of /proc/PID/maps: what is accepted is in order. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(procmap_unrefp) ProcMap *map = NULL;

        if (procmap_parse(&map, (const char *)data, size) != 0)
                return 0;
        for (size_t i = 0; i < map->n; i++) {
                const Mapping *m = &map->mappings[i];

                if (m->start >= m->end || (i > 0 && m[-1].end > m->start) ||
                        strlen(m->name) > size || procmap_find(map, m->start) != m ||
                        procmap_find(map, m->end - 1) != m)
                        abort();
        }
        procmap_find(map, 0);
        procmap_find(map, UINT64_MAX);
        return 0;
}
