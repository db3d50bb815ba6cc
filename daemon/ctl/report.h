/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The verbs that show results: `segments`, `report`, `export`. */

struct Options;

typedef struct ReportOptions {
        const struct Options *options; /* to ask the daemon */
        const char *input;             /* NULL: what the daemon keeps */
        const void *recorded;          /* a profile that is there already; NULL: none */
        size_t n_recorded;
        const char *selection; /* a task or a segment; NULL: all */
        const char *format;    /* of export */
        const char *output;    /* NULL: stdout */
        double min_percent;    /* < 0: not given */
        unsigned depth;        /* 0: all */
} ReportOptions;

/* Return: an exit status. */
int report_segments(const ReportOptions *o, bool json);
int report_tree(const ReportOptions *o, bool json);
int report_export(const ReportOptions *o);
/* Writes a profile to a file, for --input. Return: an exit status. */
int report_save(const void *profile, size_t n, const char *path);
