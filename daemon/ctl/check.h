/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "control.pb-c.h"

/* `swprofctl check`: what this host allows, by trials that `swprofd --check-host` makes and prints,
 * and what a running daemon says of itself. */

struct json_object;

/*
 * An array of facts: objects with name, ok (true, false, null), text and fix; those that came within
 * that time. Return: NULL and *ret_problem set: there are none.
 */
struct json_object *check_run(unsigned timeout_s, const char **ret_problem);

/* Takes the facts over. `s` is the daemon's status; NULL: it does not answer. Its key "works" says
 * whether there is a backend. */
struct json_object *check_report(struct json_object *facts, const Swprof__Control__Status *s);
/* Whether there is one. */
bool check_works(struct json_object *report);
/* The report for people. */
void check_show(struct json_object *report, FILE *f);
