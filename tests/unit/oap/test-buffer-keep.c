/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "oap/buffer.h"
#include "oap/codec.h"
#include "skywalking.pb-c.h"
#include "util/log.h"

/* The buffer beside a disk that answers when a test says so. */

#define MANY 200

typedef struct Request {
        bool load;
        KeepRecorded recorded;
        KeepLoaded loaded;
        void *userdata;
        KeptSnapshot snapshots[MANY]; /* to be put there */
        size_t n_snapshots;
        KeptSnapshot removed[MANY];
        size_t n_removed;
} Request;

static Buffer *b;
static Stack *stack;
static bool disk_works, disk_refuses;
static Request requests[64];
static size_t n_requests;
static KeptSnapshot disk[MANY]; /* in the order of the ids of segments and snapshots */
static size_t n_disk;
static char text[65536]; /* what was asked for */
static Now now;
static unsigned n_reserved;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        vsprintf(text + strlen(text), format, ap);
        va_end(ap);
}

/* Expects what was said since the last time. */
static void expect(const char *expected)
{
        cr_expect_str_eq(text, expected);
        text[0] = '\0';
}

static bool on_works(void *userdata)
{
        return disk_works;
}

static int on_record(void *userdata, const KeepRecord *r, KeepRecorded done, void *done_userdata)
{
        Request *q = &requests[n_requests];

        if (disk_refuses)
                return -EBUSY;
        n_requests++;
        *q = (Request){.recorded = done, .userdata = done_userdata};
        for (size_t i = 0; i < r->n_segments; i++)
                say("%s %d-%d%s%s ", r->segments[i].segment_id, r->segments[i].next_sequence,
                        r->segments[i].reserved_sequence, r->segments[i].reserved_kept ? "k" : "",
                        r->segments[i].done ? " done" : "");
        for (size_t i = 0; i < r->n_snapshots; i++) {
                say("+%d ", (int)r->snapshots[i].time_wall_ms);
                q->snapshots[q->n_snapshots++] = r->snapshots[i];
                stack_ref(r->snapshots[i].stack);
        }
        for (size_t i = 0; i < r->n_removed; i++) {
                say("-%d ", (int)r->removed[i].time_wall_ms);
                q->removed[q->n_removed++] = r->removed[i];
        }
        if (r->emptied)
                say("empty %d ", (int)r->emptied);
        if (r->in_use)
                say("in use ");
        return 0;
}

static int on_load(void *userdata, size_t n, KeepLoaded done, void *done_userdata)
{
        if (disk_refuses)
                return -EBUSY;
        say("load ");
        requests[n_requests++] = (Request){.load = true, .loaded = done, .userdata = done_userdata};
        return 0;
}

static void on_task_reported(
        void *userdata, const char *service, const char *instance, const char *task_id)
{
}

static const Keep keep = {
        .last_id = 1000,
        .works = on_works,
        .record = on_record,
        .load = on_load,
        .task_reported = on_task_reported,
};

static int by_id(const void *a, const void *c)
{
        const KeptSnapshot *x = a, *y = c;

        if (x->segment != y->segment)
                return x->segment < y->segment ? -1 : 1;
        return x->id < y->id ? -1 : x->id > y->id;
}

static void disk_do(const Request *q)
{
        for (size_t i = 0; i < q->n_removed; i++)
                for (size_t k = 0; k < n_disk; k++)
                        if (disk[k].id == q->removed[i].id) {
                                stack_unref(disk[k].stack);
                                memmove(&disk[k], &disk[k + 1], (--n_disk - k) * sizeof(*disk));
                                break;
                        }
        for (size_t i = 0; i < q->n_snapshots; i++)
                disk[n_disk++] = q->snapshots[i];
        qsort(disk, n_disk, sizeof(*disk), by_id);
}

