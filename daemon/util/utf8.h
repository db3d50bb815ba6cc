/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

/* The length of the well-formed UTF-8 sequence at s, of n > 0 bytes (RFC 3629); 0: none. */
size_t utf8_length(const unsigned char *s, size_t n);

/* Each byte of text that is not of a well-formed sequence becomes a question mark. */
void utf8_repair(char *text);
