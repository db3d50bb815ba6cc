/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "core/counter.h"
#include "oap/buffer.h"
#include "skywalking.pb-c.h"

#define UNBOUNDED SIZE_MAX

static Stack *stack_of(const char *signature)
{
        Stack *s = stack_new();

        cr_assert(s);
        cr_assert_eq(stack_set_ready(s, 1, &signature), 0);
        return s;
}

static int add(Buffer *b, const char *task, const char *segment, int64_t time, Stack *stack,
        size_t max_bytes)
{
        /* The core's sequence plays no part. */
        return buffer_add(b,
                &(Snapshot){.service = "svc",
                        .instance = "i",
                        .task_id = task,
                        .segment_id = segment,
                        .time_wall_ms = time,
                        .sequence = 77,
                        .stack = stack},
                max_bytes);
}

/* Adds one snapshot for each letter, which names its stack; times count from 0. */
static void add_run(Buffer *b, const char *segment, const char *letters)
{
        static Stack *stacks[256];

        for (size_t i = 0; letters[i]; i++) {
                unsigned char c = (unsigned char)letters[i];

                if (!stacks[c])
                        stacks[c] = stack_of((char[]){letters[i], '\0'});
                cr_assert_eq(add(b, "t", segment, (int64_t)i, stacks[c], UNBOUNDED), 0);
        }
}

/* A batch as text: "segment:sequence@time=stack …". */
static const char *batch_text(const BufferBatch *batch)
{
        static char text[65536];
        size_t n = 0;

        text[0] = '\0';
        for (size_t i = 0; i < batch->n; i++) {
                Skywalking__V3__ThreadSnapshot *m = skywalking__v3__thread_snapshot__unpack(
                        NULL, batch->messages[i].size, batch->messages[i].data);

                cr_assert(m);
                n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s:%d@%d=%s", i ? " " : "",
                        m->tracesegmentid, m->sequence, (int)m->time, m->stack->codesignatures[0]);
                skywalking__v3__thread_snapshot__free_unpacked(m, NULL);
        }
        return text;
}

static const char *take(Buffer *b, size_t n, bool left)
{
        _cleanup_(buffer_batch_deinit) BufferBatch batch = {0};
        const char *text;

        cr_assert_eq(buffer_batch_begin(b, n, true, &batch), 0);
        text = batch_text(&batch);
        buffer_batch_end(b, left, false);
        return text;
}

Test(buffer, order_and_sequences)
{
        Buffer *b = buffer_new(NULL);

        add_run(b, "p", "AB");
        add_run(b, "q", "A");
        add_run(b, "p", "C");
        cr_expect_eq(buffer_n(b), 4);
        cr_expect_str_eq(take(b, 3, true), "p:0@0=A p:1@1=B q:0@0=A");
        cr_expect_str_eq(take(b, 3, true), "p:2@0=C");
        cr_expect_str_eq(take(b, 3, true), "");
        cr_expect_eq(buffer_n(b), 0);
        cr_expect_eq(buffer_bytes(b), 0);
        buffer_free(b);
}

Test(buffer, returned_batch_is_as_never_taken)
{
        Buffer *b = buffer_new(NULL);

        add_run(b, "p", "ABC");
        cr_expect_str_eq(take(b, 2, false), "p:0@0=A p:1@1=B");
        cr_expect_eq(buffer_n(b), 3);
        cr_expect_str_eq(take(b, 1, true), "p:0@0=A");
        cr_expect_str_eq(take(b, 9, true), "p:1@1=B p:2@2=C");
        buffer_free(b);
}

Test(buffer, same_segment_id_elsewhere)
{
        Buffer *b = buffer_new(NULL);
        Stack *stack = stack_of("A");

        cr_assert_eq(add(b, "t1", "p", 0, stack, UNBOUNDED), 0);
        cr_assert_eq(add(b, "t2", "p", 1, stack, UNBOUNDED), 0);
        cr_assert_eq(add(b, "t1", "p", 2, stack, UNBOUNDED), 0);
        cr_expect_str_eq(take(b, 9, true), "p:0@0=A p:0@1=A p:1@2=A");
        stack_unref(stack);
        buffer_free(b);
}

/* Fills the buffer to the last byte, so that the next snapshot makes it thin. Return: bytes that it
 * holds. */
static size_t thin(Buffer *b, const char *segment, const char *letter)
{
        Stack *stack = stack_of(letter);
        size_t bytes = buffer_bytes(b);
        int r = add(b, "t", segment, 99, stack, bytes);

        cr_expect(r == 0 || r == BUFFER_E_FULL);
        stack_unref(stack);
        return bytes;
}

Test(buffer, thinning_keeps_the_ends_of_runs)
{
        Buffer *b = buffer_new(NULL);
        uint64_t thinned = counter_get(COUNTER_SNAPSHOTS_THINNED);

        /* Runs of 7, 1, 2 and 3 in one segment, cut by those of another only in the queue. */
        add_run(b, "p", "AAAAAAABCCDDD");
        add_run(b, "q", "AA");
        thin(b, "r", "E");
        cr_expect_eq(counter_get(COUNTER_SNAPSHOTS_THINNED), thinned + 4);
        cr_expect_str_eq(take(b, 99, false),
                "p:0@0=A p:1@2=A p:2@4=A p:3@6=A p:4@7=B p:5@8=C p:6@9=C p:7@10=D p:8@12=D "
                "q:0@0=A q:1@1=A r:0@99=E");
        /* The next time, every second one of what is left. */
        thin(b, "r", "F");
        cr_expect_str_eq(take(b, 99, true),
                "p:0@0=A p:1@4=A p:2@6=A p:3@7=B p:4@8=C p:5@9=C p:6@10=D p:7@12=D "
                "q:0@0=A q:1@1=A r:0@99=E r:1@99=F");
        buffer_free(b);
}

