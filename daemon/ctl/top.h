/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "control.pb-c.h"
#include "report/profile.h"

/* What the profiled segments do now: `top`. */

typedef struct TopView {
        unsigned columns; /* of the terminal; 0: none, lines as long as they come */
        unsigned rows;    /* of it; 0: none */
        bool colour;
} TopView;

/* Of the last moments' samples and of what the daemon says at their end. Malloc'ed. */
char *top_text(const Swprof__Control__Status *s, const Profile *p, const TopView *view);
/* The same text over what was there before, at the top of a terminal; frees it. */
char *top_redraw(char *text);
char *top_json(const Swprof__Control__Status *s, const Profile *p);
