/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "text.h"

static bool is_printable_ascii(uint8_t c)
{
        return c >= 0x20 && c < 0x7f;
}

/* Size of the UTF-8 sequence at s that is not a control character; 0: it is not that. */
static size_t character_size(const uint8_t *s, size_t left)
{
        uint32_t c;
        size_t n;

        if (s[0] < 0x80)
                return is_printable_ascii(s[0]);
        if (s[0] >= 0xc2 && s[0] < 0xe0) {
                n = 2;
                c = s[0] & 0x1f;
        } else if (s[0] >= 0xe0 && s[0] < 0xf0) {
                n = 3;
                c = s[0] & 0x0f;
        } else if (s[0] >= 0xf0 && s[0] < 0xf5) {
                n = 4;
                c = s[0] & 0x07;
        } else {
                return 0;
        }
        if (n > left)
                return 0;
        for (size_t i = 1; i < n; i++) {
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (s[i] & 0x3f);
        }
        /* Control characters, longer forms than needed, surrogates, beyond the last one. */
        if (c < 0xa0 || (n == 3 && c < 0x800) || (c >= 0xd800 && c < 0xe000) ||
                (n == 4 && (c < 0x10000 || c > 0x10ffff)))
                return 0;
        return n;
}

bool text_is_valid(const void *text, size_t size)
{
        const uint8_t *s = text;
        size_t n;

        for (size_t i = 0; i < size; i += n) {
                n = is_printable_ascii(s[i]) ? 1 : character_size(s + i, size - i);
                if (n == 0)
                        return false;
        }
        return true;
}

bool text_fits(const char *s, size_t max)
{
        size_t size = strnlen(s, max + 1);

        return size >= 1 && size <= max && text_is_valid(s, size);
}

/* FNV-1a. */
uint32_t text_hash(const void *text, size_t size)
{
        const uint8_t *s = text;
        uint32_t hash = 2166136261;

        for (size_t i = 0; i < size; i++)
                hash = (hash ^ s[i]) * 16777619;
        return hash;
}
