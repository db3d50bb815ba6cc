/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "util/log.h"

char dir[64], path[96], restored[65536], losses[4096], loaded[65536];
Store *store;
const Keep *keep;
bool failed;
size_t n_loaded;
static bool answered;

void store_setup(void)
{
        log_set_max_level(-1);
        strcpy(dir, "/tmp/swprofd-store.XXXXXX");
        cr_assert(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/swprofd.db", dir);
}

void store_teardown(void)
{
        char command[128];

        store_end();
        snprintf(command, sizeof(command), "rm -rf %s", dir);
        cr_expect_eq(system(command), 0);
}

__attribute__((format(printf, 2, 3))) static void append(char *text, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        vsprintf(text + strlen(text), format, ap);
        va_end(ap);
}

static void on_instance(void *userdata, const KeptInstance *i)
{
        append(restored, "instance %s/%s %lld\n", i->service, i->instance,
                (long long)i->last_command_wall_ms);
}

static void on_task(void *userdata, const KeptTask *t)
{
        append(restored, "task %s/%s %s '%s' %d %d %d %d..%d %u\n", t->service, t->instance,
                t->task_id, t->endpoint, (int)t->threshold_ms, (int)t->period_ms,
                (int)t->max_sampling_count, (int)(t->start_wall_ms - NOW_MS),
                (int)(t->end_wall_ms - NOW_MS), t->state);
}

static void on_segment(void *userdata, const KeptSegment *s, size_t n_snapshots)
{
        append(restored, "segment %d %s/%s %s %s %d-%d%s %d..%d%s '%.*s' %zu\n", (int)s->id,
                s->service, s->instance, s->task_id, s->segment_id, s->next_sequence,
                s->reserved_sequence, s->reserved_kept ? "k" : "", (int)s->first_wall_ms,
                (int)s->last_wall_ms, s->done ? " done" : "", (int)s->report_size,
                s->report ? (const char *)s->report : "", n_snapshots);
}

void store_begin(uint64_t max_bytes)
{
        static const StoreRestore ops = {
                .instance = on_instance, .task = on_task, .segment = on_segment};

        restored[0] = '\0';
        cr_assert_eq(store_new(&store, dir, max_bytes), 0);
        store_restore(store, &ops, NULL, (Now){.wall_ms = NOW_MS});
        cr_assert_eq(store_start(store), 0);
        keep = store_keep(store);
}

void store_end(void)
{
        store = store_free(store);
}

static void wait_for_answer(void)
{
        while (!answered) {
                struct pollfd fd = {.fd = store_fd(store), .events = POLLIN};

                cr_assert_eq(poll(&fd, 1, 30000), 1, "no answer");
                store_dispatch(store);
        }
}

static void on_recorded(void *userdata, bool f, const KeptLoss *l, size_t n)
{
        answered = true;
        failed = f;
        losses[0] = '\0';
        for (size_t i = 0; i < n; i++)
                append(losses, "%d:%zu ", (int)l[i].segment, l[i].n_snapshots);
}

void record(const KeepRecord *r)
{
        answered = false;
        cr_assert_eq(keep->record(keep->userdata, r, on_recorded, NULL), 0);
        wait_for_answer();
}

static void on_loaded(void *userdata, bool f, const KeptSnapshot *s, size_t n)
{
        answered = true;
        failed = f;
        n_loaded = n;
        loaded[0] = '\0';
        for (size_t i = 0; i < n && i < 100; i++)
                append(loaded, "%d/%d@%d=%s>%s ", (int)s[i].segment, (int)s[i].id,
                        (int)s[i].time_wall_ms, s[i].stack ? s[i].stack->signatures[0] : "?",
                        s[i].stack ? s[i].stack->signatures[1] : "?");
}

void load(size_t n)
{
        answered = false;
        cr_assert_eq(keep->load(keep->userdata, n, on_loaded, NULL), 0);
        wait_for_answer();
}

Stack *stack_of(const char *outermost, const char *next)
{
        Stack *stack = stack_new();

        cr_assert(stack);
        cr_assert_eq(stack_set_ready(stack, 2, (const char *const[]){outermost, next}), 0);
        return stack;
}

KeptSegment segment_of(uint64_t id, const char *segment_id, int32_t next, int32_t reserved)
{
        return (KeptSegment){.id = id,
                .service = "svc",
                .instance = "i",
                .task_id = "t",
                .segment_id = segment_id,
                .next_sequence = next,
                .reserved_sequence = reserved,
                .first_wall_ms = 1,
                .last_wall_ms = 9};
}

void record_run(uint64_t segment, uint64_t first_id, size_t n, Stack *stack, uint64_t in_use)
{
        KeptSnapshot *snapshots = calloc(n, sizeof(*snapshots));
        char name[32];
        KeptSegment s;

        cr_assert(snapshots);
        snprintf(name, sizeof(name), "segment-%d", (int)segment);
        s = segment_of(segment, name, 0, 0);
        for (size_t i = 0; i < n; i++)
                snapshots[i] = (KeptSnapshot){.id = first_id + i,
                        .segment = segment,
                        .time_wall_ms = (int64_t)(first_id + i),
                        .stack = stack};
        record(&(KeepRecord){.segments = &s,
                .n_segments = 1,
                .snapshots = snapshots,
                .n_snapshots = n,
                .in_use = in_use});
        free(snapshots);
}

long long query(const char *sql)
{
        sqlite3 *db;
        sqlite3_stmt *s;
        long long n;

        cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
        cr_assert_eq(
                sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
        n = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : -1;
        sqlite3_finalize(s);
        cr_assert_eq(sqlite3_close(db), SQLITE_OK);
        return n;
}
