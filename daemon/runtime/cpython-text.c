/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "runtime/cpython-text.h"

enum {
        HEAD_LENGTH = 16,
        HEAD_STATE = 32,

        /* PyASCIIObject.state */
        KIND_SHIFT = 2,
        KIND_MASK = 7,
        STATE_COMPACT = 1 << 5,
        STATE_ASCII = 1 << 6,
};

int cpython_text_head(
        CpythonText *ret, const CpythonLayout *layout, const uint8_t head[CPYTHON_TEXT_HEAD])
{
        uint64_t length;
        uint32_t state;
        unsigned kind;

        memcpy(&length, head + HEAD_LENGTH, sizeof(length));
        memcpy(&state, head + HEAD_STATE, sizeof(state));
        kind = state >> KIND_SHIFT & KIND_MASK;
        if (!(state & STATE_COMPACT) || (kind != 1 && kind != 2 && kind != 4) ||
                (state & STATE_ASCII && kind != 1) || length > CPYTHON_TEXT_MAX)
                return CPYTHON_TEXT_E_BAD;
        *ret = (CpythonText){
                .kind = kind,
                .offset = state & STATE_ASCII ? layout->text_ascii : layout->text_compact,
                .n = length,
        };
        return 0;
}

static char *put_utf8(char *to, uint32_t c)
{
        if (c == 0 || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
                c = '?';
        if (c < 0x80) {
                *to++ = (char)c;
        } else if (c < 0x800) {
                *to++ = (char)(0xc0 | c >> 6);
                *to++ = (char)(0x80 | (c & 63));
        } else if (c < 0x10000) {
                *to++ = (char)(0xe0 | c >> 12);
                *to++ = (char)(0x80 | (c >> 6 & 63));
                *to++ = (char)(0x80 | (c & 63));
        } else {
                *to++ = (char)(0xf0 | c >> 18);
                *to++ = (char)(0x80 | (c >> 12 & 63));
                *to++ = (char)(0x80 | (c >> 6 & 63));
                *to++ = (char)(0x80 | (c & 63));
        }
        return to;
}

char *cpython_text_decode(const CpythonText *text, const uint8_t *bytes)
{
        char *ret = malloc(4 * text->n + 1), *to = ret;

        if (!ret)
                return NULL;
        for (size_t i = 0; i < text->n; i++) {
                uint32_t c = 0;

                memcpy(&c, bytes + i * text->kind, text->kind); /* little endian, as the target */
                to = put_utf8(to, c);
        }
        *to = '\0';
        return ret;
}
