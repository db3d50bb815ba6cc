/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl/ctl.h"
#include "ctl/text.h"
#include "util/utf8.h"

static char *rewrite(const char *s, bool controls, const char *(*bad)(char *space, unsigned char c))
{
        const unsigned char *p = (const unsigned char *)s;
        char *text = NULL, space[8];
        size_t size, left = strlen(s), n;
        FILE *f = check_memory(open_memstream(&text, &size));

        for (; left > 0; p += n, left -= n) {
                n = utf8_length(p, left);
                if (n == 0) {
                        fputs(bad(space, *p), f);
                        n = 1;
                } else if (controls && (*p < 0x20 || *p == 0x7f)) {
                        fprintf(f, "\\x%02x", *p);
                } else if (controls && p[0] == 0xc2 && p[1] < 0xa0) {
                        /* U+0080 to U+009F */
                        fprintf(f, "\\u%04x", p[1]);
                } else {
                        fwrite(p, 1, n, f);
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

/* Bytes of s that take so many columns at most. */
static int fitting(const char *s, size_t columns)
{
        size_t i = 0;

        for (; s[i]; i++)
                if (((unsigned char)s[i] & 0xc0) != 0x80 && columns-- == 0)
                        break;
        return (int)i;
}

char *text_fit(const char *s, size_t columns)
{
        if (columns == 0 || text_width(s) <= columns)
                return check_memory(strdup(s));
        if (columns < 8)
                return text_format("%.*s", fitting(s, columns), s);
        return text_format("%.*s...", fitting(s, columns - 3), s);
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
