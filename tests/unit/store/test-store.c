/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/counter.h"
#include "fixture.h"

#define MIB (1 << 20)

TestSuite(store, .init = store_setup, .fini = store_teardown);

static Instance instance = {.service = (char *)"svc", .name = (char *)"i"};
static const Now now = {.wall_ms = NOW_MS};

static void put_task(const char *id)
{
        Task task = {.instance = &instance,
                .id = (char *)id,
                .endpoint = (char *)"/slow",
                .threshold_ms = 100,
                .period_ms = 10,
                .max_sampling_count = 5,
                .start_wall_ms = NOW_MS - 1000,
                .end_wall_ms = NOW_MS + 59000};

        store_task(store, &task);
}

Test(store, empty)
{
        struct stat st;

        store_begin(MIB);
        cr_expect_str_eq(store_status(store).state, "ready");
        cr_expect_str_eq(store_status(store).error, "");
        cr_expect_str_eq(restored, "");
        cr_expect_eq(keep->last_id, 0);
        cr_expect(keep->works(keep->userdata));
        load(10);
        cr_expect(!failed);
        cr_expect_eq(n_loaded, 0);
        cr_assert_eq(stat(path, &st), 0);
}

Test(store, tasks_outlive_it)
{
        store_begin(MIB);
        put_task("live");
        put_task("over");
        put_task("reported");
        instance.last_command_wall_ms = 77;
        store_instance(store, &instance, now);
        store_task_over(store, "svc", "i", "over", now);
        store_task_over(store, "svc", "i", "reported", now);
        /* It was over when it arrived. */
        store_task_over(store, "svc", "i", "late", now);
        keep->task_reported(keep->userdata, "svc", "i", "reported");
        store_end();
        store_begin(MIB);
        cr_expect_str_eq(restored, "instance svc/i 77\n"
                                   "task svc/i late '' 0 0 0 0..0 1\n"
                                   "task svc/i live '/slow' 100 10 5 -1000..59000 0\n"
                                   "task svc/i over '/slow' 100 10 5 -1000..59000 1\n"
                                   "task svc/i reported '/slow' 100 10 5 -1000..59000 2\n");
        cr_expect_eq(counter_get(COUNTER_STORE_RECORDS_LOST), 0);
}

Test(store, what_is_of_no_use_is_forgotten)
{
        const int64_t day_ms = 24 * 3600 * 1000;
        Now old = {.wall_ms = NOW_MS - 2 * day_ms};
        KeptSegment segments[3] = {segment_of(1, "of a live task", 3, 3),
                segment_of(2, "with a report", 3, 3), segment_of(3, "of no use", 3, 3)};

        store_begin(MIB);
        store_instance(store, &instance, old);
        store_task_over(store, "svc", "i", "old", old);
        put_task("t");
        segments[1].task_id = segments[2].task_id = "gone";
        segments[1].done = true;
        segments[1].report = "report";
        segments[1].report_size = 6;
        record(&(KeepRecord){.segments = segments, .n_segments = 3});
        store_end();
        store_begin(MIB);
        cr_expect_str_eq(restored, "task svc/i t '/slow' 100 10 5 -1000..59000 0\n"
                                   "segment 1 svc/i t of a live task 3-3 1..9 '' 0\n"
                                   "segment 2 svc/i gone with a report 3-3 1..9 done 'report' 0\n");
        record(&(KeepRecord){.reports = &(KeptReport){.segment = 2}, .n_reports = 1});
        store_end();
        store_begin(MIB);
        cr_expect(!strstr(restored, "segment 2"), "%s", restored);
        cr_expect_eq(keep->last_id, 3, "an id is never used twice");
}

