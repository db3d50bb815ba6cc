/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "capture/capture-bpf.h"
#include "capture/capture-ptrace.h"
#include "capture/capture.h"
#include "capture/shot.h"
#include "util/list.h"

/* What capture.c and probe.c share. */

struct Capture {
        CaptureBpf *bpf; /* or NULL, and: */
        CapturePtrace *ptrace;
        unsigned n_slots;
        bool fp, kernel_frames;
        size_t max_stack_bytes;
        uint32_t last_request;
        CaptureThread **threads; /* by slot; NULL: free */
        uint32_t *free_slots;
        unsigned n_free_slots;
        uint32_t free_buffers[SWP_MAX_BUFFERS];
        unsigned n_free_buffers;
        unsigned n_shots;  /* out, or answered and not yet fetched */
        ListLink answered; /* CaptureThread.answered_link */
};

/* Capture of that backend (not AUTO or BPF), unproven. Return: 0, -errno of the load. */
int capture_new_unproven(Capture **ret, const Config *config, CaptureBackend backend);
