/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Core and local backend together, in an invented world: a clock that is told to move, threads that
 * are sampled, and a store that checks what it is given, fails now and then, and outlives them.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/counter.h"
#include "local/local.h"
#include "util/log.h"

#define BEGIN_NS      (1000 * NS_PER_S)
#define WALL_BEGIN_MS 1700000000000
#define STEP_MS       10
#define TARGETS       64
#define SEGMENTS      512
#define TASKS         64

typedef struct KeptSegmentRow {
        ResultSegment row; /* its strings ours */
        int32_t n_snapshots;
        int64_t first_wall_ms, last_wall_ms;
        unsigned n_done;
} KeptSegmentRow;

typedef struct Target {
        TargetId id;
        pid_t tid;
        bool active;
} Target;

static struct World {
        Config config;
        Core *core;
        Local *local;
        const TaskSource *source;
        uint64_t now_ns;
        Target targets[TARGETS];
        unsigned n_refused, stack_size;
        pid_t pid; /* of requests, and whose */
        uid_t uid;

        /* the store */
        Results results;
        ResultTask tasks[TASKS];
        unsigned n_tasks;
        KeptSegmentRow segments[SEGMENTS];
        unsigned n_segments;
        bool broken;           /* it says so */
        unsigned fails_one_in; /* 0: never */
        ResultBatch *batch;    /* is answered at the next step */
        ResultRecorded done;
        void *done_userdata;
} w;

static Now now(void)
{
        return (Now){.mono_ns = w.now_ns,
                .wall_ms = WALL_BEGIN_MS + (int64_t)((w.now_ns - BEGIN_NS) / NS_PER_MS)};
}

/* ---- the store ---- */

static KeptSegmentRow *kept(const char *segment_id)
{
        for (unsigned i = 0; i < w.n_segments; i++)
                if (strcmp(w.segments[i].row.segment_id, segment_id) == 0)
                        return &w.segments[i];
        return NULL;
}

static void keep_task(const ResultTask *t)
{
        ResultTask *kept_task = NULL;

        for (unsigned i = 0; i < w.n_tasks; i++)
                if (w.tasks[i].number == t->number)
                        kept_task = &w.tasks[i];
        if (!kept_task) {
                cr_assert_lt(w.n_tasks, TASKS);
                kept_task = &w.tasks[w.n_tasks++];
                *kept_task = *t;
                kept_task->service = strdup(t->service);
                kept_task->endpoint = strdup(t->endpoint);
        }
        kept_task->end_wall_ms = t->end_wall_ms;
}

static void keep_segment(const ResultSegment *s)
{
        KeptSegmentRow *k = kept(s->segment_id);

        if (!k) {
                cr_assert_lt(w.n_segments, SEGMENTS);
                k = &w.segments[w.n_segments++];
                *k = (KeptSegmentRow){.row = *s};
                k->row.segment_id = strdup(s->segment_id);
                k->row.instance = strdup(s->instance);
                k->row.operation = (char *)"";
                cr_assert_gt(s->id, w.results.last_id);
                w.results.last_id = s->id;
        }
        cr_assert_eq(k->row.id, s->id);
        cr_assert_eq(k->row.task, s->task);
        k->row.uid = s->uid;
        if (s->done) {
                k->n_done++;
                k->row.done = true;
                cr_assert_str_eq(s->operation, "/slow");
                cr_assert_gt(s->duration_ms, 0);
        }
}

static void keep_batch(const ResultBatch *b)
{
        for (size_t i = 0; i < b->n_tasks; i++)
                keep_task(&b->tasks[i]);
        for (size_t i = 0; i < b->n_segments; i++)
                keep_segment(&b->segments[i]);
        for (size_t i = 0; i < b->n_snapshots; i++) {
                const ResultSnapshot *s = &b->snapshots[i];
                KeptSegmentRow *k = NULL;

                for (unsigned j = 0; j < w.n_segments; j++)
                        if (w.segments[j].row.id == s->segment)
                                k = &w.segments[j];
                cr_assert(k);
                cr_assert_eq(s->sequence, k->n_snapshots, "%s", k->row.segment_id);
                cr_assert_geq(s->time_wall_ms, k->last_wall_ms);
                if (k->n_snapshots++ == 0)
                        k->first_wall_ms = s->time_wall_ms;
                k->last_wall_ms = s->time_wall_ms;
        }
}

