/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "watch-list.h"
#include "wire.h"

/* The client library's reading of what the daemon sends. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        WireSlice operation;
        WatchList *list;
        WireReply reply;

        if (size > WIRE_RECEIVE_MAX || !wire_parse(&reply, data, size))
                return 0;
        if (reply.type != WIRE_WATCH)
                return 0;
        list = watch_list_new(reply.watch);
        if (!list)
                return 0;
        for (size_t i = 0; i < list->n; i++)
                if (!watch_list_has(list, list->operations[i].text, list->operations[i].size))
                        abort();
        while (wire_next_operation(&reply.watch, &operation))
                watch_list_has(list, (const char *)operation.bytes, operation.size);
        free(list);
        return 0;
}
