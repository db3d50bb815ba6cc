/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>

/* A JSON string, of well-formed UTF-8. It may stand within a <script> of HTML: no < and > and &
 * are in it, nor the two line ends that JavaScript has of its own. */
void json_text_write(const char *s, FILE *f);
