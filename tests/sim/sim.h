/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"

/* Of all clients. */
#define SIM_UID 7

/*
 * A world for the core: a clock that stands still until it is told to move, threads, a sampler that
 * samples the core's targets at their due times, clients whose words take a while, a symbolizer, and
 * a sink that checks each snapshot against what really was. Times of the interface are milliseconds
 * since the beginning of the world.
 */

#define SIM_SPANS   8192
#define SIM_TARGETS 512
#define SIM_TASKS   256
#define SIM_THREADS 65536

/* The thread that carried a span from one moment to before another. */
typedef struct SimStretch {
        int tid;
        bool parked; /* with a stack */
        uint64_t from_ns, to_ns;
} SimStretch;

/* What a span really was, and what came of it. */
typedef struct SimSpan {
        char id[24], parent[24];
        uint64_t client;
        int tid;
        bool live;
        uint64_t start_ns, stop_ns; /* UINT64_MAX while it is live */
        uint64_t request_start_ns;  /* start of the first span of its request */
        SimStretch *stretches;
        unsigned n_stretches;

        char task[24]; /* of the snapshots */
        unsigned n_snapshots, n_begun, n_done;
        unsigned n_valid; /* samples that were taken while and where it ran */
        int64_t first_wall_ms, last_wall_ms;
        SegmentReport report; /* numbers and flags only */
        bool report_wanted;
} SimSpan;

typedef struct SimTask {
        char id[24];
        uint32_t threshold_ms, max_sampling_count;
        int result; /* of core_task_add */
        unsigned n_sampled, n_finished;
} SimTask;

typedef struct SimTarget {
        TargetId id;
        TargetSpec spec;
        uint64_t due_ns; /* UINT64_MAX: removed, or its thread has ended */
        bool active;
        Stack *stack;  /* the last one, for threads that sleep */
        SampleRun run; /* of these, not yet sent; n 0: none */
} SimTarget;

typedef enum SimItemType {
        SIM_START,
        SIM_CONTINUE,
        SIM_RENAME,
        SIM_STOP,
        SIM_SWITCH,
        SIM_CLIENT_GONE,
        SIM_SAMPLE,
        SIM_THREAD_GONE,
        SIM_STACK,
} SimItemType;

/* Something under way. */
typedef struct SimItem {
        SimItemType type;
        uint64_t at_ns, number;
        uint64_t client;
        char id[24], parent[24], operation[24];
        int tid;
        uint64_t mono_ns, wall_ns;
        bool error;
        TargetId target;
        uint64_t period_ns;
        uint32_t n; /* samples */
        Stack *stack;
} SimItem;

typedef struct SimClient {
        uint64_t id;
        Instance *instance;
} SimClient;

typedef struct Sim {
        Config config;
        Core *core;
        uint64_t begin_ns, now_ns;
        int64_t wall_offset_ms; /* wall = monotonic + offset */

        /* How the world behaves; may be changed at any time, latencies only while nothing is under
         * way. */
        uint64_t event_latency_ns, sample_latency_ns;
        uint64_t stack_latency_ns;   /* 0: READY when sampled */
        unsigned stack_fails_one_in; /* 0: never */
        unsigned refuse_one_in;      /* 0: never */
        unsigned refuse_after;       /* so many snapshots are taken; UINT32_MAX */
        int sleeping_from_tid; /* threads with such tids and above always have the same stack */
        unsigned run_max;      /* so many samples of them come together at most */
        bool stacks_never;     /* nothing is heard of a stack any more */

        SimSpan spans[SIM_SPANS];
        unsigned n_spans;
        SimTarget targets[SIM_TARGETS];
        SimTask tasks[SIM_TASKS];
        unsigned n_tasks;
        SimClient clients[16];
        unsigned n_clients;
        SimSpan *carries[SIM_THREADS]; /* by tid; one at a time */
        bool ended[SIM_THREADS];

        SimItem *items;
        size_t n_items, items_size;
        uint64_t n_numbers;
        uint64_t random;

        uint64_t n_captured, n_refused, n_prepares, n_watch_changes, n_adds, n_removes;
        uint64_t n_tasks_added, n_commands_seen;
        int result; /* of the last event that came to the core */
        uint64_t n_starts[CORE_E_UNKNOWN + 1], n_events[CORE_E_UNKNOWN + 1]; /* by result; others */
} Sim;

Sim *sim_new(void);
void sim_free(Sim *s);

/* With client 1 of instance "a" and the task "task": endpoint "/slow", threshold 200 ms, period
 * 10 ms, 5 segments, from the beginning for a minute. */
Sim *sim_with_task(Instance **ret_instance);
const Task *sim_first_task(const Sim *s);

uint64_t sim_random(Sim *s, uint64_t n); /* 0 … n-1 */
Now sim_now(const Sim *s);
uint64_t sim_ns(const Sim *s, uint64_t ms);
uint64_t sim_ms(const Sim *s);

/* Lets the time pass, with all that happens until then. */
void sim_to(Sim *s, uint64_t ms);
void sim_pass_ns(Sim *s, uint64_t ns);

Instance *sim_attach(Sim *s, uint64_t client, const char *instance, bool agent);
void sim_detach(Sim *s, uint64_t client);
Instance *sim_instance(Sim *s, uint64_t client);

/* `start_ms` since the beginning, as the wall clock stands now. Return: as core_task_add. */
int sim_task(Sim *s, Instance *i, const char *id, const char *endpoint, int64_t start_ms,
        int minutes, int threshold_ms, int period_ms, int max);

/* The monotonic clock stands still meanwhile, as does all that is under way. */
void sim_suspend(Sim *s, uint64_t ms);

/* These happen now; the core hears of it after the latency. */
SimSpan *sim_start(Sim *s, uint64_t client, const char *id, const char *operation, int tid);
SimSpan *sim_continue(Sim *s, uint64_t client, const char *parent, const char *id, int tid);
void sim_rename(Sim *s, const char *id, const char *operation);
void sim_stop(Sim *s, const char *id);
void sim_switch(Sim *s, const char *id, int tid);
/* On no thread, waiting at a stack that names the span's moment. */
void sim_park(Sim *s, const char *id);
void sim_client_gone(Sim *s, uint64_t client);
void sim_thread_end(Sim *s, int tid);

SimSpan *sim_span(Sim *s, const char *id);
SimTask *sim_find_task(Sim *s, const char *id);
unsigned sim_active_targets(const Sim *s);
/* Of the sim's only target that is active. */
const TargetSpec *sim_target(const Sim *s);

/* What must hold at any moment; looked at whenever time has passed. */
void sim_check(Sim *s);

/* The live spans stop, the clients go, the tasks end: everything must come out even. Frees it. */
void sim_finish(Sim *s);
