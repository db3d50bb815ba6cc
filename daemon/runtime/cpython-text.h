/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runtime/cpython-layout.h"

/* CPython's str objects → UTF-8. Pure; the objects are the target's word. */

#define CPYTHON_TEXT_HEAD 40 /* bytes of a str object that say what it is */
#define CPYTHON_TEXT_MAX  4096

typedef struct CpythonText {
        unsigned kind; /* bytes of a character: 1, 2, 4 */
        size_t offset; /* of the characters within the object */
        size_t n;      /* characters */
} CpythonText;

enum {
        _CPYTHON_TEXT_E_SUCCESS,
        CPYTHON_TEXT_E_BAD, /* not a str whose characters follow its head, or too long a one */
};

/* What a str object's first bytes say. Return: 0, CPYTHON_TEXT_E_BAD. */
int cpython_text_head(
        CpythonText *ret, const CpythonLayout *layout, const uint8_t head[CPYTHON_TEXT_HEAD]);

/* Its characters, kind × n bytes of them, as UTF-8: malloc'ed. What no UTF-8 can say (surrogates,
 * NUL) is '?'. NULL: no memory. */
char *cpython_text_decode(const CpythonText *text, const uint8_t *bytes);
