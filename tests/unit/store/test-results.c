/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/counter.h"
#include "core/results.h"
#include "fixture.h"
#include "profile.pb-c.h"

#define MIB    (1 << 20)
#define DAY_MS (24 * 3600 * 1000LL)

static char results_path[96], answer[65536], error[256];
static const Results *results;
static Swprof__Profile__Profile *profile;
static bool answered, batch_failed;

static void append(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void append(const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        vsprintf(answer + strlen(answer), format, ap);
        va_end(ap);
}

static void on_task(void *userdata, const ResultTask *t)
{
        append("task %d %s '%s'\n", (int)t->number, t->service, t->endpoint);
}

static void on_segment(void *userdata, const ResultSegment *s, int32_t n, int64_t first_wall_ms,
        int64_t last_wall_ms)
{
        append("segment %d of %d, %s/%s, %d of uid %d, %d..%d%s\n", (int)s->id, (int)s->task,
                s->instance, s->segment_id, (int)n, (int)s->uid, (int)(first_wall_ms - NOW_MS),
                (int)(last_wall_ms - NOW_MS), s->done ? ", done" : "");
}

static void begin(uint64_t max_bytes, int64_t now_wall_ms)
{
        static const StoreResultsRestore ops = {.task = on_task, .segment = on_segment};

        answer[0] = '\0';
        snprintf(results_path, sizeof(results_path), "%s/local.db", dir);
        cr_assert_eq(store_new_results(&store, dir, max_bytes, 7 * DAY_MS), 0);
        store_restore_results(store, &ops, NULL, (Now){.wall_ms = now_wall_ms});
        cr_assert_eq(store_start(store), 0);
        results = store_results(store);
}

static void teardown(void)
{
        if (profile)
                swprof__profile__profile__free_unpacked(profile, NULL);
        store_teardown();
}

TestSuite(results, .init = store_setup, .fini = teardown);

static void wait_for_answer(void)
{
        while (!answered) {
                struct pollfd fd = {.fd = store_fd(store), .events = POLLIN};

                cr_assert_eq(poll(&fd, 1, 60000), 1, "no answer");
                store_dispatch(store);
        }
        answered = false;
}

static void on_recorded(void *userdata, ResultBatch *b, bool f)
{
        answered = true;
        batch_failed = f;
        result_batch_free(b);
}

static void put(ResultBatch *b)
{
        cr_assert_eq(results->record(results->userdata, b, on_recorded, NULL), 0);
        wait_for_answer();
}

static void add_task(ResultBatch *b, uint64_t number, int64_t start_wall_ms)
{
        const ResultTask task = {.number = number,
                .service = (char *)"svc",
                .endpoint = (char *)"/slow",
                .threshold_ms = 100,
                .period_ms = 10,
                .max_sampling_count = 5,
                .start_wall_ms = start_wall_ms,
                .end_wall_ms = start_wall_ms + 60000};

        cr_assert_eq(result_batch_add_task(b, &task), 0);
}

static void add_segment(ResultBatch *b, uint64_t id, uint64_t task, const char *name, uid_t uid,
        int64_t start_wall_ms, bool done)
{
        const ResultSegment segment = {.id = id,
                .task = task,
                .instance = (char *)"one",
                .segment_id = (char *)name,
                .operation = (char *)(done ? "/renamed" : ""),
                .uid = uid,
                .pid = 40,
                .tid = 41,
                .start_wall_ms = start_wall_ms,
                .done = done,
                .duration_ms = done ? 1000 : 0,
                .times = {.on_cpu_ns = done ? 17 : 0},
                .losses = {.no_stack = done ? 3 : 0}};

        cr_assert_eq(result_batch_add_segment(b, &segment), 0);
}

static void add_snapshots(ResultBatch *b, uint64_t segment, int32_t first, int32_t n,
        int64_t start_wall_ms, char leaf)
{
        for (int32_t i = first; i < first + n; i++) {
                char name[] = {leaf, '\0'};
                Stack *stack = stack_of("main", i % 2 ? name : "even");
                uint8_t *kinds = malloc(2);

                kinds[0] = STACK_KIND_PYTHON;
                kinds[1] = i % 2 ? STACK_KIND_WAITING : STACK_KIND_KERNEL;
                stack_take_kinds(stack, kinds);

                const ResultSnapshot snapshot = {.segment = segment,
                        .sequence = i,
                        .state = i % 2 ? THREAD_BLOCKED : THREAD_RUNNING,
                        .time_wall_ms = start_wall_ms + 10 * i,
                        .stack = stack};

                cr_assert_eq(result_batch_add_snapshot(b, &snapshot), 0);
                stack_unref(stack);
        }
}

static void on_profile(void *userdata, const char *e, const uint8_t *p, size_t size)
{
        answered = true;
        snprintf(error, sizeof(error), "%s", e ? e : "");
        profile = e ? NULL : swprof__profile__profile__unpack(NULL, size, p);
        cr_assert_eq(profile != NULL, e == NULL);
}

static void get(const char *selection, bool all, bool bare, int64_t uid)
{
        const StoreQuery query = {.selection = selection, .all = all, .bare = bare, .uid = uid};

        if (profile)
                swprof__profile__profile__free_unpacked(profile, NULL);
        cr_assert_eq(store_get_profile(store, &query, on_profile, NULL), 0);
        wait_for_answer();
}

static void on_tasks(void *userdata, const char *e, const StoreTask *tasks, size_t n)
{
        answered = true;
        cr_assert_null(e);
        answer[0] = '\0';
        for (size_t i = 0; i < n; i++)
                append("%d:%d/%d:%d ", (int)tasks[i].task.number, (int)tasks[i].n_done,
                        (int)tasks[i].n_segments, (int)tasks[i].n_snapshots);
}

static const char *get_tasks(int64_t uid)
{
        cr_assert_eq(store_get_tasks(store, uid, on_tasks, NULL), 0);
        wait_for_answer();
        return answer;
}

/* Two tasks, the first with a segment of each of two users, the other with nothing. */
static void put_example(void)
{
        ResultBatch *b = result_batch_new();

        add_task(b, 1, NOW_MS);
        add_task(b, 2, NOW_MS + 1);
        add_segment(b, 1, 1, "a", 0, NOW_MS, false);
        add_segment(b, 2, 1, "b", 1000, NOW_MS, false);
        add_snapshots(b, 1, 0, 10, NOW_MS, 'x');
        add_snapshots(b, 2, 0, 4, NOW_MS, 'y');
        put(b);
}

Test(results, outlive_the_daemon)
{
        begin(MIB, NOW_MS);
        cr_expect_str_eq(answer, "");
        cr_expect_eq(results->last_id, 0);
        put_example();
        store_end();
        begin(MIB, NOW_MS);
        cr_expect_str_eq(answer, "task 1 svc '/slow'\n"
                                 "task 2 svc '/slow'\n"
                                 "segment 1 of 1, one/a, 10 of uid 0, 0..90\n"
                                 "segment 2 of 1, one/b, 4 of uid 1000, 0..30\n");
        cr_expect_eq(results->last_id, 2);
        cr_expect_str_eq(get_tasks(-1), "1:0/2:14 2:0/0:0 ");
        cr_expect_str_eq(get_tasks(1000), "1:0/1:4 ");
        cr_expect_str_eq(get_tasks(1001), "");
}

Test(results, profile)
{
        Swprof__Profile__Segment *s;
        ResultBatch *b;

        begin(MIB, NOW_MS);
        put_example();
        b = result_batch_new();
        add_segment(b, 1, 1, "a", 0, NOW_MS, true);
        add_snapshots(b, 1, 10, 2, NOW_MS, 'x');
        put(b);
        get("", false, false, -1); /* the newest with anything */
        cr_assert(profile);
        cr_expect_eq(profile->n_segments, 2);
        cr_expect_eq(profile->n_stack_shared, 3); /* main > even, x, y */
        cr_expect_eq(profile->n_stack_frames, 4); /* main, and these */
        cr_expect_eq(profile->n_frames, 4);
        cr_expect_eq(profile->frames[0]->kind, SWPROF__PROFILE__KIND__PYTHON);
        cr_expect_eq(profile->frames[1]->kind, SWPROF__PROFILE__KIND__KERNEL);
        cr_expect_eq(profile->frames[2]->kind, SWPROF__PROFILE__KIND__WAITING);
        s = profile->segments[0];
        cr_expect_str_eq(s->segment, "a");
        cr_expect_str_eq(profile->tasks[s->task]->id, "local-1");
        cr_expect_str_eq(profile->strings[s->endpoint], "/renamed");
        cr_expect_eq(s->duration_ns, 1000000000);
        cr_expect_eq(s->on_cpu_ns, 17);
        cr_assert_eq(s->n_losses, 1);
        cr_expect_eq(s->losses[0]->samples, 3);
        cr_expect_eq(s->period_us, 10000);
        cr_assert_eq(s->n_sequence, 12);
        for (size_t i = 0; i < 12; i++) {
                cr_expect_eq(s->sequence[i], 0);
                cr_expect_eq(s->time_us[i], i > 0 ? 10000 : 0);
                cr_expect_eq(s->stack[i], i % 2);
                cr_expect_eq(s->state[i],
                        i % 2 ? SWPROF__PROFILE__STATE__BLOCKED : SWPROF__PROFILE__STATE__RUNNING);
        }
        s = profile->segments[1]; /* still lasts */
        cr_expect_str_eq(profile->strings[s->endpoint], "/slow");
        cr_expect_eq(s->duration_ns, 30000000);

        get("b", false, false, -1);
        cr_assert(profile);
        cr_expect_eq(profile->n_segments, 1);
        get("local-1", false, true, -1);
        cr_assert(profile);
        cr_expect_eq(profile->segments[0]->n_sequence, 0);
        cr_expect_eq(profile->segments[0]->samples, 12);
        get("local-2", false, false, -1);
        cr_expect_str_eq(error, "nothing of that task was profiled yet");
        get("local-3", false, false, -1);
        cr_expect_str_eq(error, "there is no such task or segment");
}

/* What a former swprofd has kept, which knew no kinds. */
Test(results, former_schema)
{
        char command[256];

        begin(MIB, NOW_MS);
        put_example();
        store_end();
        snprintf(command, sizeof(command),
                "sqlite3 %s 'ALTER TABLE stack DROP COLUMN kinds; PRAGMA user_version = 1'",
                results_path);
        if (system(command) != 0)
                cr_skip_test("there is no sqlite3");
        begin(MIB, NOW_MS);
        cr_expect_str_eq(store_status(store).error, "");
        get("a", false, false, -1);
        cr_assert(profile);
        cr_expect_eq(profile->frames[0]->kind, SWPROF__PROFILE__KIND__UNKNOWN);
        put_example();
        cr_expect(!batch_failed);
        get("a", false, false, -1);
        cr_assert(profile);
        cr_expect_eq(profile->frames[0]->kind, SWPROF__PROFILE__KIND__PYTHON);
}

Test(results, of_others)
{
        begin(MIB, NOW_MS);
        put_example();
        get("", true, false, 1000);
        cr_assert(profile);
        cr_expect_eq(profile->n_segments, 1);
        cr_expect_eq(profile->n_tasks, 1);
        get("a", false, false, 1000);
        cr_expect_str_eq(error, "there is no such task or segment");
        get("local-2", false, false, 1000);
        cr_expect_str_eq(error, "there is no such task or segment");
        get("", true, false, 1001);
        cr_expect_str_eq(error, "nothing was profiled yet");
}

Test(results, too_old)
{
        begin(MIB, NOW_MS);
        put_example();
        store_end();
        begin(MIB, NOW_MS + 7 * DAY_MS + 1);
        /* The tasks ended a minute later. */
        cr_expect_str_eq(answer, "task 1 svc '/slow'\ntask 2 svc '/slow'\n");
        cr_expect_eq(counter_get(COUNTER_RESULTS_REMOVED), 2);
        store_end();
        begin(MIB, NOW_MS + 7 * DAY_MS + 60002);
        cr_expect_str_eq(answer, "");
        /* Ids are not used again. */
        cr_expect_eq(results->last_id, 2);
}

/* A batch that comes once more, whole or in part, does not stand in the way of all that follow. */
Test(results, once_more)
{
        begin(MIB, NOW_MS);
        put_example();
        put_example();
        cr_expect(!batch_failed);
        cr_expect_str_eq(get_tasks(-1), "1:0/2:14 2:0/0:0 ");
}

/* A clock that is not set yet. */
Test(results, clock_behind)
{
        begin(MIB, NOW_MS);
        put_example();
        store_end();
        begin(MIB, NOW_MS - 8 * DAY_MS);
        cr_expect_eq(counter_get(COUNTER_RESULTS_REMOVED), 0);
        cr_expect_str_eq(get_tasks(-1), "1:0/2:14 2:0/0:0 ");
}

/* After something was read, the log is written back as before. */
Test(results, log_bounded)
{
        char leaf[8000], wal[104];
        struct stat st;

        begin(64 * MIB, NOW_MS);
        put_example();
        get("", false, false, -1);
        cr_assert(profile);
        for (int batch = 0; batch < 20; batch++) {
                ResultBatch *b = result_batch_new();

                add_segment(b, (uint64_t)batch + 3, 1, "a", 0, NOW_MS, false);
                for (int i = 0; i < 130; i++) {
                        ResultSnapshot one = {.segment = (uint64_t)batch + 3, .sequence = i};

                        snprintf(leaf, sizeof(leaf), "%07900d", batch * 130 + i);
                        one.stack = stack_of("main", leaf);
                        cr_assert_eq(result_batch_add_snapshot(b, &one), 0);
                        stack_unref(one.stack);
                }
                put(b);
                cr_assert(!batch_failed);
        }
        snprintf(wal, sizeof(wal), "%s-wal", results_path);
        cr_assert_eq(stat(wal, &st), 0);
        cr_expect_leq(st.st_size, 10 * MIB);
}

/* A week of tasks, each with stacks of its own, in a small database. */
Test(results, bounded)
{
        enum { TASKS = 7 * 24, SEGMENTS = 5, SNAPSHOTS = 100, BYTES = MIB };
        uint64_t id = 0;
        struct stat st;

        begin(BYTES, NOW_MS);
        for (uint64_t number = 1; number <= TASKS; number++) {
                int64_t start_wall_ms = NOW_MS + (int64_t)number * 3600000;
                ResultBatch *b = result_batch_new();

                add_task(b, number, start_wall_ms);
                for (int i = 0; i < SEGMENTS; i++) {
                        char name[32], leaf[2000];

                        snprintf(name, sizeof(name), "segment %d", (int)++id);
                        add_segment(b, id, number, name, 0, start_wall_ms, true);
                        add_snapshots(b, id, 0, SNAPSHOTS, start_wall_ms, 'x');
                        for (int k = 0; k < 5; k++) {
                                ResultSnapshot one = {.segment = id,
                                        .sequence = SNAPSHOTS + k,
                                        .time_wall_ms = start_wall_ms + 10000 + k};

                                snprintf(leaf, sizeof(leaf), "%01900d", (int)(id * 100) + k);
                                one.stack = stack_of("main", leaf);
                                cr_assert_eq(result_batch_add_snapshot(b, &one), 0);
                                stack_unref(one.stack);
                        }
                }
                put(b);
                cr_assert(!batch_failed);
                cr_assert_leq(store_status(store).bytes, BYTES);
        }
        cr_expect_gt(counter_get(COUNTER_RESULTS_REMOVED), TASKS * SEGMENTS / 2);
        /* The newest is whole, and there are others. */
        get("local-168", false, false, -1);
        cr_assert(profile);
        cr_expect_eq(profile->n_segments, SEGMENTS);
        cr_expect_eq(profile->segments[0]->n_sequence, SNAPSHOTS + 5);
        get("", true, true, -1);
        cr_expect_gt(profile->n_segments, 4 * SEGMENTS);
        cr_expect_eq(profile->n_segments + counter_get(COUNTER_RESULTS_REMOVED), TASKS * SEGMENTS);
        /* What is free is used again, and so is the log. */
        cr_assert_eq(stat(results_path, &st), 0);
        cr_expect_leq(st.st_size, 2 * BYTES);
}

/* Segments that do not fit at all. */
Test(results, larger_than_all)
{
        ResultBatch *b = result_batch_new();

        begin(MIB, NOW_MS);
        add_task(b, 1, NOW_MS);
        add_segment(b, 1, 1, "a", 0, NOW_MS, false);
        add_snapshots(b, 1, 0, 200000, NOW_MS, 'x');
        put(b);
        cr_expect(!batch_failed);
        cr_expect_leq(store_status(store).bytes, MIB);
        get("a", false, false, -1);
        cr_expect_str_eq(error, "there is no such task or segment");
}

/* Of stacks that are larger than all together may be. */
Test(results, large_batch)
{
        ResultBatch *b = result_batch_new();
        char leaf[8000];

        begin(MIB, NOW_MS);
        for (int i = 0; i < 3000; i++) {
                ResultSnapshot one = {.segment = (uint64_t)i / 10 + 1, .sequence = i % 10};

                if (i % 10 == 0)
                        add_segment(b, one.segment, 1, "a", 0, NOW_MS, false);
                snprintf(leaf, sizeof(leaf), "%07900d", i);
                one.stack = stack_of("main", leaf);
                cr_assert_eq(result_batch_add_snapshot(b, &one), 0);
                stack_unref(one.stack);
        }
        add_task(b, 1, NOW_MS);
        put(b);
        cr_expect(!batch_failed);
        cr_expect_leq(store_status(store).bytes, MIB);
}

Test(results, no_room_on_the_disk)
{
        char command[160];

        snprintf(command, sizeof(command), "mkdir %s/local.db", dir);
        cr_assert_eq(system(command), 0);
        begin(MIB, NOW_MS);
        cr_expect_str_eq(store_status(store).state, "memory");
        cr_expect_str_neq(store_status(store).error, "");
        put_example();
        cr_expect(!batch_failed);
        get("local-1", false, false, -1);
        cr_expect(profile);
}
