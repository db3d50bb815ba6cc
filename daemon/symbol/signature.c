/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "symbol/signature.h"
#include "util/utf8.h"

/* Of each part: names of files and functions come from hostile files. */
#define PART_MAX 4096

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
