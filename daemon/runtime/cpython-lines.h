/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * The source line of an instruction, by the table that its code object has. Pure; the table is the
 * target's word.
 *
 * Until 3.9 (Objects/lnotab_notes.txt) and in 3.10 it is pairs of a step in bytes of code and a
 * step in lines; since 3.11 (Objects/locations.md, InternalDocs/code_objects.md) entries of their
 * own.
 */

/* `unit`: number of the instruction, in code units of two bytes; negative: the function has not
 * begun. Return: the line; first_line where the table knows none. */
int cpython_line(unsigned minor, const uint8_t *table, size_t n, int first_line, int64_t unit);
