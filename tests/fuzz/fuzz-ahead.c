/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "fuzz.h"
#include "unwind/code-ahead.h"

/* Code of a target: whatever it is, it is looked through once. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Ahead a = code_ahead(data, size);

        if (a.kind > AHEAD_FRAME || (a.kind == AHEAD_UNKNOWN && a.cfa_offset != 0))
                abort();
        return 0;
}
