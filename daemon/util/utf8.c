/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "util/utf8.h"

size_t utf8_length(const unsigned char *s, size_t n)
{
        unsigned char low = 0x80, high = 0xbf;
        size_t length = s[0] < 0x80   ? 1
                        : s[0] < 0xc2 ? 0
                        : s[0] < 0xe0 ? 2
                        : s[0] < 0xf0 ? 3
                        : s[0] < 0xf5 ? 4
                                      : 0;

        if (length == 0 || length > n)
                return 0;
        /* No overlong forms, no surrogates, nothing above U+10FFFF. */
        if (s[0] == 0xe0)
                low = 0xa0;
        else if (s[0] == 0xed)
                high = 0x9f;
        else if (s[0] == 0xf0)
                low = 0x90;
        else if (s[0] == 0xf4)
                high = 0x8f;
        for (size_t i = 1; i < length; i++, low = 0x80, high = 0xbf)
                if (s[i] < low || s[i] > high)
                        return 0;
        return length;
}

void utf8_repair(char *text)
{
        unsigned char *s = (unsigned char *)text;

        for (size_t n = strlen(text), length; n > 0; s += length, n -= length) {
                length = utf8_length(s, n);
                if (length == 0) {
                        *s = '?';
                        length = 1;
                }
        }
}
