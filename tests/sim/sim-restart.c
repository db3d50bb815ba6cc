/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "core/counter.h"
#include "oap/rpc.h"
#include "oap/session.h"
#include "skywalking.pb-c.h"
#include "store/op.h"
#include "util/log.h"

/*
 * Core, session and database in an invented world: its time, programs with spans, a sampler that
 * always succeeds, a network and an OAP that fail in every way, a disk that takes its time, and a
 * daemon that is killed at any moment. What the OAP has in the end must be right.
 */

#define TICK_NS   (10 * NS_PER_MS)
#define RUN_MS    (20 * 60 * 1000)
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
        uint64_t receive_ns, done_ns;
        bool received, failed, sent, refused;
        void *reply;
        size_t reply_size;
        RpcDone done;
        void *userdata;
} Call;

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
        bool outage, disk_fails, disk_fails_now_and_then;
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
        uint64_t n_received, n_holes, n_ambiguous_kills, n_kills;

        Call calls[CALLS_MAX];
        unsigned n_calls;
        uint64_t n_refused; /* for that */

        char path[64];
        Database *database;
        Keep keep;
        DiskOp ops[OPS_MAX];
        unsigned n_ops;
} World;

static World w;

static uint64_t random_n(uint64_t n)
{
        w.random ^= w.random << 13;
        w.random ^= w.random >> 7;
        w.random ^= w.random << 17;
        return w.random % n;
}

static uint32_t random_u32(void)
{
        return (uint32_t)random_n(UINT32_MAX);
}

static Now world_now(void)
{
        return (Now){
                .mono_ns = w.now_ns, .wall_ms = (int64_t)(w.now_ns / NS_PER_MS) + w.wall_offset_ms};
}

static uint64_t elapsed_ms(void)
{
        return (w.now_ns - w.start_ns) / NS_PER_MS;
}

/* ---- the OAP ---- */

static unsigned task_index(const char *id)
{
        for (unsigned i = 0; i < N_TASKS; i++)
                if (strcmp(w.tasks[i].id, id) == 0)
                        return i;
        cr_assert_fail("no task %s", id);
        return 0;
}

static unsigned app_index(const char *name)
{
        cr_assert(name[0] == 'a' && name[1] >= '0' && name[1] < '0' + N_APPS, "%s", name);
        return (unsigned)(name[1] - '0');
}

static SimSegment *oap_segment(const char *id, unsigned task)
{
        SimSegment *s;

        for (unsigned i = 0; i < w.n_segments; i++)
                if (strcmp(w.segments[i].id, id) == 0)
                        return &w.segments[i];
        cr_assert_lt(w.n_segments, SEGMENTS_MAX);
        s = &w.segments[w.n_segments++];
        snprintf(s->id, sizeof(s->id), "%s", id);
        s->task = task;
        cr_assert_leq(++w.tasks[task].n_segments[app_index(id)], (unsigned)w.tasks[task].count,
                "too many segments of task %u", task);
        return s;
}

static void oap_snapshot(RpcBytes bytes)
{
        Skywalking__V3__ThreadSnapshot *m =
                skywalking__v3__thread_snapshot__unpack(NULL, bytes.size, bytes.data);
        unsigned task;
        SimSegment *s;

        cr_assert(m);
        task = task_index(m->taskid);
        s = oap_segment(m->tracesegmentid, task);
        cr_assert_eq(s->task, task);
        cr_assert_lt(m->sequence, SNAPSHOTS_MAX);
        if (w.config.oap_redelivery == REDELIVERY_AT_LEAST_ONCE && m->sequence < s->next) {
                cr_assert_eq(s->times_ms[m->sequence], m->time, "another one than before");
                skywalking__v3__thread_snapshot__free_unpacked(m, NULL);
                return;
        }
        cr_assert_geq(m->sequence, s->next, "%s: %d came again, or too late", s->id, m->sequence);
        cr_assert_geq(m->time, s->time_ms, "%s: time goes back", s->id);
        cr_assert_eq(w.tasks[task].n_finishes[app_index(s->id)], 0, "the task is over");
        w.n_holes += (uint64_t)(m->sequence - s->next);
        s->next = m->sequence + 1;
        s->time_ms = s->times_ms[m->sequence] = m->time;
        w.n_received++;
        skywalking__v3__thread_snapshot__free_unpacked(m, NULL);
}

