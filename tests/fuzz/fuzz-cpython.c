/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "runtime/cpython-binary.h"
#include "runtime/cpython-lines.h"
#include "runtime/cpython-merge.h"
#include "runtime/cpython-text.h"
#include "unwind/module.h"

/* What a target may say: the first byte tells what the rest is. */

static void fuzz_lines(unsigned minor, const uint8_t *data, size_t size)
{
        for (int64_t unit = -1; unit < 300; unit++)
                if (cpython_line(minor, data, size, 1, unit) < 0)
                        abort();
}

static void fuzz_text(const uint8_t *data, size_t size)
{
        const CpythonLayout layout = {.text_ascii = 40, .text_compact = 56};
        CpythonText text;
        char *utf8;

        if (size < CPYTHON_TEXT_HEAD || cpython_text_head(&text, &layout, data))
                return;
        if (text.n * text.kind > size - CPYTHON_TEXT_HEAD)
                return;
        utf8 = cpython_text_decode(&text, data + CPYTHON_TEXT_HEAD);
        if (!utf8 || strlen(utf8) > 4 * text.n)
                abort();
        free(utf8);
}

static void fuzz_layout(const uint8_t *data, size_t size)
{
        CpythonLayout l;

        if (cpython_layout_parse(&l, data, size))
                return;
        if (l.walk.frame_bytes > SWP_PYTHON_BLOCK || l.walk.code_bytes > SWP_PYTHON_BLOCK ||
                l.walk.tstate_bytes > SWP_PYTHON_BLOCK)
                abort();
}

/* Bytes → frames of either kind. */
static void fuzz_merge(unsigned minor, bool mixed, const uint8_t *data, size_t size)
{
        static CpythonBinary binary = {.n_ranges = 1, .ranges = {{0, 64}}};
        static Module modules[] = {{.name = (char *)"python", .python = &binary},
                {.name = (char *)"greenlet"}, {.name = (char *)"libc"}};
        struct swp_python_frame functions[64];
        size_t n_native = 0, n_python = 0, n;
        Frame frames[64], merged[64];
        CpythonLayout l;
        CpythonMerge m;
        int r;

        if (cpython_layout_known(&l, minor))
                return;
        for (size_t i = 0; i + 1 < size && i < 128; i += 2) {
                if (data[i] & 128 && n_python < 64)
                        functions[n_python++] =
                                (struct swp_python_frame){.code = data[i] & 3 ? 8 : 0,
                                        .instr = data[i + 1],
                                        .owner = data[i] >> 2 & 3};
                else if (n_native < 64)
                        frames[n_native++] = (Frame){.module = &modules[data[i] % 3],
                                .vaddr = data[i] & 127,
                                .sp = data[i + 1]};
        }
        m = (CpythonMerge){.layout = &l,
                .mixed = mixed,
                .partial = size & 1,
                .truncated = (size & 3) == 3,
                .n_native = n_native,
                .native = frames,
                .n_python = n_python,
                .python = functions};
        r = cpython_merge(&m, merged, 64, &n);
        if (r == 0 || r == CPYTHON_MERGE_E_NO_ENTRY)
                for (size_t i = 0; i < n; i++)
                        if (merged[i].kind == FRAME_PYTHON && merged[i].vaddr >= n_python)
                                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size < 1)
                return 0;
        switch (data[0] & 7) {
        case 0:
                fuzz_text(data + 1, size - 1);
                break;
        case 1:
                fuzz_layout(data + 1, size - 1);
                break;
        case 2:
        case 3:
                fuzz_merge(8 + (data[0] >> 3) % 5, data[0] & 1, data + 1, size - 1);
                break;
        default:
                fuzz_lines(9 + (data[0] & 3), data + 1, size - 1);
        }
        return 0;
}
