/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Strings that come from others, made fit for a terminal and for JSON. Returned strings are
 * malloc'ed. */

/* For people: control characters and bytes that are not UTF-8 become \xNN or \uNNNN. */
char *text_escape(const char *s);
/* For JSON, whose writer escapes control characters itself: bytes that are not UTF-8 become U+FFFD.
 */
char *text_repair(const char *s);
/* Columns that it takes: one a character. */
size_t text_width(const char *s);

/* A copy of so many columns at most, with "..." at the end of what was longer. 0: all of it. */
char *text_fit(const char *s, size_t columns);

/* "350 ms", "12 s", "3 min 5 s", "2 h 5 min", "4 d 3 h". */
char *text_duration(uint64_t ms);
/* Local time to the second. */
char *text_time(int64_t wall_ms);

/* printf to a malloc'ed string. */
char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What malloc and its like returned, or a message and the end: swprofctl has nothing to lose. */
void *check_memory(void *p);
