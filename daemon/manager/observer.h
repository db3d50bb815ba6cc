/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/core.h"
#include "manager/sampler.h"
#include "util/cleanup.h"
#include "util/list.h"

/*
 * Threads of a process, sampled because somebody asks for their stacks, with no span: what
 * `swprofctl dump` and `record` show. New threads join, ended ones stay in the result. Or those of
 * profiled segments, which are sampled anyway: what `top` shows. Main thread. Nothing is written
 * down: an Observer is memory, and bounded.
 */

typedef struct ObserverSpec {
        pid_t pid; /* 0: profiled segments, each stretch on a thread is one */
        pid_t tid; /* 0: all threads */
        uint64_t period_ns;
        uint64_t duration_ns; /* 0: one sample of each thread */
        /* At a time: the others are left out. Of profiled segments: in all, it ends then. */
        size_t max_threads;
} ObserverSpec;

/* n samples, a period apart. */
typedef struct ObservedSample {
        uint64_t wall_ns;
        uint64_t period_ns;
        uint32_t n;
        Stack *stack;                      /* a reference, until it is named */
        const struct ObservedStack *known; /* then; NULL: it could not be had, or kept */
        ThreadState state;
} ObservedSample;

typedef struct ObservedThread {
        HashLink by_tid; /* of profiled segments: by the target's id */
        TargetId target;
        pid_t pid, tid;
        char name[16]; /* as the kernel cuts it */
        bool gone;
        uint64_t first_mono_ns, last_mono_ns; /* of the samples that came with times */
        ThreadTimes first, last;
        size_t n_samples, n_allocated, n_named;
        ObservedSample *samples;
} ObservedThread;

/* A stack, once for all samples with the same signatures. */
typedef struct ObservedStack {
        HashLink by_signatures;
        Stack *stack;
        uint32_t index; /* 0, 1, … in the order in which they came */
} ObservedStack;

typedef struct Observer Observer;

struct Observer {
        ListLink link;
        const struct ObserverOps *ops;
        void *userdata;
        ObserverSpec spec;
        int folder_fd;   /* /proc/PID: of no later process with that number */
        uint32_t number; /* part of its targets' ids */
        char name[16];   /* the process' */
        uint64_t start_mono_ns, stop_mono_ns, scan_mono_ns, last_step_mono_ns, give_up_mono_ns;
        int64_t start_wall_ms;
        bool sampling; /* its targets are at the sampler */
        bool full;     /* more came than it keeps */
        bool told;     /* of that */
        bool crowded;  /* there were more threads than max_threads */
        bool denied;   /* the process became what the caller may not look at */
        HashTable live;
        size_t n_threads;
        ObservedThread **threads;
        HashTable stacks;
        ObservedStack **stack_list; /* by index */
        size_t stack_bytes;
        size_t n_samples;
        struct ObserverSet *set;
        void *caller; /* the owner's */
};

typedef struct ObserverOps {
        void (*target_add)(void *userdata, TargetId id, const TargetSpec *spec);
        void (*target_remove)(void *userdata, TargetId id);
        /* Whether the caller may still look at the process: it may have become another program. */
        bool (*may)(void *userdata, const Observer *o);
        /* Its samples are there, and named. The observer may be freed here. */
        void (*done)(void *userdata, Observer *o);
} ObserverOps;

/* A first stack needs the binaries' tables: it is waited for, but not for ever. */
#define OBSERVER_GIVE_UP_NS (10 * NS_PER_S)

/* All observers of a daemon. */
typedef struct ObserverSet {
        const ObserverOps *ops;
        void *userdata;
        ListLink observers;
        unsigned n_observers;
        uint32_t last_number;
} ObserverSet;

void observer_set_init(ObserverSet *s, const ObserverOps *ops, void *userdata);
void observer_set_deinit(ObserverSet *s);

enum {
        _OBSERVER_E_SUCCESS,
        OBSERVER_E_GONE,  /* no such process or thread */
        OBSERVER_E_LIMIT, /* as many as there may be are at work */
};

/* Return: 0, OBSERVER_E_*, -errno. */
int observer_new(ObserverSet *s, Observer **ret, const ObserverSpec *spec, void *caller, Now now);
Observer *observer_free(Observer *o);
DEFINE_CLEANUP(Observer *, observer_free)

/* It ends now with what it has. */
void observer_stop(Observer *o, Now now);

/* Whether that target is an observer's. */
bool observer_owns(TargetId id);
/* Samples of such a target; `stack` is borrowed, NULL: its times alone. Those that come too late are dropped. */
void observers_sample(ObserverSet *s, const SamplerEvent *event, Stack *stack, Now now);
/* Samples of another target, with its stack: of a thread that is profiled. */
void observers_profiled(
        ObserverSet *s, const SamplerEvent *event, pid_t pid, pid_t tid, Stack *stack, Now now);
void observers_gone(ObserverSet *s, TargetId id, Now now);

/* Looks for new threads, and for observers that are done. Call when stacks were named, too. */
void observers_step(ObserverSet *s, Now now);
/* UINT64_MAX: never. */
uint64_t observers_next_mono_ns(const ObserverSet *s);