static void oap_report(RpcBytes bytes)
{
        Skywalking__V3__SegmentObject *m =
                skywalking__v3__segment_object__unpack(NULL, bytes.size, bytes.data);

        cr_assert(m);
        for (unsigned i = 0; i < w.n_segments; i++)
                if (strcmp(w.segments[i].id, m->tracesegmentid) == 0)
                        cr_assert_eq(w.segments[i].n_reports++, 0, "%s is reported again",
                                m->tracesegmentid);
        skywalking__v3__segment_object__free_unpacked(m, NULL);
}

static void oap_finish(RpcBytes bytes)
{
        Skywalking__V3__ProfileTaskFinishReport *m =
                skywalking__v3__profile_task_finish_report__unpack(NULL, bytes.size, bytes.data);

        cr_assert(m);
        w.tasks[task_index(m->taskid)].n_finishes[app_index(m->serviceinstance)]++;
        skywalking__v3__profile_task_finish_report__free_unpacked(m, NULL);
}

static Skywalking__V3__Command *command_of(const SimTask *t, char values[8][32],
        Skywalking__V3__KeyStringValuePair *pairs, Skywalking__V3__KeyStringValuePair **list)
{
        static Skywalking__V3__Command m;
        static const char *const keys[8] = {"TaskId", "EndpointName", "Duration",
                "MinDurationThreshold", "DumpPeriod", "MaxSamplingCount", "StartTime",
                "CreateTime"};
        const long long numbers[8] = {
                0, 0, t->minutes, 100, 20, t->count, t->create_ms, t->create_ms};

        skywalking__v3__command__init(&m);
        m.command = (char *)"ProfileTaskQuery";
        for (unsigned i = 0; i < 8; i++) {
                skywalking__v3__key_string_value_pair__init(&pairs[i]);
                snprintf(values[i], 32, "%lld", numbers[i]);
                pairs[i].key = (char *)keys[i];
                pairs[i].value = values[i];
                list[i] = &pairs[i];
        }
        pairs[0].value = (char *)t->id;
        pairs[1].value = (char *)"/slow";
        m.args = list;
        m.n_args = 8;
        return &m;
}

/* Answers with the first task that was not asked for yet. */
static void oap_poll(Call *c)
{
        Skywalking__V3__ProfileTaskCommandQuery *q =
                skywalking__v3__profile_task_command_query__unpack(
                        NULL, c->messages[0].size, c->messages[0].data);
        Skywalking__V3__Commands m = SKYWALKING__V3__COMMANDS__INIT;
        Skywalking__V3__KeyStringValuePair pairs[8], *list[8];
        Skywalking__V3__Command *command;
        char values[8][32];

        cr_assert(q);
        for (unsigned i = 0; i < N_TASKS && m.n_commands == 0; i++)
                if (w.tasks[i].create_ms > q->lastcommandtime &&
                        w.tasks[i].create_ms <= world_now().wall_ms) {
                        command = command_of(&w.tasks[i], values, pairs, list);
                        m.commands = &command;
                        m.n_commands = 1;
                }
        skywalking__v3__profile_task_command_query__free_unpacked(q, NULL);
        c->reply_size = skywalking__v3__commands__get_packed_size(&m);
        c->reply = malloc(c->reply_size + 1);
        skywalking__v3__commands__pack(&m, c->reply);
}

/* The first n messages have come. */
static void oap_receive(Call *c, size_t n)
{
        if (strstr(c->method, "getProfileTaskCommands") && n > 0)
                oap_poll(c);
        for (size_t i = 0; i < n; i++) {
                if (strstr(c->method, "collectSnapshot"))
                        oap_snapshot(c->messages[i]);
                else if (strstr(c->method, "reportTaskFinish"))
                        oap_finish(c->messages[i]);
                else if (strstr(c->method, "/collect"))
                        oap_report(c->messages[i]);
        }
}

