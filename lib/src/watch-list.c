/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "swprof.h"
#include "text.h"
#include "watch-list.h"

WatchList *watch_list_new(WireSlice watch)
{
        WireSlice counted = watch, operation;
        size_t n = 0, text_size = 0;
        WatchList *l;
        char *text;

        while (wire_next_operation(&counted, &operation)) {
                n++;
                text_size += operation.size;
        }
        l = malloc(sizeof(*l) + n * sizeof(l->operations[0]) + text_size);
        if (!l)
                return NULL;
        l->n = 0;
        text = (char *)&l->operations[n];
        while (wire_next_operation(&watch, &operation)) {
                if (operation.size < 1 || operation.size > SWPROF_OPERATION_MAX ||
                        !text_is_valid(operation.bytes, operation.size))
                        continue;
                memcpy(text, operation.bytes, operation.size);
                l->operations[l->n].hash = text_hash(text, operation.size);
                l->operations[l->n].size = (uint32_t)operation.size;
                l->operations[l->n].text = text;
                l->n++;
                text += operation.size;
        }
        return l;
}

bool watch_list_has(const WatchList *l, const char *operation, size_t size)
{
        uint32_t hash = text_hash(operation, size);

        for (size_t i = 0; i < l->n; i++)
                if (l->operations[i].hash == hash && l->operations[i].size == size &&
                        memcmp(l->operations[i].text, operation, size) == 0)
                        return true;
        return false;
}
