/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/counter.h"
#include "manager/stack-table.h"
#include "util/mailbox.h"
#include "util/time.h"

/* A worker whose mailbox has so much room, and which names stacks when told to. */

#define REQUESTS_MAX 64

static unsigned room, n_requests;
static WorkerStack requests[REQUESTS_MAX];
static Mailbox *stacks;
static StackTable *table;

int worker_symbolize(Worker *w, const WorkerStack *request)
{
        if (room == 0)
                return WORKER_E_BUSY;
        room--;
        cr_assert_lt(n_requests, REQUESTS_MAX);
        requests[n_requests++] = *request;
        return 0;
}

struct Mailbox *worker_stacks(Worker *w)
{
        return stacks;
}

static void name_all(void)
{
        for (unsigned i = 0; i < n_requests; i++) {
                WorkerStack reply = {.ticket = requests[i].ticket, .n_signatures = 1};

                reply.signatures = malloc(sizeof(char *));
                cr_assert(reply.signatures);
                reply.signatures[0] = (char *)"main";
                free(requests[i].frames);
                cr_assert_eq(mailbox_push(stacks, &reply), 0);
        }
        n_requests = 0;
        stack_table_dispatch(table);
}

static void frames(TargetId target, uint64_t stack_id, size_t n_frames)
{
        SamplerEvent event = {
                .type = SAMPLER_STACK,
                .target = target,
                .stack_id = stack_id,
                .n_frames = n_frames,
                .frames = malloc(n_frames * sizeof(Frame)),
        };

        cr_assert(event.frames);
        cr_assert_eq(stack_table_frames(table, &event), 0);
}

static void begin(void)
{
        cr_assert_eq(mailbox_new(&stacks, sizeof(WorkerStack), REQUESTS_MAX), 0);
        cr_assert_eq(stack_table_new(&table, NULL), 0);
        room = REQUESTS_MAX;
}

static void end(void)
{
        stack_table_free(table);
        mailbox_free(stacks);
}

TestSuite(stack_table, .init = begin, .fini = end);

Test(stack_table, named)
{
        Stack *first = stack_ref(stack_table_sample(table, 1, 10)), *second;

        frames(1, 10, 3);
        second = stack_ref(stack_table_sample(table, 1, 11));
        frames(1, 11, 3);
        cr_assert_eq(stack_table_n_pending(table), 2);
        name_all();
        cr_assert_eq(first->state, STACK_READY);
        cr_assert_eq(second->state, STACK_READY);
        cr_assert_eq(stack_table_n_pending(table), 0);
        /* Only the newest one may be repeated. */
        cr_assert_eq(stack_table_sample(table, 1, 11), second);
        cr_assert_eq(first->n_refs, 1);
        cr_assert_eq(second->n_refs, 2);
        stack_unref(first);
        stack_unref(second);
}

/* The mailbox was full of requests for maps: no answer comes that would say that there is room. */
Test(stack_table, sent_when_there_is_room)
{
        Stack *stack = stack_ref(stack_table_sample(table, 1, 10));

        room = 0;
        frames(1, 10, 3);
        cr_assert(stack_table_waits(table));
        stack_table_send(table);
        cr_assert(stack_table_waits(table));
        room = REQUESTS_MAX;
        stack_table_send(table);
        cr_assert_not(stack_table_waits(table));
        name_all();
        cr_assert_eq(stack->state, STACK_READY);
        stack_unref(stack);
}

/* What a worker that is long at something leaves waiting is bounded. */
Test(stack_table, waiting_is_bounded)
{
        uint64_t id = 0;

        room = 0;
        for (; counter_get(COUNTER_SAMPLES_QUEUE_FULL) == 0; id++) {
                cr_assert_lt(id, 1000);
                stack_table_sample(table, 1, id);
                frames(1, id, 16384);
        }
        cr_assert_gt(id, 100);
        cr_assert_eq(stack_table_sample(table, 1, id - 1)->state, STACK_FAILED);
        cr_assert_eq(stack_table_n_pending(table), id - 1);
        /* There is room again for each that goes. */
        room = 1;
        stack_table_send(table);
        stack_table_sample(table, 1, id);
        frames(1, id, 16384);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_QUEUE_FULL), 1);
        name_all();
}

/* The process' map came when the target was long forgotten: its stack is, too. */
Test(stack_table, forgotten)
{
        stack_table_sample(table, 1, 10);
        stack_table_target_removed(table, 1, NS_PER_S);
        stack_table_expire(table, 30 * NS_PER_S);
        cr_assert_eq(stack_table_n_pending(table), 1);
        stack_table_expire(table, 60 * NS_PER_S);
        frames(1, 10, 3);
        cr_assert_eq(stack_table_n_pending(table), 0);
        cr_assert_eq(n_requests, 0);
}