/* The disk does what it was asked to, or fails to. */
static void answer_with(bool failed, const KeptLoss *losses, size_t n_losses)
{
        for (size_t i = 0; i < n_requests; i++) {
                Request q = requests[i];

                for (size_t k = 0; k < q.n_snapshots && failed; k++)
                        stack_unref(q.snapshots[k].stack);
                if (!failed)
                        disk_do(&q);
                if (q.recorded)
                        q.recorded(q.userdata, failed, losses, n_losses);
                if (q.load)
                        q.loaded(q.userdata, failed, disk, failed ? 0 : n_disk);
        }
        n_requests = 0;
}

static void answer(void)
{
        answer_with(false, NULL, 0);
}

static void setup(void)
{
        log_set_max_level(-1);
        b = buffer_new(&keep);
        stack = stack_new();
        cr_assert(b && stack);
        cr_assert_eq(stack_set_ready(stack, 1, (const char *const[]){"main"}), 0);
        disk_works = true;
        now.mono_ns = 100 * NS_PER_S;
}

static void teardown(void)
{
        buffer_free(b);
        /* There is nobody any more who could be told. */
        for (size_t i = 0; i < n_requests; i++)
                for (size_t k = 0; k < requests[i].n_snapshots; k++)
                        stack_unref(requests[i].snapshots[k].stack);
        while (n_disk > 0)
                stack_unref(disk[--n_disk].stack);
        cr_expect_eq(stack->n_refs, 1, "no reference is left");
        stack_unref(stack);
}

TestSuite(buffer_keep, .init = setup, .fini = teardown);

static int add(const char *segment, int64_t time)
{
        return buffer_add(b,
                &(Snapshot){.service = "svc",
                        .instance = "i",
                        .task_id = "t",
                        .segment_id = segment,
                        .time_wall_ms = time,
                        .stack = stack},
                1 << 20);
}

/* Times first … first + n - 1. */
static void add_run(const char *segment, int64_t first, int n)
{
        for (int i = 0; i < n; i++)
                cr_assert_eq(add(segment, first + i), 0);
}

static void step(uint64_t ms, bool failing)
{
        now.mono_ns += ms * NS_PER_MS;
        buffer_keep_step(b, now, failing);
}

/* All that is in memory goes to the disk. */
static void put_on_disk(void)
{
        step(0, true);
        step(250, true);
        step(250, true);
        answer();
        cr_assert_eq(buffer_n_ready(b), 0);
        text[0] = '\0';
}

static void read_from_disk(void)
{
        step(0, false);
        expect("load ");
        answer();
}

static void begin(size_t n, bool fresh_due)
{
        BufferBatch batch;

        cr_assert_eq(buffer_batch_begin(b, n, fresh_due, &batch), 0);
        for (size_t i = 0; i < batch.n; i++) {
                Skywalking__V3__ThreadSnapshot *m = skywalking__v3__thread_snapshot__unpack(
                        NULL, batch.messages[i].size, batch.messages[i].data);

                cr_assert(m);
                say("%s:%d@%d ", m->tracesegmentid, m->sequence, (int)m->time);
                skywalking__v3__thread_snapshot__free_unpacked(m, NULL);
        }
        buffer_batch_deinit(&batch);
}

static void on_reserved(void *userdata)
{
        n_reserved++;
}

Test(buffer_keep, numbers_are_on_record_before_they_leave)
{
        add_run("p", 1, 2);
        add_run("q", 3, 1);
        begin(2, true);
        expect("p:0@1 p:1@2 ");
        cr_assert_eq(buffer_batch_reserve(b, on_reserved, NULL), 0);
        expect("p 0-2 ");
        cr_expect_eq(n_reserved, 0);
        answer();
        cr_expect_eq(n_reserved, 1);
        buffer_batch_end(b, true, false);
        expect("p 2-2 ");
        begin(9, true);
        expect("q:0@3 ");
        cr_assert_eq(buffer_batch_reserve(b, on_reserved, NULL), 0);
        /* It is sent all the same. */
        answer_with(true, NULL, 0);
        cr_expect_eq(n_reserved, 2);
        text[0] = '\0';
        buffer_batch_end(b, false, false);
        expect("q 0-0 ");
}

