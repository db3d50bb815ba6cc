/* SPDX-License-Identifier: Apache-2.0 */
#include "report/json-text.h"

#include <stdbool.h>
#include <string.h>

static bool is_plain(unsigned char c)
{
        return c >= 0x20 && c != 0x7f && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
}

void json_text_write(const char *s, FILE *f)
{
        putc_unlocked('"', f);
        for (; *s; s++)
                /* U+2028 and U+2029 are e2 80 a8 and e2 80 a9. */
                if (strncmp(s, "\xe2\x80\xa8", 3) == 0 || strncmp(s, "\xe2\x80\xa9", 3) == 0) {
                        fprintf(f, "\\u20%x", (unsigned char)s[2] - 0x80);
                        s += 2;
                } else if ((unsigned char)s[0] == 0xc2 && (unsigned char)s[1] < 0xa0) {
                        /* U+0080 to U+009F steer terminals. */
                        fprintf(f, "\\u%04x", (unsigned char)*++s);
                } else if (is_plain((unsigned char)*s)) {
                        putc_unlocked(*s, f);
                } else {
                        fprintf(f, "\\u%04x", (unsigned char)*s);
                }
        putc_unlocked('"', f);
}
