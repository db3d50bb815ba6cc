/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "capture/capture-bpf.h"
#include "capture/capture-ptrace.h"
#include "capture/capture.h"
#include "capture/sched-clock.h"
#include "capture/shot.h"
#include "util/list.h"

/* What capture.c, capture-result.c and probe.c share. */

/* No counter of switches is so high. */
#define NOT_KNOWN UINT64_MAX

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
        SchedClock sched_clock;
};

struct CaptureThread {
        /* What each pull needs comes first: see struct swp_slot. */
        Capture *capture;
        struct swp_slot *shared; /* that of `slot`, as the program sees it */
        pid_t pid, tid;
        uint32_t slot;
        uint32_t buffer; /* or SWP_NO_BUFFER */
        size_t want;
        uint64_t known_switches;
        uint64_t start_boottime, exec_id;
        uint64_t other_addr;
        bool wants_python, new_python; /* next_python is to be read; it has changed */
        bool code;
        bool new_go; /* `go` has changed */
        int iter_fd; /* -1 unless pulled by iterator */
        Shot shot;

        void *userdata;
        bool known_waits; /* it blocked at the capture of known_switches, when these were: */
        uint64_t known_voluntary, known_runtime_ns, known_run_delay_ns;
        struct swp_python *python;     /* beside `shared` */
        struct swp_python next_python; /* what is to be asked for next */
        uint64_t end_addr;             /* see capture_thread_set_end() */
        GoPlaces go;                   /* .m 0: not asked for */
        ListLink answered_link;
        uint64_t *pcs; /* SWP_MAX_USTACK; fp mode only */
};

static inline uint8_t *thread_buffer(const CaptureThread *t)
{
        Capture *c = t->capture;

        return c->ptrace ? capture_ptrace_buffer(c->ptrace, t->buffer)
                         : capture_bpf_buffer(c->bpf, t->buffer);
}

/* Stacks hold secrets: just what was copied is erased, since a buffer is large and most copies are
 * small. */
void thread_drop_buffer(CaptureThread *t);

static inline struct swp_python_walk *thread_python_walk(const CaptureThread *t)
{
        return &((struct swp_buffer *)thread_buffer(t))->python;
}

/* ---- capture-result.c ---- */

/* Time in want of a CPU, with that which is not over yet. */
uint64_t thread_run_delay_ns(const CaptureThread *t);

/* What is known of the thread's last turn on a CPU, and of the waits before and after. `on_cpu`: it
 * is there still. */
void result_fill_turn(const CaptureThread *t, bool on_cpu, CaptureResult *r);

/* The answer, which is there, as the caller sees it. Keeps the buffer only with a copy in it. */
void thread_result(CaptureThread *t, CaptureResult *ret);

/* ---- capture.c ---- */

/* Capture of that backend (not AUTO or BPF), unproven. Return: 0, -errno of the load. */
int capture_new_unproven(Capture **ret, const Config *config, CaptureBackend backend);
