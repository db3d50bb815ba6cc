/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/parse.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TIMEOUT_S 3600
#define TIME_MS_MAX   3600000

bool parse_timeout(const char *s, unsigned *ret)
{
        char *end;
        unsigned long v = strtoul(s, &end, 10);

        if (*s < '0' || *s > '9' || *end || v == 0 || v > MAX_TIMEOUT_S)
                return false;
        *ret = (unsigned)v;
        return true;
}

static bool time_parse(const char *s, double min_ms, double max_ms, uint32_t *ret_ms)
{
        char *end;
        double v = strtod(s, &end);

        if (*s < '0' || *s > '9')
                return false;
        if (strcmp(end, "m") == 0)
                v *= 60000;
        else if (*end == '\0' || strcmp(end, "s") == 0)
                v *= 1000;
        else if (strcmp(end, "ms") != 0)
                return false;
        if (!(v >= min_ms && v <= max_ms))
                return false;
        *ret_ms = (uint32_t)v;
        return true;
}

bool parse_duration(const char *s, uint32_t *ret_ms)
{
        return time_parse(s, 1, TIME_MS_MAX, ret_ms);
}

bool parse_threshold(const char *s, uint32_t *ret_ms)
{
        return time_parse(s, 0, TIME_MS_MAX, ret_ms);
}

bool parse_percent(const char *s, double *ret)
{
        char *end;
        double v = strtod(s, &end);

        if (*s < '0' || *s > '9' || *end || !(v >= 0 && v <= 100))
                return false;
        *ret = v;
        return true;
}

bool parse_depth(const char *s, unsigned *ret)
{
        char *end;
        unsigned long v = strtoul(s, &end, 10);

        if (*s < '0' || *s > '9' || *end || v == 0 || v > 1000000)
                return false;
        *ret = (unsigned)v;
        return true;
}