/* ---- the network, instead of rpc.c ---- */

const char *rpc_status_name(int status)
{
        return "status";
}

int rpc_channel_new(RpcChannel **ret, const RpcTarget *target)
{
        static RpcChannel channel;

        *ret = &channel;
        return 0;
}

RpcChannel *rpc_channel_unref(RpcChannel *channel)
{
        return NULL;
}

bool rpc_channel_ready(RpcChannel *channel)
{
        return true;
}

uint64_t rpc_quiet_since_mono_ns(const RpcClient *client, const RpcChannel *channel)
{
        return UINT64_MAX;
}

/* There is but one server. */
void rpc_cancel(RpcClient *client, const RpcChannel *channel)
{
}

int rpc_client_new(RpcClient **ret)
{
        static RpcClient client;

        *ret = &client;
        return 0;
}

static void call_free(Call *c)
{
        for (size_t i = 0; i < c->n; i++)
                free((void *)c->messages[i].data);
        free(c->messages);
        free(c->reply);
}

/* What is under way may arrive all the same, or some of it. */
RpcClient *rpc_client_free(RpcClient *client)
{
        for (unsigned i = 0; i < w.n_calls; i++) {
                if (!w.calls[i].received && random_n(2) && !w.outage)
                        oap_receive(&w.calls[i], random_n(w.calls[i].n + 1));
                call_free(&w.calls[i]);
        }
        w.n_calls = 0;
        return NULL;
}

int rpc_client_fd(const RpcClient *c)
{
        return -1;
}

int rpc_call(RpcClient *client, RpcChannel *channel, const char *method, const RpcBytes *messages,
        size_t n_messages, uint32_t deadline_ms, RpcDone done, void *userdata)
{
        uint64_t latency_ms = random_n(50) == 0 ? random_n(3000) : 1 + random_n(60);
        Call *c = &w.calls[w.n_calls++];

        cr_assert_leq(w.n_calls, CALLS_MAX);
        *c = (Call){.n = n_messages,
                .done = done,
                .userdata = userdata,
                .receive_ns = w.now_ns + latency_ms / 2 * NS_PER_MS,
                .done_ns = w.now_ns + latency_ms * NS_PER_MS};
        snprintf(c->method, sizeof(c->method), "%s", method);
        c->messages = calloc(n_messages + 1, sizeof(*c->messages));
        cr_assert(c->messages);
        for (size_t i = 0; i < n_messages; i++) {
                void *copy = malloc(messages[i].size + 1);

                memcpy(copy, messages[i].data, messages[i].size);
                c->messages[i] = (RpcBytes){copy, messages[i].size};
        }
        /* Some hang. */
        if (w.outage && random_n(4) == 0)
                c->done_ns = w.now_ns + deadline_ms * NS_PER_MS;
        return 0;
}

static void call_receive(Call *c)
{
        c->received = true;
        if (w.unsupported && strstr(c->method, w.unsupported)) {
                c->failed = c->sent = c->refused = true;
                w.n_refused++;
                return;
        }
        c->failed = w.outage || random_n(100) == 0;
        if (!c->failed) {
                oap_receive(c, c->n);
                return;
        }
        c->sent = random_n(3) == 0;
        if (c->sent)
                oap_receive(c, random_n(c->n + 1));
}

void rpc_dispatch(RpcClient *client)
{
        for (unsigned i = 0; i < w.n_calls; i++)
                if (!w.calls[i].received && w.calls[i].receive_ns <= w.now_ns)
                        call_receive(&w.calls[i]);
        for (unsigned i = 0; i < w.n_calls;) {
                Call c = w.calls[i];
                RpcResult result = {.status = RPC_OK, .message = ""};

                if (c.done_ns > w.now_ns) {
                        i++;
                        continue;
                }
                memmove(&w.calls[i], &w.calls[i + 1], (--w.n_calls - i) * sizeof(*w.calls));
                /* The answer may get lost, too. */
                if (!c.failed && w.outage) {
                        c.failed = true;
                        c.sent = true;
                }
                if (c.failed) {
                        result.status = c.refused ? RPC_UNIMPLEMENTED : RPC_UNAVAILABLE;
                        result.sent = c.sent;
                } else {
                        result.sent = true;
                        result.reply = (RpcBytes){c.reply, c.reply_size};
                }
                c.done(c.userdata, &result);
                call_free(&c);
        }
}