Test(buffer_keep, no_record)
{
        add_run("p", 1, 2);
        begin(0, true);
        cr_expect_eq(buffer_batch_reserve(b, on_reserved, NULL), BUFFER_E_NO_KEEP, "a probe");
        buffer_batch_end(b, false, false);
        begin(1, true);
        disk_works = false;
        cr_expect_eq(buffer_batch_reserve(b, on_reserved, NULL), BUFFER_E_NO_KEEP);
        disk_works = true;
        disk_refuses = true;
        cr_expect_eq(buffer_batch_reserve(b, on_reserved, NULL), BUFFER_E_NO_KEEP);
        buffer_batch_end(b, true, false);
        cr_expect_eq(counter_get(COUNTER_STORE_RECORDS_LOST), 1);
        cr_expect_eq(n_reserved, 0);
}

Test(buffer_keep, what_may_have_left_keeps_its_numbers)
{
        add_run("p", 1, 3);
        begin(2, true);
        buffer_batch_reserve(b, on_reserved, NULL);
        answer();
        text[0] = '\0';
        buffer_batch_end(b, false, true);
        expect("");
        begin(3, true);
        expect("p:0@1 p:1@2 p:2@3 ");
        buffer_batch_end(b, true, false);
}

Test(buffer_keep, what_waits_goes_to_the_disk)
{
        step(0, false);
        add_run("p", 1, 2);
        step(0, false);
        step(999, false);
        add_run("p", 3, 1);
        expect("");
        cr_expect_eq(buffer_keep_next_mono_ns(b, false), now.mono_ns + NS_PER_MS);
        step(1, false);
        expect("");
        step(1000, false);
        expect("p 0-0 +1 +2 +3 ");
        add_run("p", 4, 1);
        cr_expect_eq(buffer_n(b), 4);
        cr_expect_eq(buffer_n_kept(b), 0, "they are on their way");
        cr_expect_eq(buffer_n_ready(b), 0, "the one behind them waits");
        step(5000, false);
        expect("");
        answer();
        cr_expect_eq(buffer_n(b), 4);
        cr_expect_eq(buffer_n_kept(b), 3);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT), 3);
        step(0, false);
        expect("load ");
        step(1000, false);
        expect("");
        answer();
        cr_expect_eq(buffer_n(b), 4);
        cr_expect_eq(buffer_n_ready(b), 3);
        begin(9, true);
        expect("p:0@1 p:1@2 p:2@3 ");
        buffer_batch_reserve(b, on_reserved, NULL);
        expect("p 0-3k ");
        answer();
        buffer_batch_end(b, true, false);
        expect("p 3-3 -1 -2 -3 ");
        answer();
        cr_expect_eq(n_disk, 0);
        cr_expect_eq(buffer_n_ready(b), 1);
        begin(9, true);
        expect("p:3@4 ");
        buffer_batch_end(b, true, false);
        cr_expect_eq(buffer_n(b), 0);
        cr_expect_eq(buffer_bytes(b), 0);
}

Test(buffer_keep, sooner_while_the_backend_fails)
{
        step(0, false);
        add_run("p", 1, 1);
        step(0, false);
        step(10, true);
        cr_expect_eq(buffer_keep_next_mono_ns(b, true), now.mono_ns + 250 * NS_PER_MS);
        step(250, true);
        step(250, true);
        expect("p 0-0 +1 ");
        answer();
        /* Nothing is read while nothing can be sent. */
        step(250, true);
        expect("");
        cr_expect_eq(buffer_keep_next_mono_ns(b, true), UINT64_MAX);
        cr_expect_leq(buffer_keep_next_mono_ns(b, false), now.mono_ns);
}

