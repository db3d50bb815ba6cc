/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "oap/sw8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *header = strndup((const char *)data, size);
        Sw8 sw8;

        if (!header)
                return 0;
        if (sw8_parse(&sw8, header) == 0) {
                if (sw8.span_id < 0 || strlen(sw8.trace_id) + strlen(sw8.segment_id) > size)
                        abort();
                free(sw8.texts);
        }
        free(header);
        return 0;
}