/* ---- the disk ---- */

static bool keep_works(void *userdata)
{
        return w.session && !w.disk_fails;
}

static int disk_push(Op *op)
{
        uint64_t latency_ms = random_n(100) == 0 ? random_n(2000) : random_n(20);
        uint64_t due_ns = w.now_ns + latency_ms * NS_PER_MS;

        cr_assert(op);
        cr_assert_lt(w.n_ops, OPS_MAX);
        if (w.n_ops > 0 && w.ops[w.n_ops - 1].due_ns > due_ns)
                due_ns = w.ops[w.n_ops - 1].due_ns;
        w.ops[w.n_ops++] = (DiskOp){.op = op, .due_ns = due_ns};
        return 0;
}

static int keep_record(
        void *userdata, const KeepRecord *record, KeepRecorded done, void *done_userdata)
{
        /* Of a daemon that was killed nothing comes any more. */
        return w.session ? disk_push(op_new_record(record, done, done_userdata)) : -1;
}

static int keep_load(void *userdata, size_t n, KeepLoaded done, void *done_userdata)
{
        return w.session ? disk_push(op_new_load(n, done, done_userdata)) : -1;
}

static void keep_task_reported(
        void *userdata, const char *service, const char *instance, const char *task_id)
{
        disk_push(op_new_task_end(
                service, instance, task_id, KEPT_TASK_REPORTED, world_now().wall_ms));
}

static void disk_do(DiskOp *d)
{
        if (d->done)
                return;
        d->done = true;
        cr_assert_eq(database_begin(w.database, false), 0);
        if (w.disk_fails || op_do(d->op, w.database, 64 << 20) != 0) {
                cr_assert(w.disk_fails, "%s", database_error(w.database));
                op_fail(d->op);
                database_rollback(w.database);
                return;
        }
        cr_assert_eq(database_commit(w.database), 0);
}

static void disk_step(void)
{
        while (w.n_ops > 0 && w.ops[0].due_ns <= w.now_ns) {
                DiskOp d = w.ops[0];

                disk_do(&d);
                memmove(w.ops, w.ops + 1, --w.n_ops * sizeof(*w.ops));
                op_answer(d.op);
                op_free(d.op);
        }
}

/* Any number of what waits was still done. */
static void disk_kill(void)
{
        unsigned n = (unsigned)random_n(w.n_ops + 1);

        for (unsigned i = 0; i < w.n_ops; i++) {
                if (i < n)
                        disk_do(&w.ops[i]);
                op_free(w.ops[i].op);
        }
        w.n_ops = 0;
}

/* ---- what the core asks for ---- */

static void on_target_add(void *userdata, TargetId id, const TargetSpec *spec)
{
        cr_assert_lt(w.n_targets, TARGETS_MAX);
        w.targets[w.n_targets].id = id;
        w.targets[w.n_targets].due_ns = w.now_ns;
        w.targets[w.n_targets++].period_ns = spec->period_ns;
}

static void on_target_remove(void *userdata, TargetId id)
{
        for (unsigned i = 0; i < w.n_targets; i++)
                if (w.targets[i].id == id)
                        w.targets[i] = w.targets[--w.n_targets];
}

static void on_instance(void *userdata, Instance *i)
{
}

static void on_task_added(void *userdata, const Task *task)
{
        disk_push(op_new_task(task));
}

static void on_command_seen(void *userdata, const Instance *i)
{
        disk_push(op_new_instance(i, world_now().wall_ms));
}

static bool on_snapshot(void *userdata, const Snapshot *snapshot)
{
        return session_snapshot(w.session, snapshot);
}

static void on_segment_done(void *userdata, const SegmentReport *report, bool wanted)
{
        if (wanted)
                session_segment_done(w.session, report);
}