Test(buffer_keep, fresh_ones_take_turns)
{
        add_run("p", 1, 4);
        put_on_disk();
        add_run("q", 11, 2);
        add_run("p", 5, 1);
        read_from_disk();
        cr_expect_eq(buffer_n_fresh(b), 2);
        cr_expect_eq(buffer_n_ready(b), 6);
        begin(2, false);
        expect("p:0@1 p:1@2 ");
        buffer_batch_end(b, true, false);
        text[0] = '\0';
        begin(1, true);
        expect("q:0@11 ");
        buffer_batch_end(b, true, false);
        text[0] = '\0';
        begin(1, true);
        expect("p:2@3 ");
        buffer_batch_end(b, true, false);
        text[0] = '\0';
        begin(9, true);
        expect("q:1@12 ");
        buffer_batch_end(b, true, false);
        text[0] = '\0';
        begin(9, false);
        expect("p:3@4 ");
        buffer_batch_end(b, false, false);
        text[0] = '\0';
        begin(9, false);
        expect("p:3@4 ");
        buffer_batch_end(b, true, false);
        text[0] = '\0';
        begin(9, false);
        expect("p:4@5 ");
        buffer_batch_end(b, true, false);
}

/* What comes back of it is older than what is behind it. */
Test(buffer_keep, a_segment_in_the_batch_is_not_put_on_disk)
{
        add_run("p", 1, 2);
        add_run("q", 11, 1);
        step(0, true);
        begin(1, true);
        text[0] = '\0';
        step(250, true);
        step(250, true);
        expect("q 0-0 +11 ");
        answer();
        buffer_batch_end(b, false, false);
        text[0] = '\0';
        begin(9, true);
        expect("p:0@1 p:1@2 ");
        buffer_batch_end(b, true, false);
}

Test(buffer_keep, the_disk_fails)
{
        add_run("p", 1, 2);
        step(0, true);
        step(250, true);
        step(250, true);
        add_run("p", 3, 1);
        expect("p 0-0 +1 +2 ");
        answer_with(true, NULL, 0);
        cr_expect_eq(buffer_n_kept(b), 0);
        cr_expect_eq(buffer_n(b), 3);
        disk_works = false;
        step(250, true);
        expect("");
        begin(9, true);
        expect("p:0@1 p:1@2 p:2@3 ");
        buffer_batch_end(b, true, false);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT), 0);
}

/* What may have been received has the same number the next time, whatever comes in between. */
Test(buffer_keep, numbers_outlast_failures)
{
        add_run("p", 1, 5);
        begin(9, true);
        buffer_batch_end(b, false, true);
        begin(9, true);
        buffer_batch_end(b, false, false);
        step(0, true);
        step(250, true);
        step(250, true);
        answer_with(true, NULL, 0);
        cr_expect_eq(buffer_add(b,
                             &(Snapshot){.service = "svc",
                                     .instance = "i",
                                     .task_id = "t",
                                     .segment_id = "p",
                                     .time_wall_ms = 6,
                                     .stack = stack},
                             buffer_bytes(b)),
                BUFFER_E_FULL);
        text[0] = '\0';
        begin(9, true);
        expect("p:0@1 p:1@2 p:2@3 p:3@4 p:4@5 ");
        buffer_batch_end(b, true, false);
}

Test(buffer_keep, the_disk_cannot_be_read)
{
        add_run("p", 1, 2);
        put_on_disk();
        step(0, false);
        expect("load ");
        answer_with(true, NULL, 0);
        step(0, false);
        expect("");
        cr_expect_eq(buffer_n(b), 2);
        /* It may be later by its own clock. */
        now = now_get();
        step(2000, false);
        expect("load ");
        answer();
        cr_expect_eq(buffer_n_ready(b), 2);
        /* They are there no more, for whatever reason. */
        begin(9, true);
        buffer_batch_end(b, true, false);
        answer();
        add_run("p", 3, 2);
        put_on_disk();
        while (n_disk > 0)
                stack_unref(disk[--n_disk].stack);
        read_from_disk();
        cr_expect_eq(buffer_n(b), 0);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT_LOST), 2);
}

