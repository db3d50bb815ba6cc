/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "unwind/cfi-go.h"

/* Go's src/internal/abi/symtab.go, src/runtime/symtab.go and runtime2.go (_func). */

enum {
        MAGIC_1_18 = 0xf0,
        MAGIC_1_20 = 0xf1,
        QUANTUM = 1,
        POINTER = 8,
        HEADER_SIZE = 72,
        FUNCTION_NAME_AT = 4,
        FUNCTION_VALUES_AT = 16,
        FUNCTION_FLAG_AT_1_18 = 37,
        FUNCTION_FLAG_AT_1_20 = 41,

        FLAG_SETS_SP = 2,
        FRAME_MAX = 1 << 30,
        NUMBER_BYTES_MAX = 5, /* of 32 bits, 7 in each */
};

static uint64_t u64_at(const uint8_t *p)
{
        uint64_t value;

        memcpy(&value, p, sizeof(value)); /* little endian, as this machine */
        return value;
}

static uint32_t u32_at(const uint8_t *p)
{
        uint32_t value;

        memcpy(&value, p, sizeof(value));
        return value;
}

/* Functions ascend, and so do not overlap: what is behind the first that does not is not believed. */
static size_t table_ascends(const GoTable *t)
{
        size_t n = 0;

        while (n < t->n_functions && n < GO_FUNCTIONS_MAX &&
                u32_at(t->bytes + t->functions + 8 * n) <=
                        u32_at(t->bytes + t->functions + 8 * (n + 1)))
                n++;
        return n;
}

bool go_table_init(GoTable *t, const uint8_t *bytes, size_t size)
{
        if (size < HEADER_SIZE || (bytes[0] != MAGIC_1_18 && bytes[0] != MAGIC_1_20) ||
                bytes[1] != 0xff || bytes[2] != 0xff || bytes[3] != 0xff || bytes[4] != 0 ||
                bytes[5] != 0 || bytes[6] != QUANTUM || bytes[7] != POINTER)
                return false;
        *t = (GoTable){.bytes = bytes,
                .size = size,
                .n_functions = u64_at(bytes + 8),
                .text = u64_at(bytes + 24),
                .names = u64_at(bytes + 32),
                .values = u64_at(bytes + 56),
                .functions = u64_at(bytes + 64),
                .flag_at = bytes[0] == MAGIC_1_18 ? FUNCTION_FLAG_AT_1_18 : FUNCTION_FLAG_AT_1_20,
                .rows_left = GO_ROWS_MAX,
                .code_left = GO_CODE_BYTES_MAX};
        if (t->names >= size || t->values >= size || t->functions >= size ||
                t->n_functions >= (size - t->functions) / 8)
                return false;
        t->n_functions = table_ascends(t);
        return true;
}

static bool read_function(const GoTable *t, size_t i, GoFunction *ret)
{
        const uint8_t *entry = t->bytes + t->functions + 8 * i, *f;
        uint64_t left = t->size - t->functions, at = u32_at(entry + 4), name, values;

        if (at >= left || left - at <= t->flag_at)
                return false;
        f = t->bytes + t->functions + at;
        name = u32_at(f + FUNCTION_NAME_AT);
        values = u32_at(f + FUNCTION_VALUES_AT);
        if (name >= t->size - t->names || values >= t->size - t->values)
                return false;
        *ret = (GoFunction){.start = t->text + u32_at(entry),
                .end = t->text + u32_at(entry + 8),
                .name = {.p = t->bytes + t->names + name, .end = t->bytes + t->size},
                .values = {.p = values ? t->bytes + t->values + values : t->bytes + t->size,
                        .end = t->bytes + t->size},
                .flags = f[t->flag_at]};
        return ret->start < ret->end;
}

/* No more of it is looked at than the name is long: nothing says that it ends. */
bool go_function_is(const GoFunction *f, const char *name)
{
        size_t size = strlen(name) + 1;

        return (size_t)(f->name.end - f->name.p) >= size && memcmp(f->name.p, name, size) == 0;
}

bool go_function_is_trampoline(const GoFunction *f)
{
        return go_function_is(f, "runtime.sigreturn__sigaction") ||
               go_function_is(f, "runtime.sigreturn");
}

bool go_table_function(const GoTable *t, size_t i, GoFunction *ret)
{
        GoFunction next;

        if (!read_function(t, i, ret))
                return false;
        /* A handler returns to the trampoline's first instruction, and callers are looked for one
         * byte before the address that is returned to. */
        if (go_function_is_trampoline(ret))
                ret->start--;
        if (i + 1 < t->n_functions && read_function(t, i + 1, &next) &&
                go_function_is_trampoline(&next) && next.start == ret->end)
                ret->end--;
        return ret->start < ret->end;
}

bool go_table_goexit(const GoTable *t, GoFunction *ret)
{
        for (size_t i = 0; i < t->n_functions; i++)
                if (go_table_function(t, i, ret) && go_function_is(ret, "runtime.goexit"))
                        return true;
        return false;
}

bool go_function_sets_rsp(const GoFunction *f)
{
        return f->flags & FLAG_SETS_SP;
}

bool go_function_is_goexit(const GoFunction *f, CfiBytes code)
{
        return go_function_is(f, "runtime.goexit") && code.end - code.p >= 7 && code.p[0] == 0x90 &&
               code.p[1] == 0xe8 && code.p[6] == 0x90;
}

static bool take_number(CfiBytes *b, uint32_t *ret)
{
        CfiBytes number = *b;
        uint64_t value;

        if (number.end - number.p > NUMBER_BYTES_MAX)
                number.end = number.p + NUMBER_BYTES_MAX;
        if (!cfi_bytes_uleb(&number, &value) || value > UINT32_MAX)
                return false;
        b->p = number.p;
        *ret = (uint32_t)value;
        return true;
}

void go_depth_init(GoDepth *d, GoTable *t, const GoFunction *f)
{
        *d = (GoDepth){.table = t,
                .values = f->values,
                .start = f->start,
                .end = f->start,
                .function_end = f->end,
                .depth = -1};
}

/* Pairs of a change of the value (zigzag) and for how many bytes it holds, up to a 0. */
bool go_depth_next(GoDepth *d)
{
        uint32_t value, length;

        if (d->end >= d->function_end || d->table->rows_left == 0 ||
                !take_number(&d->values, &value) || (value == 0 && d->begun) ||
                !take_number(&d->values, &length) || length == 0)
                return false;
        d->table->rows_left--;
        d->begun = true;
        d->depth += (int32_t)(value >> 1 ^ -(value & 1U));
        if (d->depth < 0 || d->depth > FRAME_MAX || d->depth % 8 != 0)
                return false;
        d->start = d->end;
        d->end = length < d->function_end - d->end ? d->end + length : d->function_end;
        return true;
}

bool go_depth_at(GoDepth *d, uint64_t vaddr, int32_t *ret)
{
        while (vaddr >= d->end)
                if (!go_depth_next(d))
                        return false;
        *ret = (int32_t)d->depth;
        return vaddr >= d->start;
}