static void on_task_finished(void *userdata, const TaskSource *source, const char *service,
        const char *instance, const char *task_id)
{
        disk_push(op_new_task_end(service, instance, task_id, KEPT_TASK_OVER, world_now().wall_ms));
        session_task_finished(w.session, service, instance, task_id);
}

static const CoreOps ops = {
        .target_add = on_target_add,
        .target_remove = on_target_remove,
        .watch_changed = on_instance,
        .prepare = on_instance,
        .snapshot = on_snapshot,
        .segment_done = on_segment_done,
        .task_added = on_task_added,
        .command_seen = on_command_seen,
        .task_finished = on_task_finished,
};

/* ---- the daemon ---- */

static Instance *restore_get(const char *service, const char *name, int64_t last)
{
        Instance *i;

        cr_assert_eq(core_restore_instance(w.core, &i, service, name, last, world_now()), 0);
        return i;
}

static void restore_instance(void *userdata, const KeptInstance *k)
{
        restore_get(k->service, k->instance, k->last_command_wall_ms);
}

static void restore_task(void *userdata, const KeptTask *k)
{
        Instance *i = restore_get(k->service, k->instance, -1);
        TaskCommand command = {.task_id = k->task_id,
                .endpoint = k->endpoint,
                .duration_min = (k->end_wall_ms - k->start_wall_ms) / 60000,
                .threshold_ms = k->threshold_ms,
                .period_ms = k->period_ms,
                .max_sampling_count = k->max_sampling_count,
                .start_wall_ms = k->start_wall_ms};

        if (k->state == KEPT_TASK_LIVE) {
                cr_assert_eq(core_restore_task(w.core, i, &command, world_now()), 0);
                return;
        }
        cr_assert_eq(core_restore_finished(w.core, i, k->task_id), 0);
        if (k->state == KEPT_TASK_OVER)
                session_task_finished(w.session, k->service, k->instance, k->task_id);
}

static void restore_segment(void *userdata, const KeptSegment *k, size_t n_snapshots)
{
        Instance *i = restore_get(k->service, k->instance, -1);
        RestoredSegment segment = {.task_id = k->task_id,
                .segment_id = k->segment_id,
                .n_snapshots = k->next_sequence + (int32_t)n_snapshots,
                .first_wall_ms = k->first_wall_ms,
                .last_wall_ms = k->last_wall_ms};
        bool lives = false;
        Task *task;

        list_for_each (task, &i->tasks, link)
                lives = lives || strcmp(task->id, k->task_id) == 0;
        cr_assert_eq(
                session_restore_segment(w.session, k, n_snapshots, lives, &segment.continues), 0);
        core_restore_segment(w.core, i, &segment);
}

static void daemon_start(void)
{
        uint64_t n_ambiguous = counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS);

        w.keep = (Keep){.last_id = database_last_id(w.database),
                .works = keep_works,
                .record = keep_record,
                .load = keep_load,
                .task_reported = keep_task_reported};
        cr_assert_eq(core_new(&w.core, &w.config, &ops, NULL), 0);
        cr_assert_eq(session_new(&w.session, &w.config, w.core, &w.keep, random_u32), 0);
        session_step(w.session, world_now());
        cr_assert_eq(database_begin(w.database, false), 0);
        cr_assert_eq(database_sweep(w.database, world_now().wall_ms), 0);
        cr_assert_eq(database_commit(w.database), 0);
        cr_assert_eq(database_instances(w.database, restore_instance, NULL), 0);
        cr_assert_eq(database_tasks(w.database, restore_task, NULL), 0);
        cr_assert_eq(database_segments(w.database, restore_segment, NULL), 0);
        w.n_ambiguous_kills += counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS) - n_ambiguous;
        for (unsigned i = 0; i < N_APPS; i++)
                w.apps[i].connect_ns = w.now_ns + random_n(2000) * NS_PER_MS;
}

static void daemon_kill(void)
{
        Session *session = w.session;
        uint64_t n_ambiguous = counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS);

        disk_kill();
        w.session = NULL;
        session_free(session);
        w.core = core_free(w.core);
        w.n_targets = 0;
        for (unsigned i = 0; i < N_APPS; i++)
                w.apps[i].instance = NULL;
        w.n_kills++;
        /* It said nothing any more. */
        w.n_ambiguous_kills += counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS) - n_ambiguous;
}