/* Those behind it are sent all the same. */
Test(buffer_keep, damaged_on_disk)
{
        add_run("p", 1, 3);
        put_on_disk();
        disk[0].stack = stack_unref(disk[0].stack);
        read_from_disk();
        expect("-1 ");
        cr_expect_eq(buffer_n(b), 2);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT_LOST), 1);
        begin(9, true);
        expect("p:0@2 p:1@3 ");
        buffer_batch_end(b, true, false);
}

Test(buffer_keep, made_room_for_others)
{
        uint64_t id;

        add_run("p", 1, 2);
        put_on_disk();
        id = disk[0].segment;
        add_run("p", 3, 1);
        add_run("q", 11, 1);
        step(0, true);
        step(250, true);
        step(250, true);
        expect("p 0-0 q 0-0 +3 +11 ");
        add_run("p", 4, 1);
        answer_with(false, &(KeptLoss){.segment = id, .n_snapshots = 3}, 1);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT_OVER), 4);
        cr_expect_eq(buffer_n(b), 1);
        cr_expect_eq(add("p", 5), BUFFER_E_FULL, "its tail goes, too");
        expect("p 0-0 done ");
        cr_expect_eq(add("q", 12), 0);
}

Test(buffer_keep, those_being_sent_are_in_use)
{
        add_run("p", 1, 2);
        put_on_disk();
        read_from_disk();
        begin(9, true);
        text[0] = '\0';
        add_run("q", 11, 1);
        step(0, false);
        step(1000, false);
        step(1000, false);
        expect("q 0-0 +11 in use ");
        buffer_batch_end(b, true, false);
}

Test(buffer_keep, at_the_end_all_is_kept)
{
        add_run("p", 1, 2);
        add_run("q", 11, 1);
        begin(1, true);
        buffer_batch_end(b, true, false);
        text[0] = '\0';
        b = buffer_free(b);
        expect("p 1-1 q 0-0 +2 +11 ");
        answer();
        cr_expect_eq(n_disk, 2);
}

/* ---- what a former daemon has left ---- */

static bool restore(const KeptSegment *s, size_t n_snapshots, bool task_lives, bool again)
{
        bool continues = false;

        cr_assert_eq(buffer_restore(b, s, n_snapshots, task_lives, again, &continues), 0);
        return continues;
}

static KeptSegment left(int32_t next, int32_t reserved)
{
        return (KeptSegment){.id = 5,
                .service = "svc",
                .instance = "i",
                .task_id = "t",
                .segment_id = "p",
                .next_sequence = next,
                .reserved_sequence = reserved};
}

static void left_on_disk(int n)
{
        for (int i = 0; i < n; i++)
                disk[n_disk++] = (KeptSnapshot){.id = (uint64_t)i + 6,
                        .segment = 5,
                        .time_wall_ms = i + 1,
                        .stack = stack_ref(stack)};
}

Test(buffer_keep, goes_on)
{
        KeptSegment s = left(7, 7);

        left_on_disk(2);
        cr_expect(restore(&s, 2, true, false));
        add_run("p", 3, 1);
        read_from_disk();
        begin(9, true);
        expect("p:7@1 p:8@2 ");
        buffer_batch_end(b, true, false);
        text[0] = '\0';
        begin(9, true);
        expect("p:9@3 ");
        buffer_batch_end(b, true, false);
}

Test(buffer_keep, a_task_that_is_over)
{
        KeptSegment s = left(7, 7);

        left_on_disk(2);
        cr_expect(!restore(&s, 2, false, false));
        cr_expect(buffer_has_task(b, "svc", "i", "t"));
        read_from_disk();
        begin(9, true);
        expect("p:7@1 p:8@2 ");
        buffer_batch_end(b, true, false);
        cr_expect(!buffer_has_task(b, "svc", "i", "t"));
}

