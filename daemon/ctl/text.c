/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl/ctl.h"
#include "ctl/text.h"

/* Length of the UTF-8 character at s and its code point; 0: there is none. */
static size_t character(const char *s, uint32_t *ret)
{
        const unsigned char *p = (const unsigned char *)s;
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
        uint32_t c = n == 1 ? p[0] : p[0] & (0x7f >> n);

        if (n > 1 && (p[0] < 0xc2 || p[0] > 0xf4))
                return 0;
        for (size_t i = 1; i < n; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (p[i] & 0x3f);
        }
        if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
                return 0;
        *ret = c;
        return n;
}

static char *rewrite(const char *s, bool controls, const char *(*bad)(char *space, unsigned char c))
{
        char *text = NULL, space[8];
        size_t size, n;
        FILE *f = check_memory(open_memstream(&text, &size));
        uint32_t c;

        for (; *s; s += n) {
                n = character(s, &c);
                if (n == 0) {
                        fputs(bad(space, (unsigned char)*s), f);
                        n = 1;
                } else if (controls && (c < 0x20 || c == 0x7f)) {
                        fprintf(f, "\\x%02" PRIx32, c);
                } else if (controls && c >= 0x80 && c < 0xa0) {
                        fprintf(f, "\\u%04" PRIx32, c);
                } else {
                        fwrite(s, 1, n, f);
                }
        }
        fclose(f);
        return check_memory(text);
}

static const char *bad_as_hex(char *space, unsigned char c)
{
        sprintf(space, "\\x%02x", c);
        return space;
}

static const char *bad_as_replacement(char *space, unsigned char c)
{
        return "\xef\xbf\xbd";
}

char *text_escape(const char *s)
{
        return rewrite(s, true, bad_as_hex);
}

char *text_repair(const char *s)
{
        return rewrite(s, false, bad_as_replacement);
}

size_t text_width(const char *s)
{
        size_t n = 0;

        for (; *s; s++)
                n += ((unsigned char)*s & 0xc0) != 0x80;
        return n;
}

char *text_duration(uint64_t ms)
{
        static const struct {
                const char *name;
                uint64_t s;
        } units[] = {{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}};
        uint64_t s = ms / 1000;

        if (s == 0)
                return text_format("%" PRIu64 " ms", ms);
        for (size_t i = 0; i < 3; i++)
                if (s >= units[i].s)
                        return text_format("%" PRIu64 " %s %" PRIu64 " %s", s / units[i].s,
                                units[i].name, s % units[i].s / units[i + 1].s, units[i + 1].name);
        return text_format("%" PRIu64 " s", s);
}

char *text_time(int64_t wall_ms)
{
        time_t s = wall_ms / 1000;
        char text[64];
        struct tm tm;

        if (!localtime_r(&s, &tm) || strftime(text, sizeof(text), "%F %T", &tm) == 0)
                return text_format("%" PRId64 " ms", wall_ms);
        return check_memory(strdup(text));
}

char *text_format(const char *format, ...)
{
        char *text;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        return check_memory(n < 0 ? NULL : text);
}

void *check_memory(void *p)
{
        if (!p) {
                fputs("swprofctl: out of memory\n", stderr);
                exit(CTL_EXIT_FAILED);
        }
        return p;
}