/* ---- the programs ---- */

static void span_announce(App *a, unsigned thread)
{
        const SimSpan *s = &a->spans[thread];
        SpanStartEvent event = {.segment_id = s->id,
                .operation = "/slow",
                .trace_id = "",
                .pid = 100 + (pid_t)app_index(a->name),
                .tid = 1000 + (pid_t)(app_index(a->name) * N_THREADS + thread),
                .start_mono_ns = s->start_ns};

        if (a->instance && s->live)
                core_span_start(w.core, a->instance, a->client, &event, world_now());
}

static void app_connect(App *a)
{
        cr_assert_eq(
                core_instance_attach(w.core, &a->instance, "svc", a->name, false, world_now()), 0);
        a->client = ++w.n_clients;
        session_instance_added(w.session, a->instance, world_now());
        for (unsigned i = 0; i < N_THREADS; i++)
                span_announce(a, i);
}

static void app_step(App *a)
{
        if (w.session && !a->instance && a->connect_ns <= w.now_ns)
                app_connect(a);
        for (unsigned i = 0; i < N_THREADS; i++) {
                SimSpan *s = &a->spans[i];

                if (s->live && s->end_ns <= w.now_ns) {
                        s->live = false;
                        if (a->instance)
                                core_span_stop(w.core, a->client, s->id, s->end_ns,
                                        random_n(5) == 0, world_now());
                } else if (!s->live && random_n(20) == 0) {
                        uint64_t ms = random_n(3) ? 20 + random_n(300) : 1000 + random_n(60000);

                        *s = (SimSpan){.live = true,
                                .start_ns = w.now_ns,
                                .end_ns = w.now_ns + ms * NS_PER_MS};
                        snprintf(s->id, sizeof(s->id), "%s.%llu", a->name,
                                (unsigned long long)++w.n_spans);
                        span_announce(a, i);
                }
        }
}

static void sampler_step(void)
{
        Now now = world_now();

        for (unsigned i = 0; i < w.n_targets; i++)
                if (w.targets[i].due_ns <= w.now_ns) {
                        w.targets[i].due_ns += w.targets[i].period_ns;
                        core_samples(w.core, w.targets[i].id,
                                &(SampleRun){.mono_ns = w.now_ns,
                                        .wall_ns = (uint64_t)now.wall_ms * NS_PER_MS,
                                        .n = 1,
                                        .stack = w.stacks[random_n(4)]},
                                (ThreadTimes){0}, now);
                }
}

static void world_tick(void)
{
        w.now_ns += TICK_NS;
        for (unsigned i = 0; i < N_APPS; i++)
                app_step(&w.apps[i]);
        if (!w.session)
                return;
        sampler_step();
        if (core_next_mono_ns(w.core, world_now()) <= w.now_ns)
                core_step(w.core, world_now());
        session_dispatch(w.session, world_now());
        disk_step();
        if (session_next_mono_ns(w.session) <= w.now_ns)
                session_step(w.session, world_now());
}

/* ---- the story ---- */

static void world_begin(uint64_t seed)
{
        char *error;

        log_set_max_level(-1);
        w.random = seed * 0x9e3779b97f4a7c15 + 1;
        w.now_ns = w.start_ns = mono_now_ns();
        w.wall_offset_ms = 1700000000000LL - (int64_t)(w.now_ns / NS_PER_MS);
        cr_assert_eq(config_init_default(&w.config, &error), 0);
        w.config.oap_buffer_bytes = 1 << 20;
        for (unsigned i = 0; i < 4; i++) {
                w.stacks[i] = stack_new();
                cr_assert_eq(stack_set_ready(w.stacks[i], 2,
                                     (const char *const[]){
                                             "main", (const char *[]){"a", "b", "c", "d"}[i]}),
                        0);
        }
        for (unsigned i = 0; i < N_APPS; i++)
                snprintf(w.apps[i].name, sizeof(w.apps[i].name), "a%u", i);
        w.tasks[0] = (SimTask){.minutes = 4, .count = 9, .create_ms = 5000};
        w.tasks[1] = (SimTask){.minutes = 1, .count = 3, .create_ms = 300000};
        w.tasks[2] = (SimTask){.minutes = 10, .count = 9, .create_ms = 420000};
        for (unsigned i = 0; i < N_TASKS; i++) {
                snprintf(w.tasks[i].id, sizeof(w.tasks[i].id), "task-%u", i);
                w.tasks[i].create_ms += world_now().wall_ms;
        }
        snprintf(w.path, sizeof(w.path), "/tmp/sim-restart.XXXXXX");
        close(mkstemp(w.path));
        cr_assert_eq(database_open(&w.database, &database_spool, w.path, 64 << 20, &error), 0);
        daemon_start();
}

