/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/argument.h"

#include <stdlib.h>
#include <string.h>

#define TIMEOUT_S_MAX   3600
#define DURATION_MS_MAX 3600000

bool argument_timeout(const char *s, unsigned *ret)
{
        char *end;
        unsigned long v = strtoul(s, &end, 10);

        if (*s < '0' || *s > '9' || *end || v == 0 || v > TIMEOUT_S_MAX)
                return false;
        *ret = (unsigned)v;
        return true;
}

bool argument_duration(const char *s, uint32_t *ret_ms)
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
        if (!(v >= 1 && v <= DURATION_MS_MAX))
                return false;
        *ret_ms = (uint32_t)v;
        return true;
}

bool argument_percent(const char *s, double *ret)
{
        char *end;
        double v = strtod(s, &end);

        if (*s < '0' || *s > '9' || *end || !(v >= 0 && v <= 100))
                return false;
        *ret = v;
        return true;
}

bool argument_number(const char *s, unsigned *ret)
{
        char *end;
        unsigned long v = strtoul(s, &end, 10);

        if (*s < '0' || *s > '9' || *end || v == 0 || v > 1000000)
                return false;
        *ret = (unsigned)v;
        return true;
}
