/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

/* A store in a directory of the test's own, and its answers. */

#define NOW_MS 1700000000000LL

extern char dir[64], path[96];
extern Store *store;
extern const Keep *keep;

void store_setup(void);
void store_teardown(void);

/* Opens the store, with what is there in `restored`, one line each. */
void store_begin(uint64_t max_bytes);
void store_end(void);
extern char restored[65536];

/* The answer to the last record or load, which is waited for. */
extern bool failed;
extern char losses[4096];  /* "segment:n " */
extern char loaded[65536]; /* "segment/id@time=outermost>next " */
extern size_t n_loaded;

void record(const KeepRecord *r);
void load(size_t n);

Stack *stack_of(const char *outermost, const char *next);
/* n snapshots of that segment and stack, from that id on. */
void record_run(uint64_t segment, uint64_t first_id, size_t n, Stack *stack, uint64_t in_use);
KeptSegment segment_of(uint64_t id, const char *segment_id, int32_t next, int32_t reserved);
/* The number that a query gives. */
long long query(const char *sql);