static void world_run(unsigned kill_one_in)
{
        while (elapsed_ms() < RUN_MS) {
                world_tick();
                /* Away for 20 s now and then, for a moment more often. */
                if (w.outage ? random_n(2000) == 0 : random_n(6000) == 0)
                        w.outage = !w.outage;
                if (w.disk_fails_now_and_then && random_n(1000) == 0)
                        w.disk_fails = !w.disk_fails;
                if (random_n(30000) == 0)
                        w.wall_offset_ms += (int64_t)random_n(10000) - 5000;
                if (w.session && kill_one_in && random_n(kill_one_in) == 0)
                        daemon_kill();
                else if (!w.session && random_n(100) == 0)
                        daemon_start();
        }
        w.outage = false;
        w.disk_fails = w.disk_fails && !w.disk_fails_now_and_then;
        if (!w.session)
                daemon_start();
        while (elapsed_ms() < RUN_MS + SETTLE_MS)
                world_tick();
}

static uint64_t sum(const CounterId *ids, size_t n)
{
        uint64_t total = 0;

        for (size_t i = 0; i < n; i++)
                total += counter_get(ids[i]);
        return total;
}
#define SUM(...) \
        sum((CounterId[]){__VA_ARGS__}, sizeof((CounterId[]){__VA_ARGS__}) / sizeof(CounterId))

static void world_free(void)
{
        daemon_kill();
        for (unsigned i = 0; i < 4; i++) {
                cr_assert_eq(w.stacks[i]->n_refs, 1);
                stack_unref(w.stacks[i]);
        }
        database_close(w.database);
        unlink(w.path);
        config_deinit(&w.config);
}

static void world_end(void)
{
        SessionStatus status = session_status(w.session);
        uint64_t n_ambiguous = counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS) - w.n_ambiguous_kills;

        printf("%llu received of %u segments, %llu holes, %llu ambiguous, %llu kept, %llu kills, "
               "%llu resumed\n",
                (unsigned long long)w.n_received, w.n_segments, (unsigned long long)w.n_holes,
                (unsigned long long)n_ambiguous,
                (unsigned long long)counter_get(COUNTER_SNAPSHOTS_KEPT),
                (unsigned long long)w.n_kills,
                (unsigned long long)counter_get(COUNTER_SEGMENTS_RESUMED));
        cr_assert_eq(status.n_buffered, 0, "%llu are still buffered",
                (unsigned long long)status.n_buffered);
        cr_assert_geq(w.n_received, 1000);
        /* Nothing is missing in between but what a call that failed midway has taken along. */
        cr_assert_leq(w.n_holes, n_ambiguous);
        for (unsigned t = 0; t < N_TASKS; t++)
                for (unsigned a = 0; a < N_APPS; a++)
                        cr_assert_geq(w.tasks[t].n_finishes[a], 1, "task %u of a%u", t, a);
        if (w.n_kills == 0) {
                uint64_t n_given_up = w.config.oap_redelivery == REDELIVERY_AT_MOST_ONCE
                                              ? counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS)
                                              : 0;

                cr_assert_eq(counter_get(COUNTER_SNAPSHOTS_QUEUED),
                        n_given_up + SUM(COUNTER_SNAPSHOTS_SENT, COUNTER_SNAPSHOTS_THINNED,
                                             COUNTER_SNAPSHOTS_KEPT_OVER,
                                             COUNTER_SNAPSHOTS_KEPT_LOST));
                cr_assert_eq(counter_get(COUNTER_SNAPSHOTS_KEPT_LOST), 0);
        }
        world_free();
}