/* What a damaged file holds beyond what it said is not sent, and does no harm. */
Test(buffer_keep, more_than_was_said)
{
        KeptSegment s = left(7, 7);

        left_on_disk(3);
        cr_expect(!restore(&s, 1, false, false));
        read_from_disk();
        expect("-2 -3 ");
        begin(9, true);
        expect("p:7@1 ");
        buffer_batch_end(b, true, false);
        cr_expect_eq(buffer_n(b), 0);
        cr_expect_eq(buffer_n_kept(b), 0);
        /* Nor does it take its ids twice. */
        s.id = 2000;
        cr_expect(restore(&s, 0, true, false));
        add_run("q", 11, 1);
        put_on_disk();
        cr_assert_gt(n_disk, 0);
        cr_expect_gt(disk[n_disk - 1].segment, 2000);
}

Test(buffer_keep, nobody_knows_what_arrived)
{
        KeptSegment s = left(7, 9);

        s.reserved_kept = true;
        left_on_disk(5);
        cr_expect(!restore(&s, 5, true, false));
        expect("p 9-9 done empty 5 ");
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS), 2);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT_LOST), 3);
        cr_expect_eq(buffer_n(b), 0);
        /* Neither is what was in memory known. */
        s.id++;
        s.reserved_kept = false;
        cr_expect(!restore(&s, 0, true, true));
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS), 4);
}

Test(buffer_keep, sent_again_if_that_is_wanted)
{
        KeptSegment s = left(7, 9);

        s.reserved_kept = true;
        left_on_disk(3);
        cr_expect(restore(&s, 3, true, true));
        read_from_disk();
        begin(9, true);
        expect("p:7@1 p:8@2 p:9@3 ");
        buffer_batch_end(b, true, false);
}

/* The backend may have them under their numbers, wherever they are. */
Test(buffer_keep, numbers_in_use_stay_on_record)
{
        add_run("p", 1, 2);
        begin(9, true);
        buffer_batch_end(b, false, true);
        add_run("p", 3, 1);
        text[0] = '\0';
        step(0, true);
        step(250, true);
        step(250, true);
        expect("p 0-2 +1 +2 +3 ");
}

/* What is on disk of them is sent again; behind it are numbers of what is lost. */
Test(buffer_keep, sent_again_but_for_those_in_memory)
{
        KeptSegment s = left(7, 9);

        left_on_disk(1);
        cr_expect(!restore(&s, 1, true, true));
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS), 1);
        read_from_disk();
        begin(9, true);
        expect("p:7@1 ");
        buffer_batch_end(b, true, false);
        cr_expect_eq(buffer_n(b), 0);
}

/* Those that have left were never on disk, and their ids are above all that were. */
Test(buffer_keep, ids_go_on)
{
        KeptSegment s = left(7, 7);

        s.left_id = 3000;
        cr_expect(restore(&s, 0, true, false));
        add_run("p", 1, 1);
        put_on_disk();
        cr_assert_gt(n_disk, 0);
        cr_expect_gt(disk[n_disk - 1].id, 3000);
}

Test(buffer_keep, a_report_that_was_left)
{
        KeptSegment s = left(7, 7);
        BufferReport report;

        s.done = true;
        s.report = "report";
        s.report_size = 6;
        cr_expect(!restore(&s, 0, true, false));
        report = buffer_retired(b);
        cr_expect_eq(report.segment, 5);
        cr_assert_eq(report.bytes.size, 6);
        cr_expect_eq(memcmp(report.bytes.data, "report", 6), 0);
        free((void *)report.bytes.data);
        cr_expect_null(buffer_retired(b).bytes.data);
}

static RpcBytes draft_of(int64_t end_wall_ms)
{
        void *data;
        size_t size;

        cr_assert_eq(codec_segment(&(SegmentReport){.service = "svc",
                                           .instance = "i",
                                           .trace_id = "",
                                           .segment_id = "p",
                                           .operation = "/slow",
                                           .start_wall_ms = 1,
                                           .end_wall_ms = end_wall_ms},
                             &data, &size),
                0);
        return (RpcBytes){data, size};
}

