/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "symbol/signature.h"

/* Of each part: names of files and functions come from hostile files. */
#define PART_MAX 4096

/* The length of the well-formed UTF-8 sequence at s, of n bytes (RFC 3629); 0: none. */
static size_t utf8_length(const unsigned char *s, size_t n)
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

/* Signatures go out as protobuf strings, which must be UTF-8, and onto terminals. */
void signature_sanitize(char *text)
{
        unsigned char *s = (unsigned char *)text;

        for (size_t n = strlen(text), length; n > 0; s += length, n -= length) {
                length = utf8_length(s, n);
                if (length == 0 || *s < 0x20 || *s == 0x7f) {
                        *s = '?';
                        length = 1;
                }
        }
}

char *signature_native(const char *module, const SymbolFrame *frame, bool lines)
{
        const char *function = frame->function ? frame->function : "[unknown]";
        const char *place = frame->function && frame->file ? frame->file
                            : module                       ? module
                                                           : "[anonymous]";
        char *ret;
        int r;

        /* A line alone says nothing where the file is not known. */
        if (lines && frame->function && frame->file && frame->line > 0)
                r = asprintf(
                        &ret, "%.*s.%.*s:%d", PART_MAX, place, PART_MAX, function, frame->line);
        else
                r = asprintf(&ret, "%.*s.%.*s", PART_MAX, place, PART_MAX, function);
        if (r < 0)
                return NULL;
        signature_sanitize(ret);
        return ret;
}
