/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>

#include "core/config.h"

/*
 * What this host allows, for `swprofctl check`: one JSON object a line, as soon as it is known, since
 * the last ones may take long:
 *
 *   {"name": …, "ok": true|false|null, "text": what was found, "fix": what to do, or ""}
 *
 * ok null: it takes more rights than the caller's to know. The fact "backend" comes once; its text is
 * that of CaptureInfo.backend. Return: 0, -errno of writing.
 */
int host_check(const Config *config, FILE *f);
