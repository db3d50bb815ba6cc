/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

int error_trace_at(int r, const char *file, int line, const char *func)
{
        static int enabled = -1;

        if (r >= 0)
                return r;
        if (enabled < 0)
                enabled = getenv("SWPROFD_TRACE_ERRORS") != NULL;
        if (enabled)
                fprintf(stderr, "%s:%d: %s: %s\n", file, line, func, strerror(-r));
        return r;
}
