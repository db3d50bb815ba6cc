/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/log.h"
#include "util/time.h"

static atomic_int max_level = LOG_INFO;

static const char *const level_names[] = {
        [LOG_EMERG] = "emerg",
        [LOG_ALERT] = "alert",
        [LOG_CRIT] = "critical",
        [LOG_ERR] = "error",
        [LOG_WARNING] = "warning",
        [LOG_NOTICE] = "notice",
        [LOG_INFO] = "info",
        [LOG_DEBUG] = "debug",
};

void log_set_max_level(int level)
{
        atomic_store_explicit(&max_level, level, memory_order_relaxed);
}

int log_max_level(void)
{
        return atomic_load_explicit(&max_level, memory_order_relaxed);
}

int log_level_from_string(const char *s)
{
        for (int i = LOG_ERR; i <= LOG_DEBUG; i++)
                if (strcmp(s, level_names[i]) == 0)
                        return i;
        return -1;
}

void log_full(int level, const char *format, ...)
{
        char line[2048];
        size_t n;
        int len;
        va_list ap;

        if (level > log_max_level())
                return;
        n = (size_t)(getenv("JOURNAL_STREAM")
                             ? snprintf(line, sizeof(line), "<%d>", level)
                             : snprintf(line, sizeof(line), "swprofd: %s: ", level_names[level]));
        va_start(ap, format);
        len = vsnprintf(line + n, sizeof(line) - n - 1, format, ap);
        va_end(ap);
        if (len < 0)
                return;
        if ((size_t)len > sizeof(line) - n - 2)
                len = (int)(sizeof(line) - n - 2);
        for (char *p = line + n; p < line + n + len; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                        *p = '?';
        line[n + (size_t)len] = '\n';
        /* One write: lines of several threads never mix. There is nobody to tell if it fails. */
        if (write(STDERR_FILENO, line, n + (size_t)len + 1) < 0)
                return;
}

bool log_limit(LogLimit *l, unsigned *ret_suppressed)
{
        uint64_t now = mono_now_ns();

        if (l->begin_mono_ns == 0 || now - l->begin_mono_ns >= l->interval_ns) {
                l->begin_mono_ns = now;
                l->n = 0;
        }
        if (l->n >= l->burst) {
                l->suppressed++;
                return false;
        }
        l->n++;
        *ret_suppressed = l->suppressed;
        l->suppressed = 0;
        return true;
}