static void answer(void)
{
        ResultBatch *b = w.batch;
        bool fails = w.fails_one_in && (unsigned)rand() % w.fails_one_in == 0;

        if (!b)
                return;
        w.batch = NULL;
        if (!fails)
                keep_batch(b);
        w.done(w.done_userdata, b, fails);
}

static bool results_works(void *userdata)
{
        return !w.broken;
}

static int results_record(
        void *userdata, ResultBatch *batch, ResultRecorded done, void *done_userdata)
{
        cr_assert_null(w.batch, "one at a time");
        w.batch = batch;
        w.done = done;
        w.done_userdata = done_userdata;
        return 0;
}

/* ---- core's ---- */

static void on_target_add(void *userdata, TargetId id, const TargetSpec *spec)
{
        unsigned i = 0;

        while (i < TARGETS && w.targets[i].active)
                i++;
        cr_assert_lt(i, TARGETS);
        w.targets[i] = (Target){.id = id, .tid = spec->tid, .active = true};
}

static void on_target_remove(void *userdata, TargetId id)
{
        for (unsigned i = 0; i < TARGETS; i++)
                if (w.targets[i].id == id)
                        w.targets[i].active = false;
}

static void on_instance(void *userdata, Instance *i)
{
}

static void on_command_seen(void *userdata, const Instance *i)
{
        cr_assert_fail("tasks of swprofctl are no commands");
}

static bool on_snapshot(void *userdata, const Snapshot *s)
{
        bool taken;

        cr_assert_eq(s->source, w.source);
        cr_assert_eq(s->uid, w.uid);
        taken = s->source->snapshot(s->source->userdata, s);
        w.n_refused += !taken;
        return taken;
}

static void on_segment_began(void *userdata, const SegmentReport *r, bool wanted)
{
        cr_assert_eq(r->source, w.source);
        cr_assert_neq(result_task_number(r->task_id), 0);
}

static void on_segment_done(void *userdata, const SegmentReport *r, bool wanted)
{
        cr_assert_eq(r->source, w.source);
        r->source->segment_done(r->source->userdata, r, wanted);
}

static void on_task_added(void *userdata, const Task *task)
{
        cr_assert(task->source == NULL || task->source == w.source);
}

static void on_task_finished(void *userdata, const TaskSource *source, const char *service,
        const char *instance, const char *task_id)
{
}

static const CoreOps ops = {
        .target_add = on_target_add,
        .target_remove = on_target_remove,
        .watch_changed = on_instance,
        .prepare = on_instance,
        .snapshot = on_snapshot,
        .segment_began = on_segment_began,
        .segment_done = on_segment_done,
        .task_added = on_task_added,
        .command_seen = on_command_seen,
        .task_finished = on_task_finished,
};

/* ---- the daemon ---- */

static void start_daemon(void)
{
        cr_assert_eq(core_new(&w.core, &w.config, &ops, NULL), 0);
        cr_assert_eq(local_new(&w.local, &w.config, w.core, &w.results), 0);
        w.source = local_source(w.local);
        for (unsigned i = 0; i < w.n_tasks; i++)
                cr_assert_eq(local_restore_task(w.local, &w.tasks[i], now()), 0);
        for (unsigned i = 0; i < w.n_segments; i++)
                cr_assert_eq(local_restore_segment(w.local, &w.segments[i].row,
                                     w.segments[i].n_snapshots, w.segments[i].first_wall_ms,
                                     w.segments[i].last_wall_ms, now()),
                        0);
}

/* What is not kept by now is lost. */
static void kill_daemon(void)
{
        w.broken = true;
        w.batch = result_batch_free(w.batch);
        w.local = local_free(w.local);
        w.core = core_free(w.core);
        memset(w.targets, 0, sizeof(w.targets));
        w.broken = false;
}

static void setup(void)
{
        log_set_max_level(LOG_ERR);
        w = (struct World){.now_ns = BEGIN_NS,
                .pid = getpid(),
                .uid = getuid(),
                .config = {.profile_active = true,
                        .profile_max_parallel = 5,
                        .profile_max_duration_ms = 600000,
                        .profile_max_pending = 2000,
                        .profile_max_pending_samples = 3000,
                        .profile_settle_ms = 100,
                        .limits_segments_per_client = 1000},
                .results = {.works = results_works, .record = results_record}};
        start_daemon();
}

