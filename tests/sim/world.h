/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"
#include "oap/rpc.h"
#include "oap/session.h"
#include "store/op.h"

/*
 * Core, session and database in an invented world: its time, programs with spans, a sampler that
 * always succeeds, a network and an OAP that fail in every way, a disk that takes its time, and a
 * daemon that is killed at any moment. What the OAP has in the end must be right.
 *
 *   world.c          time, programs, sampler; the story and what must hold at its end
 *   world-daemon.c   the daemon: core and session, its start and its end
 *   world-disk.c     the database, instead of the store's thread
 *   world-network.c  calls, instead of rpc.c
 *   world-oap.c      what the OAP gets, and what it must not get
 */

#define TICK_NS   (10 * NS_PER_MS)
#define RUN_MS    (20 * 60 * 1000) /* of most stories */
#define SETTLE_MS (5 * 60 * 1000)

enum {
        N_APPS = 3,
        N_THREADS = 3,
        N_TASKS = 3,
        TARGETS_MAX = 256,
        CALLS_MAX = 256,
        OPS_MAX = 4096,
        SEGMENTS_MAX = 256,
        SNAPSHOTS_MAX = 8192,
};

typedef struct SimSpan {
        char id[32];
        bool live;
        uint64_t start_ns, end_ns;
} SimSpan;

typedef struct App {
        char name[16];
        Instance *instance; /* NULL: not connected */
        uint64_t client, connect_ns;
        SimSpan spans[N_THREADS];
} App;

/* A task as the OAP has it. */
typedef struct SimTask {
        char id[16];
        int64_t create_ms;
        int minutes, count;
        unsigned n_finishes[N_APPS], n_segments[N_APPS];
        uint64_t told_ns[N_APPS]; /* the daemon knows since then that its end is known; 0: no */
} SimTask;

typedef struct SimSegment {
        char id[32];
        unsigned task;
        int32_t next;
        int64_t time_ms;
        int64_t times_ms[SNAPSHOTS_MAX]; /* by number */
        unsigned n_reports;
} SimSegment;

/* A call under way. */
typedef struct Call {
        char method[64];
        RpcBytes *messages;
        size_t n;
        uint64_t receive_ns, done_ns, deadline_ns;
        bool received, failed, sent;
        int status; /* of one that failed */
        void *reply;
        size_t reply_size;
        RpcDone done;
        void *userdata;
} Call;

/* What becomes of a call. */
typedef enum Fate {
        FATE_GOOD,
        FATE_NOT_SENT,        /* nothing of it has left */
        FATE_NOTHING_ARRIVES, /* it is sent, and fails */
        FATE_HALF_ARRIVES,
        FATE_ANSWER_IS_LOST,
        FATE_NO_ANSWER, /* all arrives; fails at its deadline */
        FATE_HANGS,     /* so it does, and nothing arrives */
        FATE_EXHAUSTED, /* the OAP has too much to do: RESOURCE_EXHAUSTED */
        N_FATES,
} Fate;

struct RpcChannel {
        int unused;
};

struct RpcClient {
        int nothing;
};

typedef struct DiskOp {
        Op *op;
        uint64_t due_ns;
        bool done;
} DiskOp;

typedef struct World {
        Config config;
        Core *core;
        Session *session; /* NULL: no daemon runs */
        uint64_t now_ns, start_ns, random;
        int64_t wall_offset_ms;
        uint64_t run_ms, settle_ms; /* of its story, and of the calm after it */
        bool calm;                  /* nothing fails by chance, and clocks do not step */
        bool outage, disk_fails, disk_fails_now_and_then;
        uint64_t outage_end_ns;  /* 0: by chance */
        const char *unsupported; /* NULL: all is */

        struct {
                TargetId id;
                uint64_t due_ns, period_ns;
        } targets[TARGETS_MAX];
        unsigned n_targets;
        Stack *stacks[4];

        App apps[N_APPS];
        uint64_t n_clients, n_spans;
        SimTask tasks[N_TASKS];
        SimSegment segments[SEGMENTS_MAX];
        unsigned n_segments;
        uint64_t n_received, n_holes, n_ambiguous_kills, n_kills, n_reports;

        Call calls[CALLS_MAX];
        unsigned n_calls;
        uint64_t n_refused; /* for that */
        struct {
                const char *method;
                unsigned n_before; /* go well before that */
                Fate fate;         /* then there is an outage of 20 s; FATE_GOOD: that is over */
        } fault;

        char path[64];
        Database *database;
        Keep keep;
        DiskOp ops[OPS_MAX];
        unsigned n_ops;
} World;

extern World w;

uint64_t random_n(uint64_t n); /* 0 … n-1 */
uint32_t random_u32(void);
Now world_now(void);
uint64_t elapsed_ms(void);

/* ---- world-oap.c ---- */

/* The first n messages have come. */
void oap_receive(Call *c, size_t n);
/* The daemon has got the answer. */
void oap_answered(const Call *c);

/* ---- world-network.c ---- */

/* What is under way fails now. */
void network_break(void);

/* ---- world-disk.c ---- */

Keep disk_keep(void);
int disk_push(Op *op);
void disk_step(void);
/* Any number of what waits was still done. */
void disk_kill(void);

/* ---- world-daemon.c ---- */

void daemon_start(void);
void daemon_kill(void);

/* ---- world.c ---- */

unsigned app_index(const char *name);
void world_begin(uint64_t seed);
void world_tick(void);
/* The daemon is killed in one tick of so many; 0: never. */
void world_run(unsigned kill_one_in);
/* Everything must have come out even. Frees it. */
void world_end(void);
void world_free(void);
