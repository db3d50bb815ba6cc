/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>

#include "report/analysis.h"

/*
 * The samples of an analysis in the formats of other programs, and as a page. Each sample counts
 * for the time that it stands for (profile_sample_weight_us), so the sums of all formats are the
 * same: `sampled_us`. Errors of f stay with it (ferror). Return: 0, -ENOMEM.
 */

/* A line for each stack, "a;b;c 1234", in microseconds: Brendan Gregg's flamegraph.pl, inferno. */
int export_folded(const Analysis *a, FILE *f);

/* Speedscope's file format, its samples in the order of time, a profile for each segment. */
int export_speedscope(const Analysis *a, FILE *f);

/* pprof's protocol buffer, compressed: counts, wall, on-CPU, run-queue and blocked time. */
int export_pprof(const Analysis *a, FILE *f);

/* A page with a flame graph that needs nothing else. */
int export_html(const Analysis *a, FILE *f);