static void teardown(void)
{
        kill_daemon();
        for (unsigned i = 0; i < w.n_tasks; i++) {
                free(w.tasks[i].service);
                free(w.tasks[i].endpoint);
        }
        for (unsigned i = 0; i < w.n_segments; i++) {
                free(w.segments[i].row.segment_id);
                free(w.segments[i].row.instance);
        }
}

TestSuite(local, .init = setup, .fini = teardown);

static void step(void)
{
        w.now_ns += STEP_MS * NS_PER_MS;
        for (unsigned i = 0; i < TARGETS; i++) {
                Stack *stack = stack_new();

                char *name = calloc(1, w.stack_size + 5);

                memset(name, 'm', w.stack_size + 4);
                cr_assert_eq(stack_set_ready(stack, 1, (const char *[]){name}), 0);
                free(name);
                if (w.targets[i].active)
                        core_samples(w.core, w.targets[i].id,
                                &(SampleRun){.mono_ns = w.now_ns,
                                        .wall_ns = (uint64_t)now().wall_ms * NS_PER_MS,
                                        .n = 1,
                                        .stack = stack},
                                (ThreadTimes){0}, now());
                stack_unref(stack);
        }
        answer();
        /* A sample puts off what is due in its very moment. */
        w.now_ns += NS_PER_US;
        core_step(w.core, now());
        if (w.source->next_mono_ns(w.source->userdata, now()) <= w.now_ns)
                w.source->step(w.source->userdata, now());
}

static void pass(unsigned ms)
{
        for (unsigned i = 0; i < ms / STEP_MS; i++)
                step();
}

/* Until all is kept that is to be. */
static void settle(void)
{
        for (unsigned i = 0; i < 1000 && !w.source->idle(w.source->userdata); i++)
                step();
        cr_assert(w.source->idle(w.source->userdata));
}

static Instance *attach(const char *service, const char *name)
{
        Instance *i;

        cr_assert_eq(core_instance_attach(w.core, &i, service, name, false, now()), 0);
        w.source->instance_added(w.source->userdata, i, now());
        return i;
}

/* Return: as core_span_start(). The thread's number is the client's. */
static int request(Instance *i, uint64_t client, const char *id)
{
        const SpanStartEvent event = {.segment_id = id,
                .operation = "/slow",
                .trace_id = "",
                .pid = w.pid,
                .tid = (pid_t)client,
                .uid = w.uid,
                .start_mono_ns = w.now_ns};

        return core_span_start(w.core, i, client, &event, now());
}

static void stop(uint64_t client, const char *id)
{
        core_span_stop(w.core, client, id, w.now_ns, false, now());
}

static int start_task(const char *service, int count, char *id, char **error)
{
        const LocalTaskSpec spec = {.service = service,
                .endpoint = "/slow",
                .duration_ms = 60000,
                .threshold_ms = 100,
                .period_ms = 10,
                .max_sampling_count = count};

        *error = NULL;
        return local_task_start(w.local, &spec, id, error, now());
}

static void must_start(const char *service, int count, char *id)
{
        char *error;

        cr_assert_eq(start_task(service, count, id, &error), 0, "%s", error);
}

static void must_refuse(const char *service, const char *why)
{
        char id[RESULT_TASK_ID_SIZE], *error;

        cr_assert_eq(start_task(service, 1, id, &error), LOCAL_E_REFUSED);
        cr_assert(strstr(error, why), "%s", error);
        free(error);
}

/* ---- tests ---- */

Test(local, waits_for_its_service)
{
        char id[RESULT_TASK_ID_SIZE];
        Instance *a, *b, *other;

        must_start("svc", 2, id);
        cr_assert_str_eq(id, "local-1");
        other = attach("other", "a");
        pass(1000);
        a = attach("svc", "a");
        b = attach("svc", "b");
        cr_assert_eq(request(other, 1, "of another"), CORE_E_UNWATCHED);
        cr_assert_eq(request(a, 2, "first"), 0);
        cr_assert_eq(request(a, 3, "fast"), 0);
        pass(50);
        stop(3, "fast");
        pass(450);
        stop(2, "first");
        pass(1000);
        cr_assert_eq(kept("first")->n_done, 1);
        cr_assert_geq(kept("first")->n_snapshots, 49);
        cr_assert_null(kept("fast"));
        /* It has two, whosever they are: then it is over. */
        cr_assert_eq(request(b, 4, "second"), 0);
        pass(300);
        stop(4, "second");
        pass(1000);
        cr_assert_eq(request(b, 4, "third"), CORE_E_UNWATCHED);
        settle();
        cr_assert_lt(w.tasks[0].end_wall_ms, now().wall_ms);
        must_start("svc", 1, id);
        cr_assert_str_eq(id, "local-2");
}