#define N_SEEDS 16

ParameterizedTestParameters(sim_restart, killed)
{
        static uint64_t seeds[N_SEEDS];

        for (uint64_t i = 0; i < N_SEEDS; i++)
                seeds[i] = i + 1;
        return cr_make_param_array(uint64_t, seeds, N_SEEDS);
}

/* The daemon is killed each 20 s or so. */
ParameterizedTest(const uint64_t *seed, sim_restart, killed)
{
        world_begin(*seed);
        world_run(2000);
        world_end();
}

/* All in memory, where there is little: thinned, then refused, and in sequence all the same. */
Test(sim_restart, without_a_disk)
{
        world_begin(5);
        w.disk_fails = true;
        w.config.oap_buffer_bytes = 16 << 10;
        world_run(0);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT), 0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_THINNED), 0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_DROPPED), 0);
        world_end();
}

/* Nothing is lost for it but records. */
Test(sim_restart, the_disk_fails_now_and_then)
{
        world_begin(97);
        w.disk_fails_now_and_then = true;
        world_run(0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_KEPT), 0);
        cr_expect_gt(counter_get(COUNTER_STORE_RECORDS_LOST), 0);
        world_end();
}

/* The same ones under the same numbers, and none is missing. */
Test(sim_restart, at_least_once)
{
        world_begin(96);
        w.config.oap_redelivery = REDELIVERY_AT_LEAST_ONCE;
        world_run(0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS), 0);
        cr_expect_eq(w.n_holes, 0);
        cr_expect_eq(w.n_received,
                counter_get(COUNTER_SNAPSHOTS_QUEUED) - counter_get(COUNTER_SNAPSHOTS_THINNED));
        world_end();
}

Test(sim_restart, at_least_once_and_killed)
{
        world_begin(95);
        w.config.oap_redelivery = REDELIVERY_AT_LEAST_ONCE;
        world_run(2000);
        cr_expect_eq(w.n_holes, 0);
        world_end();
}

Test(sim_restart, outages_alone)
{
        world_begin(99);
        world_run(0);
        cr_expect_gt(counter_get(COUNTER_SNAPSHOTS_KEPT), 0);
        world_end();
}

/* What is on disk waits there; the backend is not asked again and again. */
Test(sim_restart, the_backend_loses_profiling)
{
        uint64_t n_kept, n_refused;

        world_begin(94);
        while (session_status(w.session).n_kept < 1500) {
                cr_assert_lt(elapsed_ms(), RUN_MS);
                world_tick();
                /* Tasks must come. */
                w.outage = elapsed_ms() > 30000;
        }
        w.outage = false;
        n_kept = session_status(w.session).n_kept;
        while (session_status(w.session).n_kept >= n_kept)
                world_tick();
        w.unsupported = "collectSnapshot";
        while (w.n_refused == 0)
                world_tick();
        n_kept = session_status(w.session).n_kept;
        n_refused = w.n_refused;
        for (int i = 0; i < 6000; i++)
                world_tick();
        cr_expect_leq(w.n_refused, n_refused + 1);
        cr_expect_geq(session_status(w.session).n_kept, n_kept);
        cr_expect_gt(n_kept, 0);
        world_free();
}

static void count_report(void *userdata, const KeptSegment *k, size_t n_snapshots)
{
        if (k->report_size > 0)
                ++*(unsigned *)userdata;
}

/* Those that nobody takes do not stay on disk for that. */
Test(sim_restart, a_backend_without_trace_segments)
{
        unsigned n_reports = 0;

        world_begin(93);
        w.unsupported = "TraceSegmentReportService";
        world_run(0);
        cr_expect_gt(counter_get(COUNTER_TRACE_SEGMENTS_LOST), 10);
        cr_assert_eq(w.n_ops, 0);
        cr_assert_eq(database_segments(w.database, count_report, &n_reports), 0);
        cr_expect_eq(n_reports, 0, "%u", n_reports);
        world_end();
}