Test(store, numbers_outlive_it)
{
        KeptSegment s = segment_of(7, "seg", 10, 15);

        store_begin(MIB);
        put_task("t");
        record(&(KeepRecord){.segments = &s, .n_segments = 1});
        cr_expect(!failed);
        store_end();
        store_begin(MIB);
        cr_expect(strstr(restored, "segment 7 svc/i t seg 10-15 1..9 '' 0\n"), "%s", restored);
        s.next_sequence = 15;
        s.reserved_kept = true;
        record(&(KeepRecord){.segments = &s, .n_segments = 1});
        store_end();
        store_begin(MIB);
        cr_expect(strstr(restored, "segment 7 svc/i t seg 15-15k 1..9 '' 0\n"), "%s", restored);
}

Test(store, snapshots_in_order)
{
        Stack *a = stack_of("main", "a"), *same = stack_of("main", "a"), *b = stack_of("main", "b");

        store_begin(MIB);
        put_task("t");
        record_run(2, 10, 2, a, 0);
        record_run(1, 20, 2, b, 0);
        record_run(2, 30, 1, same, 0);
        load(4);
        cr_expect_str_eq(loaded, "1/20@20=main>b 1/21@21=main>b 2/10@10=main>a 2/11@11=main>a ");
        record(&(KeepRecord){
                .removed = (KeptSnapshot[]){{.segment = 1, .id = 20}, {.segment = 2, .id = 10}},
                .n_removed = 2});
        load(100);
        cr_expect_str_eq(loaded, "1/21@21=main>b 2/11@11=main>a 2/30@30=main>a ");
        cr_expect_eq(a->n_refs, 1);
        store_end();
        cr_expect_eq(query("SELECT count(*) FROM stack"), 2, "each text once");
        store_begin(MIB);
        cr_expect(strstr(restored, "segment-1 0-0 1..9 '' 1\n"), "%s", restored);
        cr_expect(strstr(restored, "segment-2 0-0 1..9 '' 2\n"), "%s", restored);
        cr_expect_eq(keep->last_id, 30);
        load(100);
        cr_expect_str_eq(loaded, "1/21@21=main>b 2/11@11=main>a 2/30@30=main>a ");
        record(&(KeepRecord){.emptied = 2});
        load(100);
        cr_expect_str_eq(loaded, "1/21@21=main>b ");
        stack_unref(a);
        stack_unref(same);
        stack_unref(b);
}

Test(store, the_oldest_segments_make_room)
{
        Stack *stack = stack_of("main", "a");
        uint64_t id = 100, segment;
        size_t n_kept = 0;

        store_begin(MIB);
        put_task("t");
        for (segment = 1; segment < 100; segment++) {
                /* The first one is being sent. */
                record_run(segment, id, 2000, stack, 1);
                cr_assert(!failed);
                id += 2000;
                if (losses[0])
                        break;
        }
        cr_expect_str_eq(losses, "2:2000 ");
        cr_expect_leq(store_status(store).bytes, MIB);
        cr_expect_geq(store_status(store).bytes, MIB / 2);
        store_end();
        n_kept = (size_t)query("SELECT count(*) FROM snapshot");
        cr_expect_eq(n_kept, (segment - 1) * 2000, "whole segments");
        cr_expect_eq(query("SELECT count(*) FROM snapshot WHERE segment = 1"), 2000);
        stack_unref(stack);
}

/* Stacks whose snapshots were sent go before any that waits. */
Test(store, what_was_sent_makes_room)
{
        static char text[600 << 10];
        Stack *small = stack_of("main", "a"), *sent, *waits;

        memset(text, 'x', sizeof(text) - 1);
        sent = stack_of("sent", text);
        waits = stack_of("waits", text);
        store_begin(MIB);
        record_run(1, 10, 1, small, 0);
        record_run(2, 20, 1, sent, 0);
        record(&(KeepRecord){.removed = &(KeptSnapshot){.segment = 2, .id = 20}, .n_removed = 1});
        record_run(3, 30, 1, waits, 0);
        cr_expect(!failed);
        cr_expect_str_eq(losses, "");
        store_end();
        cr_expect_eq(query("SELECT count(*) FROM snapshot"), 2);
        stack_unref(small);
        stack_unref(sent);
        stack_unref(waits);
}

