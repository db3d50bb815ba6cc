/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "fuzz.h"
#include "unwind/cfi-go-code.h"

/*
 * The first CODE_SIZE bytes are code, which each function has, the others a function table: whatever
 * they are, rows ascend and stay within the function.
 */

enum {
        CODE_SIZE = 192,
        FUNCTIONS_MAX = 64,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        GoTable t;

        if (size < CODE_SIZE || !go_table_init(&t, data + CODE_SIZE, size - CODE_SIZE))
                return 0;
        for (size_t i = 0; i < t.n_functions && i < FUNCTIONS_MAX; i++) {
                uint64_t start, end, at;
                const CfiRule *rule;
                GoFunction f;
                GoProgram p;

                if (!go_table_function(&t, i, &f))
                        continue;
                at = f.start;
                go_program_init(&p, &t, &f,
                        (CfiBytes){.p = data, .end = data + CODE_SIZE, .vaddr = f.start});
                while (go_program_next(&p, &start, &end, &rule) == 0) {
                        if (start < at || end <= start || end > f.end ||
                                rule->cfa > CFI_CFA_GO_CALLER)
                                abort();
                        at = end;
                }
        }
        return 0;
}