Test(local, one_at_a_time)
{
        const TaskCommand theirs = {.task_id = "theirs",
                .endpoint = "/x",
                .duration_min = 1,
                .period_ms = 10,
                .max_sampling_count = 1,
                .start_wall_ms = now().wall_ms,
                .create_wall_ms = -1};
        char id[RESULT_TASK_ID_SIZE], *error = NULL;

        must_start("svc", 1, id);
        must_refuse("svc", "has task local-1 already, for up to 61 s");
        cr_assert_eq(core_task_add(w.core, attach("remote", "a"), &theirs, now()), 0);
        must_refuse("remote", "has task theirs already");
        pass(30000);
        must_refuse("svc", "for up to 30 s");
        pass(30100);
        must_start("remote", 1, id);
        must_start("svc", 1, id);
        cr_assert_eq(local_task_stop(w.local, "local-1", &error, now()), LOCAL_E_REFUSED);
        cr_assert_str_eq(error, "task local-1 is over already");
        free(error);
        cr_assert_eq(local_task_stop(w.local, id, &error, now()), 0);
        must_start("svc", 1, id);
}

Test(local, stopped)
{
        char id[RESULT_TASK_ID_SIZE], *error;
        Instance *a = attach("svc", "a");

        must_start("svc", 5, id);
        cr_assert_eq(request(a, 1, "lasts"), 0);
        pass(500);
        cr_assert_eq(local_task_stop(w.local, id, &error, now()), 0);
        cr_assert_eq(request(a, 2, "late"), CORE_E_UNWATCHED);
        pass(1000);
        cr_assert_geq(kept("lasts")->n_snapshots, 49);
        cr_assert_leq(kept("lasts")->n_snapshots, 51);
        cr_assert_eq(kept("lasts")->n_done, 0);
        stop(1, "lasts");
        settle();
        cr_assert_eq(kept("lasts")->n_done, 1);
}

/* What cannot be kept now is kept later, up to a bound. */
Test(local, disk_fails)
{
        uint64_t dropped = counter_get(COUNTER_SNAPSHOTS_DROPPED);
        char id[RESULT_TASK_ID_SIZE];
        Instance *a = attach("svc", "a");

        must_start("svc", 5, id);
        w.broken = true;
        w.config.profile_max_parallel = 100;
        cr_assert_eq(request(a, 1, "one"), 0);
        pass(5000);
        cr_assert_null(kept("one"));
        cr_assert_eq(w.n_refused, 0);
        w.broken = false;
        w.fails_one_in = 2;
        pass(20000);
        stop(1, "one");
        w.fails_one_in = 0;
        settle();
        cr_assert_eq(kept("one")->n_done, 1);
        cr_assert_geq(kept("one")->n_snapshots, 2490);
        cr_assert_eq(counter_get(COUNTER_SNAPSHOTS_DROPPED), dropped);
        /* Large stacks: not for ever. The tail of a request goes, and is counted. */
        w.broken = true;
        w.stack_size = 100000;
        cr_assert_eq(request(a, 1, "large"), 0);
        pass(5000);
        stop(1, "large");
        pass(1000);
        w.broken = false;
        settle();
        cr_assert_eq(w.n_refused, 1);
        cr_assert_eq(kept("large")->n_done, 1);
        cr_assert_geq(kept("large")->n_snapshots, 150);
        cr_assert_leq(kept("large")->n_snapshots, 200);
        cr_assert_gt(counter_get(COUNTER_SNAPSHOTS_DROPPED), dropped);
}

Test(local, restarts)
{
        char id[RESULT_TASK_ID_SIZE];
        Instance *a = attach("svc", "a");
        int32_t n;

        must_start("svc", 3, id);
        cr_assert_eq(request(a, 1, "done"), 0);
        cr_assert_eq(request(a, 2, "lasts"), 0);
        pass(500);
        stop(1, "done");
        pass(1000);
        cr_assert_eq(kept("done")->n_done, 1);
        n = kept("lasts")->n_snapshots;
        cr_assert_gt(n, 100);
        kill_daemon();
        pass(0);
        start_daemon();
        must_refuse("svc", "has task local-1 already");
        a = attach("svc", "a");
        /* What is over does not begin again; what lasts goes on, and counts once. */
        cr_assert_eq(request(a, 1, "done"), CORE_E_DUPLICATE);
        cr_assert_eq(request(a, 2, "lasts"), 0);
        cr_assert_eq(request(a, 3, "third"), 0);
        pass(50);
        cr_assert_eq(request(a, 4, "fourth"), 0);
        pass(500);
        stop(2, "lasts");
        stop(3, "third");
        pass(500);
        stop(4, "fourth");
        settle();
        cr_assert_geq(kept("lasts")->n_snapshots, n + 40);
        cr_assert_eq(kept("lasts")->n_done, 1);
        cr_assert_eq(kept("third")->n_done, 1);
        cr_assert_null(kept("fourth"));
        must_start("svc", 1, id);
        cr_assert_str_eq(id, "local-2");
}

