/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "symbol/binary.h"

/*
 * Code signatures of native frames (what the OAP compares and shows): "file.c.function:line" where
 * the source file is known, else "module.function"; without lines "file.c.function" or
 * "module.function"; unknown code is "module.[unknown]", code outside of files
 * "[anonymous].[unknown]" (`module` NULL); kernel frames "[kernel].function". Stable: no addresses,
 * no offsets. Valid UTF-8 without control characters, whatever the file says. malloc'ed; NULL: no
 * memory.
 */
char *signature_native(const char *module, const SymbolFrame *frame, bool lines);

/* What is no valid UTF-8, or a control character, becomes '?'. */
void signature_sanitize(char *text);
