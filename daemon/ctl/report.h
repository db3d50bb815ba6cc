/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

/* The verbs that show results: `segments`, `report`, `export`. */

typedef struct ReportOptions {
        const char *input;     /* NULL: what the daemon keeps */
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