Test(buffer, thinning_spares_the_batch)
{
        _cleanup_(buffer_batch_deinit) BufferBatch batch = {0};
        Buffer *b = buffer_new(NULL);

        add_run(b, "p", "AAAAAAAA");
        cr_assert_eq(buffer_batch_begin(b, 3, true, &batch), 0);
        thin(b, "q", "B");
        cr_expect_str_eq(batch_text(&batch), "p:0@0=A p:1@1=A p:2@2=A");
        buffer_batch_end(b, true, false);
        /* What the batch held may be lost: the first one behind it is the end of a run. */
        cr_expect_str_eq(take(b, 99, true), "p:3@3=A p:4@5=A p:5@7=A q:0@99=B");
        buffer_free(b);
}

Test(buffer, full)
{
        Buffer *b = buffer_new(NULL);
        Stack *stack = stack_of("A");
        size_t bytes;

        add_run(b, "p", "ABCD");
        bytes = buffer_bytes(b);
        cr_expect_eq(add(b, "t", "p", 4, stack, bytes), BUFFER_E_FULL);
        cr_expect_eq(buffer_n(b), 4);
        cr_expect_eq(buffer_bytes(b), bytes);
        /* A refused first snapshot leaves nothing behind. */
        cr_expect_eq(add(b, "t", "new", 4, stack, bytes), BUFFER_E_FULL);
        cr_expect(!buffer_segment_done(b, "svc", "i", "new", (RpcBytes){0}));
        /* There is room again once something has left. */
        cr_expect_str_eq(take(b, 1, true), "p:0@0=A");
        cr_expect_eq(add(b, "t", "p", 4, stack, bytes), 0);
        cr_expect_eq(buffer_drop(b), 4);
        cr_expect_eq(buffer_bytes(b), 0);
        stack_unref(stack);
        buffer_free(b);
}

static RpcBytes report_of(const char *text)
{
        return (RpcBytes){strdup(text), strlen(text)};
}

static void expect_retired(Buffer *b, const char *text)
{
        RpcBytes report = buffer_retired(b).bytes;

        if (!text)
                cr_expect_null(report.data);
        else
                cr_expect_str_eq(report.data ? report.data : "nothing", text);
        free((void *)report.data);
}

Test(buffer, report_follows_the_last_snapshot)
{
        Buffer *b = buffer_new(NULL);

        add_run(b, "p", "AB");
        cr_expect(buffer_segment_done(b, "svc", "i", "p", report_of("p is over")));
        expect_retired(b, NULL);
        take(b, 1, true);
        expect_retired(b, NULL);
        take(b, 1, false);
        expect_retired(b, NULL);
        take(b, 1, true);
        expect_retired(b, "p is over");
        expect_retired(b, NULL);
        cr_expect(!buffer_segment_done(b, "svc", "i", "p", (RpcBytes){0}));
        buffer_free(b);
}

Test(buffer, report_of_a_segment_that_is_already_empty)
{
        Buffer *b = buffer_new(NULL);

        add_run(b, "p", "A");
        take(b, 1, true);
        cr_expect(buffer_segment_done(b, "svc", "i", "p", report_of("p is over")));
        expect_retired(b, "p is over");
        buffer_free(b);
}

Test(buffer, the_end_of_the_task_ends_its_segments)
{
        Buffer *b = buffer_new(NULL);

        add_run(b, "p", "A");
        add_run(b, "q", "A");
        cr_expect(buffer_has_task(b, "svc", "i", "t"));
        cr_expect(!buffer_has_task(b, "svc", "other", "t"));
        cr_expect(!buffer_has_task(b, "svc", "i", "other"));
        buffer_task_done(b, "svc", "i", "t");
        cr_expect(buffer_has_task(b, "svc", "i", "t"));
        /* The report may come between the task's end and the last stream, or after that. */
        cr_expect(buffer_segment_done(b, "svc", "i", "q", report_of("q is over")));
        take(b, 9, true);
        cr_expect(!buffer_has_task(b, "svc", "i", "t"));
        expect_retired(b, "q is over");
        cr_expect(!buffer_segment_done(b, "svc", "i", "p", (RpcBytes){0}));
        /* The same ids again are a new segment. */
        add_run(b, "p", "B");
        cr_expect_str_eq(take(b, 9, true), "p:0@0=B");
        buffer_free(b);
}

Test(buffer, freed_with_everything_in_it)
{
        _cleanup_(buffer_batch_deinit) BufferBatch batch = {0};
        Buffer *b = buffer_new(NULL);

        add_run(b, "p", "AAB");
        add_run(b, "q", "A");
        take(b, 4, true);
        cr_expect(buffer_segment_done(b, "svc", "i", "p", report_of("p is over")));
        add_run(b, "q", "AB");
        cr_expect(buffer_segment_done(b, "svc", "i", "q", report_of("q is over")));
        cr_assert_eq(buffer_batch_begin(b, 1, true, &batch), 0);
        buffer_free(b);
}
