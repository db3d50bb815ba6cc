/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/task-source.h"
#include "oap/session.h"

/* The session as a source of tasks. */
void session_source_init(TaskSource *ret, Session *s);
