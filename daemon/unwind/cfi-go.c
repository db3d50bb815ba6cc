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

        FLAG_TOP_FRAME = 1,
        FLAG_SETS_SP = 2,
        FRAME_MAX = 1 << 30,
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
                .flag_at = bytes[0] == MAGIC_1_18 ? FUNCTION_FLAG_AT_1_18 : FUNCTION_FLAG_AT_1_20};
        return t->names < size && t->values < size && t->functions < size &&
               t->n_functions < (size - t->functions) / 8;
}

bool go_table_function(const GoTable *t, size_t i, GoFunction *ret)
{
        const uint8_t *entry = t->bytes + t->functions + 8 * i, *f;
        uint64_t left = t->size - t->functions, at = u32_at(entry + 4), name, values;

        if (at >= left || left - at <= t->flag_at)
                return false;
        f = t->bytes + t->functions + at;
        name = u32_at(f + FUNCTION_NAME_AT);
        values = u32_at(f + FUNCTION_VALUES_AT);
        if (name >= t->size - t->names || values >= t->size - t->values ||
                !memchr(t->bytes + t->names + name, '\0', t->size - t->names - name))
                return false;
        *ret = (GoFunction){.start = t->text + u32_at(entry),
                .end = t->text + u32_at(entry + 8),
                .name = (const char *)t->bytes + t->names + name,
                .values = {.p = values ? t->bytes + t->values + values : t->bytes + t->size,
                        .end = t->bytes + t->size},
                .flags = f[t->flag_at]};
        return ret->start < ret->end;
}

bool go_table_goexit(const GoTable *t, GoFunction *ret)
{
        for (size_t i = 0; i < t->n_functions; i++)
                if (go_table_function(t, i, ret) && strcmp(ret->name, "runtime.goexit") == 0)
                        return true;
        return false;
}

bool go_function_is_goexit(const GoFunction *f, CfiBytes code)
{
        return strcmp(f->name, "runtime.goexit") == 0 && code.end - code.p >= 7 &&
               code.p[0] == 0x90 && code.p[1] == 0xe8 && code.p[6] == 0x90;
}

/* The same everywhere in the function; CFI_CFA_REG: it depends. */
static CfiCfa kind_of(const GoFunction *f)
{
        if (strcmp(f->name, "runtime.sigreturn__sigaction") == 0 ||
                strcmp(f->name, "runtime.sigreturn") == 0)
                return CFI_CFA_SIGNAL;
        if (f->flags & FLAG_TOP_FRAME || strcmp(f->name, "runtime.mcall") == 0)
                return CFI_CFA_ROOT;
        return f->flags & FLAG_SETS_SP ? CFI_CFA_NONE : CFI_CFA_REG;
}

void go_program_init(GoProgram *p, const GoFunction *f)
{
        *p = (GoProgram){.function = *f, .pc = f->start, .value = -1};
        p->rule.cfa = (uint8_t)kind_of(f);
        if (p->rule.cfa != CFI_CFA_REG)
                return;
        /* Go's functions keep no register for their callers, but for rbp: nobody there needs it. */
        p->rule.cfa_reg = X86_RSP;
        p->rule.how[X86_RIP] = CFI_REG_OFFSET;
        p->rule.offset[X86_RIP] = -8;
        for (unsigned reg = 0; reg < X86_RIP; reg++)
                if (reg != X86_RSP) {
                        p->rule.how[reg] = CFI_REG_UNDEF;
                        p->rule.undef |= (uint16_t)(1U << reg);
                }
}

int go_program_next(GoProgram *p, uint64_t *ret_start, uint64_t *ret_end, const CfiRule **ret_rule)
{
        CfiBytes *b = &p->function.values;
        uint64_t value, length;

        *ret_start = p->pc;
        *ret_rule = &p->rule;
        if (p->rule.cfa != CFI_CFA_REG) {
                *ret_end = p->pc = p->function.end;
                return *ret_start == *ret_end;
        }
        /* Pairs of a change of the value (zigzag) and for how many bytes it holds, up to a 0. */
        if (p->pc >= p->function.end || !cfi_bytes_uleb(b, &value) || (value == 0 && p->begun) ||
                !cfi_bytes_uleb(b, &length) || length == 0)
                return 1;
        p->begun = true;
        p->value += (int32_t)(value >> 1 ^ -(value & 1));
        if (p->value < 0 || p->value > FRAME_MAX || p->value % 8 != 0)
                return 1;
        p->rule.cfa_offset = (int32_t)p->value + 8;
        p->pc = length < p->function.end - p->pc ? p->pc + length : p->function.end;
        *ret_end = p->pc;
        return 0;
}
