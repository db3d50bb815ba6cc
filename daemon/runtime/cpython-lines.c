/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include "runtime/cpython-lines.h"

/* Lines are not negative (a module begins at 0) and fit into an int: what does not is as good as no line. */
static int line_or(int64_t line, int first_line)
{
        return line >= 0 && line <= INT32_MAX ? (int)line : first_line;
}

/* Until 3.9: a pair says where the next line begins. */
static int line_lnotab(const uint8_t *table, size_t n, int first_line, int64_t byte)
{
        int64_t line = first_line, at = 0;

        for (size_t i = 0; i + 1 < n; i += 2) {
                at += table[i];
                if (at > byte)
                        break;
                line += (int8_t)table[i + 1];
        }
        return line_or(line, first_line);
}

/* 3.10: a pair says how long its line is; -128: it is no line's. */
static int line_linetable(const uint8_t *table, size_t n, int first_line, int64_t byte)
{
        int64_t line = first_line, end = 0;

        for (size_t i = 0; i + 1 < n; i += 2) {
                int8_t step = (int8_t)table[i + 1];

                end += table[i];
                if (step != -128)
                        line += step;
                if (byte < end)
                        return step == -128 ? first_line : line_or(line, first_line);
        }
        return first_line;
}

typedef struct Reader {
        const uint8_t *p, *end;
} Reader;

/* Six bits a byte, the lowest first; bit 6: more follow. */
static uint32_t take_varint(Reader *r)
{
        uint32_t value = 0;

        for (unsigned shift = 0; r->p < r->end; shift += 6) {
                uint8_t byte = *r->p++;

                if (shift < 32)
                        value |= (uint32_t)(byte & 63) << shift;
                if (!(byte & 64))
                        break;
        }
        return value;
}

static int32_t take_signed_varint(Reader *r)
{
        uint32_t value = take_varint(r);

        return value & 1 ? -(int32_t)(value >> 1) : (int32_t)(value >> 1);
}

static int line_locations(const uint8_t *table, size_t n, int first_line, int64_t unit)
{
        enum {
                ONE_LINE0 = 10,
                ONE_LINE2 = 12,
                NO_COLUMNS = 13,
                LONG = 14,
                NONE = 15,
        };
        Reader r = {.p = table, .end = table + n};
        int64_t line = first_line, end = 0;

        while (r.p < r.end) {
                uint8_t first = *r.p++;
                unsigned code = first >> 3 & 15;

                end += (first & 7) + 1;
                if (code == NO_COLUMNS || code == LONG)
                        line += take_signed_varint(&r);
                else if (code >= ONE_LINE0 && code <= ONE_LINE2)
                        line += code - ONE_LINE0;
                if (unit < end)
                        return code == NONE ? first_line : line_or(line, first_line);
                /* Only the first byte of an entry has bit 7. */
                while (r.p < r.end && !(*r.p & 128))
                        r.p++;
        }
        return first_line;
}

int cpython_line(unsigned minor, const uint8_t *table, size_t n, int first_line, int64_t unit)
{
        if (unit < 0)
                return first_line;
        if (minor >= 11)
                return line_locations(table, n, first_line, unit);
        if (minor == 10)
                return line_linetable(table, n, first_line, 2 * unit);
        return line_lnotab(table, n, first_line, 2 * unit);
}