/* Writes beyond the file's size fail, as on a full disk. */
static void disk_is_full(bool full)
{
        struct rlimit limit = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};

        signal(SIGXFSZ, SIG_IGN);
        if (full)
                limit.rlim_cur = 1;
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

Test(store, full_disk)
{
        Stack *stack = stack_of("main", "a");

        store_begin(MIB);
        put_task("t");
        record_run(1, 10, 5, stack, 0);
        cr_expect(!failed);
        disk_is_full(true);
        record_run(2, 20, 5, stack, 0);
        cr_expect(failed);
        cr_expect_str_eq(store_status(store).state, "failing");
        cr_expect_str_neq(store_status(store).error, "");
        cr_expect(!keep->works(keep->userdata), "not tried again at once");
        /* Nobody waits for this one. */
        store_task_over(store, "svc", "i", "t", now);
        load(10);
        cr_expect(!failed, "what is there can be read");
        cr_expect_eq(n_loaded, 5);
        cr_expect(!keep->works(keep->userdata));
        cr_expect_eq(counter_get(COUNTER_STORE_RECORDS_LOST), 1);
        disk_is_full(false);
        record_run(2, 20, 5, stack, 0);
        cr_expect(!failed);
        cr_expect_str_eq(store_status(store).state, "ready");
        cr_expect(keep->works(keep->userdata));
        load(10);
        cr_expect_eq(n_loaded, 10);
        cr_expect_eq(stack->n_refs, 1);
        store_end();
        store_begin(MIB);
        cr_expect_eq(keep->last_id, 24, "an id is never used twice");
        stack_unref(stack);
}

Test(store, one_bad_record_spoils_no_other)
{
        Stack *stack = stack_of("main", "a");
        KeptSegment s = segment_of(90, "good", 1, 1);

        store_begin(MIB);
        record_run(1, 10, 1, stack, 0);
        /* An id that is there already. */
        cr_assert_eq(
                keep->record(keep->userdata,
                        &(KeepRecord){.snapshots = &(
                                              KeptSnapshot){.segment = 1, .id = 10, .stack = stack},
                                .n_snapshots = 1},
                        NULL, NULL),
                0);
        put_task("t");
        record(&(KeepRecord){.segments = &s, .n_segments = 1});
        cr_expect(!failed);
        cr_expect_eq(counter_get(COUNTER_STORE_RECORDS_LOST), 1);
        store_end();
        store_begin(MIB);
        cr_expect(strstr(restored, "task svc/i t "), "%s", restored);
        cr_expect(strstr(restored, "segment 90 "), "%s", restored);
        cr_expect_eq(keep->last_id, 90);
        stack_unref(stack);
}

Test(store, freed_with_everything_under_way)
{
        Stack *stack = stack_of("main", "a");
        KeptSegment s = segment_of(1, "seg", 0, 0);

        store_begin(MIB);
        put_task("t");
        for (uint64_t i = 0; i < 300; i++)
                cr_assert_eq(keep->record(keep->userdata,
                                     &(KeepRecord){.segments = &s,
                                             .n_segments = 1,
                                             .snapshots = &(KeptSnapshot){.segment = 1,
                                                     .id = i + 2,
                                                     .stack = stack},
                                             .n_snapshots = 1},
                                     NULL, NULL),
                        0);
        store_end();
        cr_expect_eq(stack->n_refs, 1);
        cr_expect_eq(query("SELECT count(*) FROM snapshot"), 300, "all of it was done");
        stack_unref(stack);
}

/* Of a record that was lost: they go, and no others. */
Test(store, snapshots_of_no_segment)
{
        Stack *stack = stack_of("main", "a");

        store_begin(MIB);
        for (uint64_t segment = 1; segment <= 3; segment++)
                record_run(segment, segment * 10, 2, stack, 0);
        store_end();
        query("DELETE FROM segment WHERE id != 2");
        store_begin(MIB);
        store_end();
        cr_expect_eq(query("SELECT count(*) FROM snapshot"), 2);
        cr_expect_eq(query("SELECT sum(segment) FROM snapshot"), 4);
        stack_unref(stack);
}