static KeptSegment left_with(RpcBytes draft, int64_t last_wall_ms)
{
        KeptSegment s = left(7, 7);

        s.report = draft.data;
        s.report_size = draft.size;
        s.last_wall_ms = last_wall_ms;
        return s;
}

static void ends_at(RpcBytes report, int64_t end_wall_ms)
{
        Skywalking__V3__SegmentObject *m =
                skywalking__v3__segment_object__unpack(NULL, report.size, report.data);

        cr_assert(m);
        cr_expect_eq(m->spans[0]->endtime, end_wall_ms);
        skywalking__v3__segment_object__free_unpacked(m, NULL);
}

/* A segment that lived when its daemon ended, and of which nothing was heard since: its report is
 * what was known of it, as long as its snapshots. */
Test(buffer_keep, nobody_tells_its_end)
{
        RpcBytes draft = draft_of(1);
        KeptSegment s = left_with(draft, 77);
        BufferReport report;

        cr_expect(restore(&s, 0, true, false));
        cr_expect_null(buffer_retired(b).bytes.data);
        buffer_task_done(b, "svc", "i", "t");
        report = buffer_retired(b);
        cr_expect_eq(report.segment, 5);
        ends_at(report.bytes, 77);
        free((void *)report.bytes.data);
        free((void *)draft.data);
}

/* The same where its task was over, or its snapshots were dropped, before its daemon ended. */
Test(buffer_keep, nobody_tells_its_end_either)
{
        RpcBytes draft = draft_of(1);
        KeptSegment s = left_with(draft, 77);
        BufferReport report;

        s.done = true;
        cr_expect(!restore(&s, 0, true, false));
        report = buffer_retired(b);
        ends_at(report.bytes, 77);
        free((void *)report.bytes.data);
        free((void *)draft.data);
}

/* Since the configuration has changed: it does not wait for its report for ever. */
Test(buffer_keep, its_report_is_not_wanted_any_more)
{
        add_run("p", 1, 1);
        buffer_segment_began(b, "svc", "i", "p", draft_of(2));
        put_on_disk();
        buffer_task_done(b, "svc", "i", "t");
        buffer_segment_unwanted(b, "svc", "i", "p");
        expect("p 0-0 done ");
        read_from_disk();
        begin(9, true);
        buffer_batch_end(b, true, false);
        cr_expect_null(buffer_retired(b).bytes.data);
}

/* What was on disk is gone, with the numbers under which it may have arrived. */
Test(buffer_keep, gone_with_its_numbers)
{
        add_run("p", 1, 2);
        begin(9, true);
        buffer_batch_end(b, false, true);
        put_on_disk();
        while (n_disk > 0)
                stack_unref(disk[--n_disk].stack);
        read_from_disk();
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT_LOST), 2);
        add_run("p", 3, 1);
        begin(9, true);
        expect("p:2@3 ");
        buffer_batch_end(b, true, false);
}

/* One that was heard of again has its own report, also if its task ends first. */
Test(buffer_keep, its_end_is_told)
{
        RpcBytes draft = draft_of(1);
        KeptSegment s = left(7, 7);
        BufferReport report;

        s.report = draft.data;
        s.report_size = draft.size;
        cr_expect(restore(&s, 0, true, false));
        buffer_segment_began(b, "svc", "i", "p", draft_of(2));
        buffer_task_done(b, "svc", "i", "t");
        cr_expect_null(buffer_retired(b).bytes.data);
        cr_expect(buffer_segment_done(b, "svc", "i", "p", draft_of(3)));
        report = buffer_retired(b);
        cr_expect_eq(report.segment, 5);
        free((void *)report.bytes.data);
        free((void *)draft.data);
}

Test(buffer_keep, on_the_disk_but_of_no_segment)
{
        KeptSegment s = left(7, 7);

        left_on_disk(2);
        disk[1].segment = 77;
        cr_expect(restore(&s, 1, true, false));
        read_from_disk();
        expect("-2 ");
        cr_expect_eq(buffer_n_ready(b), 1);
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_KEPT_LOST), 0);
}