/* A program of a user that cannot be looked into any more once it is told so. Return: its pid. */
static pid_t program(int fd, int other_fd, uid_t uid)
{
        pid_t pid = fork();
        char c = 0;

        if (pid != 0)
                return pid;
        close(other_fd);
        if (setuid(uid) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0 || write(fd, &c, 1) != 1 ||
                read(fd, &c, 1) != 1 || prctl(PR_SET_DUMPABLE, 0) < 0 || write(fd, &c, 1) != 1)
                _exit(1);
        (void)!read(fd, &c, 1);
        _exit(0);
}

/* What a program has become is not its user's business. */
Test(local, more_rights)
{
        char id[RESULT_TASK_ID_SIZE], c;
        Instance *a = attach("svc", "a");
        int fds[2];

        if (getuid() != 0)
                cr_skip_test("a program of another user: only root can begin one");
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        w.uid = 65534;
        w.pid = program(fds[1], fds[0], w.uid);
        close(fds[1]);
        cr_assert_eq(read(fds[0], &c, 1), 1);
        must_start("svc", 1, id);
        cr_assert_eq(request(a, 1, "one"), 0);
        pass(1500);
        cr_assert_eq(kept("one")->row.uid, w.uid);
        cr_assert_eq(write(fds[0], &c, 1), 1);
        cr_assert_eq(read(fds[0], &c, 1), 1);
        pass(1500);
        cr_expect_eq(kept("one")->row.uid, (uid_t)-1);
        stop(1, "one");
        settle();
        cr_expect_eq(kept("one")->row.uid, (uid_t)-1);
        close(fds[0]);
}

/* Requests, failures of the disk and ends of the daemon as they come: the store checks. */
Test(local, random)
{
        char id[RESULT_TASK_ID_SIZE], name[32], live[8][32] = {{0}};
        unsigned n_done = 0, n_requests = 0;
        Instance *i = attach("svc", "a");

        srand(1);
        w.fails_one_in = 5;
        for (unsigned round = 0; round < 4000; round++) {
                unsigned client = (unsigned)rand() % 8;
                char *error;

                if (start_task("svc", 1 + rand() % 9, id, &error) != 0)
                        free(error);
                if (!live[client][0]) {
                        snprintf(name, sizeof(name), "%u", ++n_requests);
                        if (request(i, client + 1, name) == 0)
                                strcpy(live[client], name);
                } else if (rand() % 4 == 0) {
                        stop(client + 1, live[client]);
                        live[client][0] = '\0';
                }
                pass((unsigned)rand() % 200);
                if (rand() % 100 == 0) {
                        kill_daemon();
                        start_daemon();
                        i = attach("svc", "a");
                        for (unsigned k = 0; k < 8; k++)
                                if (live[k][0] && request(i, k + 1, live[k]) != 0)
                                        live[k][0] = '\0';
                }
                if (w.n_tasks > TASKS - 4 || w.n_segments > SEGMENTS - 16)
                        break;
        }
        w.fails_one_in = 0;
        settle();
        for (unsigned k = 0; k < w.n_segments; k++) {
                cr_assert_gt(w.segments[k].n_snapshots, 0);
                n_done += w.segments[k].n_done;
        }
        cr_assert_gt(w.n_tasks, 20);
        cr_assert_gt(n_done, 100);
        for (unsigned t = 0; t < w.n_tasks; t++) {
                unsigned n = 0;

                for (unsigned k = 0; k < w.n_segments; k++)
                        n += w.segments[k].row.task == w.tasks[t].number;
                /* One that was not kept when the daemon ended is counted anew. */
                cr_assert_leq(n, w.tasks[t].max_sampling_count + 1, "%u", n);
        }
}
