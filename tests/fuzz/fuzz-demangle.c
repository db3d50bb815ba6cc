/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "symbol/binary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(freep) char *name = strndup((const char *)data, size), *text = NULL;

        if (!name)
                return 0;
        text = symbol_demangle(name);
        if (!text || strlen(text) > 4096 + strlen("@plt"))
                abort();
        return 0;
}
