/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "skywalking.pb-c.h"
#include "world.h"

static unsigned task_index(const char *id)
{
        for (unsigned i = 0; i < N_TASKS; i++)
                if (strcmp(w.tasks[i].id, id) == 0)
                        return i;
        cr_assert_fail("no task %s", id);
        return 0;
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

static void oap_finish(RpcBytes bytes, bool answered)
{
        Skywalking__V3__ProfileTaskFinishReport *m =
                skywalking__v3__profile_task_finish_report__unpack(NULL, bytes.size, bytes.data);
        unsigned app;
        SimTask *t;

        cr_assert(m);
        t = &w.tasks[task_index(m->taskid)];
        app = app_index(m->serviceinstance);
        if (answered)
                t->told_ns[app] = w.now_ns;
        else
                cr_assert_eq(t->told_ns[app], 0, "%s is over again", m->taskid);
        t->n_finishes[app] += !answered;
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

void oap_receive(Call *c, size_t n)
{
        if (strstr(c->method, "getProfileTaskCommands") && n > 0)
                oap_poll(c);
        for (size_t i = 0; i < n; i++) {
                if (strstr(c->method, "collectSnapshot"))
                        oap_snapshot(c->messages[i]);
                else if (strstr(c->method, "reportTaskFinish"))
                        oap_finish(c->messages[i], false);
                else if (strstr(c->method, "/collect"))
                        oap_report(c->messages[i]);
        }
}

void oap_answered(const Call *c)
{
        if (strstr(c->method, "reportTaskFinish"))
                oap_finish(c->messages[0], true);
}
