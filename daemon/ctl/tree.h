/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "report/analysis.h"

struct json_object;

/* The call tree of an analysis. */

typedef struct TreeView {
        double min_percent; /* hide what has less of the time and of the samples */
        unsigned depth;     /* frames; 0: all */
        unsigned width;     /* columns; 0: as it comes */
        bool colour;
} TreeView;

/* For people: a line a frame. Only siblings are marked ("+"); a line without a mark is called by
 * the one above it. */
void tree_print(const Analysis *a, const TreeView *view, FILE *f);

/* The same places as a list in depth-first order, each with its id and that of its parent. */
struct json_object *tree_json(const Analysis *a, const TreeView *view);

/* "90 ms", "12.5 ms", "1.23 s", "140 s"; malloc'ed. */
char *tree_duration(int64_t us);
