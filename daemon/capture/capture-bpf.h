/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "swprof-abi.h"
#include "util/cleanup.h"

/*
 * The loaded programs and their maps. Knows nothing of threads or results: writes no slot, decides
 * nothing. Private to this folder; capture-bpf.c is the only file that includes libbpf.
 */

typedef struct CaptureBpf CaptureBpf;

/* Programs of one of the two ways to pull. `stacks`: frame-pointer or kernel stacks of shots are
 * wanted. Return: 0; -errno of the load (ENOENT: no such kfunc or helper here). Logs libbpf's words
 * at debug level. */
int capture_bpf_new(CaptureBpf **ret, bool iter, unsigned n_slots, bool stacks);
CaptureBpf *capture_bpf_free(CaptureBpf *b);
DEFINE_CLEANUP(CaptureBpf *, capture_bpf_free)

bool capture_bpf_iter(const CaptureBpf *b);
struct swp_slot *capture_bpf_slot(CaptureBpf *b, uint32_t slot);
struct swp_python *capture_bpf_python(CaptureBpf *b, uint32_t slot);
uint8_t *capture_bpf_buffer(CaptureBpf *b, uint32_t buffer); /* a struct swp_buffer */

/* The n-th entry of the list that capture_bpf_pull_list works off. */
void capture_bpf_set_work(CaptureBpf *b, uint32_t n, uint32_t slot);
int capture_bpf_pull_list(CaptureBpf *b, uint32_t n);

/* An iterator over that one thread. Return: a file descriptor, -errno. */
int capture_bpf_link_iter(CaptureBpf *b, pid_t tid);
int capture_bpf_pull_iter(CaptureBpf *b, int link_fd, uint32_t slot);

/* Has the shot program answer into that slot when the event overflows; does not enable the event.
 * Return: a file descriptor, -errno. */
int capture_bpf_link_shot(CaptureBpf *b, int perf_fd, uint32_t slot);

/* Readable when a shot was answered. */
int capture_bpf_fd(const CaptureBpf *b);
/* Calls `each` for all announced shots. */
void capture_bpf_consume(
        CaptureBpf *b, void (*each)(void *userdata, const struct swp_event *e), void *userdata);

/* Program counters of that id of the stack-trace map. Return: their number, -errno. */
int capture_bpf_stack(CaptureBpf *b, int32_t id, uint64_t ret_pcs[static SWP_MAX_USTACK]);
/* Forgets all stacks that capture_bpf_stack() has read. Only while no shot is out: their ids may be
 * among these. */
void capture_bpf_forget_stacks(CaptureBpf *b);
/* Whether that should be done soon. */
bool capture_bpf_stacks_crowded(const CaptureBpf *b);
