/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

/* Writes the text to stdout and frees it. Return: an exit status. */
int output_take(char *text);

/* On a terminal, unless NO_COLOR says otherwise. */
bool output_wants_colour(void);
/* Columns of the terminal; 0: stdout is none. */
unsigned output_width(void);
/* Its rows. */
unsigned output_height(void);
