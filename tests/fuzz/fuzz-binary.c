/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "symbol/binary.h"
#include "symbol/signature.h"

static void check_frame(const SymbolFrame *frame)
{
        _cleanup_(freep) char *s = signature_native("fuzz", frame, true);

        if (!s || strlen(s) == 0)
                abort();
}

/* A file, asked of at the addresses that its own symbols and segments have. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(binary_freep) Binary *b = NULL;
        SymbolFrame frames[SYMBOL_MAX_INLINE];
        BinarySegment segments[8];
        size_t n_segments;

        if (binary_new_memory(&b, data, size, "fuzz") != 0)
                return 0;
        n_segments = binary_segments(b, segments, 8);
        for (size_t i = 0; i < n_segments; i++)
                for (uint64_t at = 0; at < segments[i].filesz && at < 1024; at += 7) {
                        size_t n = binary_symbolize(b, segments[i].vaddr + at, at % 2 == 0, frames,
                                1 + at % SYMBOL_MAX_INLINE);

                        if (n < 1 || n > 1 + at % SYMBOL_MAX_INLINE)
                                abort();
                        for (size_t k = 0; k < n; k++)
                                check_frame(&frames[k]);
                }
        return 0;
}
