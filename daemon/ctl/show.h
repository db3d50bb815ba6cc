/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "control.pb-c.h"

/* The views of the daemon's status, as text for people. */

void show_status(const Swprof__Control__Status *s, FILE *f, bool colour);
void show_stats(const Swprof__Control__Status *s, FILE *f, bool colour);
void show_instances(const Swprof__Control__Status *s, FILE *f, bool colour);
void show_tasks(const Swprof__Control__Status *s, FILE *f, bool colour);
void show_slots(const Swprof__Control__Status *s, FILE *f, bool colour);
