/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

/*
 * One line per message to stderr, with the journal's "<N>" priority prefix when stderr is the
 * journal (JOURNAL_STREAM) and a plain "swprofd: level: " prefix otherwise. Control characters of
 * the message are replaced by '?' (peers' strings end up here). Thread-safe. Functions that log say
 * so; a function that returns an error does not log it as well.
 */

void log_set_max_level(int level); /* LOG_ERR .. LOG_DEBUG; default LOG_INFO */
int log_max_level(void);

/* "error", "warning", "notice", "info", "debug" → LOG_…; -1 for anything else. */
int log_level_from_string(const char *s);

void log_full(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...)                                    \
        do {                                              \
                if (log_max_level() >= LOG_DEBUG)         \
                        log_full(LOG_DEBUG, __VA_ARGS__); \
        } while (0)
#define log_info(...)    log_full(LOG_INFO, __VA_ARGS__)
#define log_notice(...)  log_full(LOG_NOTICE, __VA_ARGS__)
#define log_warning(...) log_full(LOG_WARNING, __VA_ARGS__)
#define log_error(...)   log_full(LOG_ERR, __VA_ARGS__)

/* A repeated condition: at most `burst` messages per `interval_ns`; the first one after a silence
 * says how many. */
typedef struct LogLimit {
        uint64_t interval_ns;
        unsigned burst;
        uint64_t begin_mono_ns;
        unsigned n;
        unsigned suppressed;
} LogLimit;

#define LOG_LIMIT_INIT                                    \
        {                                                 \
                .interval_ns = 30000000000ULL, .burst = 5 \
        }

/* Whether to log now; *ret_suppressed is how many were swallowed since the last time (0 mostly).
 * Not thread-safe. */
bool log_limit(LogLimit *l, unsigned *ret_suppressed);
