/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "symbol/kallsyms.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(kallsyms_freep) Kallsyms *k = NULL;
        const char *name;

        if (kallsyms_parse(&k, (const char *)data, size) != 0)
                abort();
        for (uint64_t addr = 1; addr != 0; addr <<= 1) {
                name = kallsyms_find(k, addr);
                if (name && strlen(name) > size)
                        abort();
                name = kallsyms_find(k, UINT64_MAX - addr);
                if (name && strlen(name) == 0)
                        abort();
        }
        return 0;
}
