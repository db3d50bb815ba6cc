/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "capture/capture.h"
#include "core/config.h"
#include "core/core.h"
#include "manager/worker.h"
#include "runtime/cpython-code.h"
#include "util/cleanup.h"

/*
 * The sampler thread: owns the capture backend and the processes' maps; sleeps to the earliest due
 * time (absolute CLOCK_MONOTONIC), captures all threads that are due, unwinds, hands on. Reads
 * no files but, with backend ptrace, those of its threads in /proc, and names nothing. A stack whose process map is missing or out of date is parked
 * (bounded, bytes zeroed after use) until the worker has answered; its sample is on its way
 * already.
 */

typedef struct Sampler Sampler;

/* Sampler → main, in order per target. */
typedef enum SamplerEventType {
        SAMPLER_SAMPLE, /* n samples; stack_id: new (≠ any before of this target) or the same as the
                           sample before */
        SAMPLER_STACK, /* the frames of stack_id, or that it failed */
        SAMPLER_TIMES, /* mono_ns and times alone: the last word of a target that was removed */
        SAMPLER_GONE,  /* the thread has ended */
} SamplerEventType;

typedef struct SamplerEvent {
        SamplerEventType type;
        TargetId target;
        uint64_t mono_ns; /* of the capture: is it inside of the span? Of several: see n */
        uint64_t wall_ns; /* to be reported: of the due time, if the capture came soon after it */
        /* SAMPLE: of a thread that sleeps, samples of some 100 ms come together. mono_ns and wall_ns
         * are the first one's due time then, and the others follow each a period later. */
        uint64_t period_ns;
        uint32_t n;
        ThreadState state;   /* SAMPLE */
        uint64_t stack_id;   /* unique for the daemon's life time */
        ThreadTimes times;   /* SAMPLE: at the last one; TIMES: at mono_ns; zero: not told */
        bool failed;         /* STACK: not to be had; already counted */
        ProcMap *map;        /* STACK: a reference for the receiver; holds the frames' modules */
        CpythonCodes *codes; /* STACK: the same for their functions of Python, or NULL */
        size_t n_frames;
        Frame *frames; /* STACK: malloc'ed, innermost first, for the receiver */
} SamplerEvent;

/* Starts the thread. `capture` is taken over. Return: 0, -errno. */
int sampler_new(Sampler **ret, const Config *config, Capture *capture, Worker *worker);
/* Stops and joins; frees what is in its mailboxes. */
Sampler *sampler_free(Sampler *s);
DEFINE_CLEANUP(Sampler *, sampler_free)

/* Return: 0; SAMPLER_E_BUSY: mailbox full, not done. */
enum {
        _SAMPLER_E_SUCCESS,
        SAMPLER_E_BUSY,
};
int sampler_add(Sampler *s, TargetId id, const TargetSpec *spec);
int sampler_remove(Sampler *s, TargetId id);
/* Threads of that process may soon be sampled: what it runs is to be known by then. May be left undone. */
void sampler_prepare(Sampler *s, pid_t pid);

struct Mailbox;
struct Mailbox *sampler_events(Sampler *s); /* of SamplerEvent, read by main */

unsigned sampler_n_targets(Sampler *s);
/* Whether it was woken up late lately: all CPUs are busy. */
bool sampler_needs_realtime(Sampler *s);
/* When the sampler began its current round (0: asleep): the watchdog's. */
uint64_t sampler_busy_since_mono_ns(Sampler *s);
