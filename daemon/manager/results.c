/* SPDX-License-Identifier: Apache-2.0 */

/* Requests about tasks of swprofctl, and what they yield: the local backend's. */

#include <stdlib.h>
#include <string.h>

#include "control.pb-c.h"
#include "manager/internal.h"

/* Answers that are waited for; of a user who is not trusted, one. */
#define QUESTIONS_MAX 16
/* Longer than other answers: of a large database, on a slow disk. */
#define ANSWER_US (30 * 1000000ULL)

typedef Swprof__Control__Request Request;
typedef Swprof__Control__Reply Reply;

/* One that the store answers. */
typedef struct Question {
        ListLink link;
        ControlCall *call; /* NULL: is gone */
        int64_t uid;       /* -1: of a peer that is trusted */
} Question;

static bool check_local(Manager *m, ControlCall *call)
{
        if (m->local)
                return true;
        control_call_fail(call,
                "this swprofd has no local backend: see 'backends' in its configuration", false);
        return false;
}

/* ---- tasks ---- */

static void fail_refused(ControlCall *call, int r, char *error)
{
        control_call_fail(call, r > 0 && error ? error : "out of memory", false);
        free(error);
}

void manager_task_start(Manager *m, ControlCall *call, const Request *request)
{
        const Swprof__Control__TaskStart *start = request->task_start;
        const LocalTaskSpec spec = {
                .service = start->service,
                .endpoint = start->endpoint,
                .duration_ms = start->duration_ms,
                .threshold_ms = start->threshold_ms,
                .period_ms = start->period_ms,
                .max_sampling_count = start->max_sampling_count,
        };
        Reply reply = SWPROF__CONTROL__REPLY__INIT;
        char id[RESULT_TASK_ID_SIZE], *error = NULL;
        int r;

        if (!check_local(m, call))
                return;
        r = local_task_start(m->local, &spec, id, &error, now_get());
        if (r) {
                fail_refused(call, r, error);
                return;
        }
        reply.result_case = SWPROF__CONTROL__REPLY__RESULT_TASK;
        reply.task = id;
        control_call_respond(call, &reply);
}

void manager_task_stop(Manager *m, ControlCall *call, const Request *request)
{
        Swprof__Control__Empty done = SWPROF__CONTROL__EMPTY__INIT;
        Reply reply = SWPROF__CONTROL__REPLY__INIT;
        char *error = NULL;
        int r;

        if (!check_local(m, call))
                return;
        r = local_task_stop(m->local, request->task_stop->id, &error, now_get());
        if (r) {
                fail_refused(call, r, error);
                return;
        }
        reply.result_case = SWPROF__CONTROL__REPLY__RESULT_DONE;
        reply.done = &done;
        control_call_respond(call, &reply);
}

/* ---- what the store is asked ---- */

static void question_free(Question *q)
{
        list_remove(&q->link);
        free(q);
}

/* NULL: the call has been answered. */
static Question *question_new(Manager *m, ControlCall *call)
{
        const ControlPeer *peer = control_call_peer(call);
        int64_t uid = peer->trusted ? -1 : (int64_t)peer->uid;
        unsigned n = 0;
        Question *q;

        if (!check_local(m, call))
                return NULL;
        list_for_each (q, &m->questions, link) {
                n++;
                if (uid >= 0 && q->uid == uid)
                        n = QUESTIONS_MAX;
        }
        if (n >= QUESTIONS_MAX) {
                control_call_fail(call, "too many ask for results now: try again", false);
                return NULL;
        }
        q = calloc(1, sizeof(*q));
        if (!q) {
                control_call_fail(call, "out of memory", false);
                return NULL;
        }
        control_call_expect(call, ANSWER_US);
        q->call = call;
        q->uid = uid;
        list_append(&m->questions, &q->link);
        return q;
}

static void question_fail(Question *q)
{
        control_call_fail(q->call, "the database is too busy: try again", false);
        question_free(q);
}

void manager_results_forget(Manager *m, ControlCall *call)
{
        Question *q;

        list_for_each (q, &m->questions, link)
                if (q->call == call)
                        q->call = NULL;
}

void manager_results_deinit(Manager *m)
{
        Question *q, *next;

        list_for_each_safe (q, next, &m->questions, link)
                question_free(q);
}

static void on_profile(void *userdata, const char *error, const uint8_t *profile, size_t size)
{
        Question *q = userdata;
        Reply reply = SWPROF__CONTROL__REPLY__INIT;

        if (q->call && error) {
                control_call_fail(q->call, error, false);
        } else if (q->call) {
                reply.result_case = SWPROF__CONTROL__REPLY__RESULT_PROFILE;
                reply.profile.data = (uint8_t *)profile;
                reply.profile.len = size;
                control_call_respond(q->call, &reply);
        }
        question_free(q);
}

void manager_results(Manager *m, ControlCall *call, const Request *request)
{
        const Swprof__Control__Results *results = request->results;
        Question *q = question_new(m, call);
        StoreQuery query = {
                .selection = results->selection,
                .all = results->all,
                .bare = results->bare,
        };

        if (!q)
                return;
        query.uid = q->uid;
        if (store_get_profile(m->results, &query, on_profile, q) < 0)
                question_fail(q);
}

static void tasks_fill(Swprof__Control__LocalTasks *list, Swprof__Control__LocalTask *tasks,
        char (*ids)[RESULT_TASK_ID_SIZE], const StoreTask *rows, size_t n)
{
        int64_t now_wall_ms = now_get().wall_ms;

        for (size_t i = 0; i < n; i++) {
                const ResultTask *row = &rows[i].task;
                Swprof__Control__LocalTask *t = &tasks[i];

                swprof__control__local_task__init(t);
                result_task_id(row->number, ids[i]);
                t->id = ids[i];
                t->service = row->service;
                t->endpoint = row->endpoint;
                t->state = (char *)(row->end_wall_ms > now_wall_ms ? "running" : "over");
                t->start_wall_ms = row->start_wall_ms;
                t->end_wall_ms = row->end_wall_ms;
                if (row->end_wall_ms > now_wall_ms)
                        t->remaining_ms = row->end_wall_ms - now_wall_ms;
                t->threshold_ms = row->threshold_ms;
                t->period_ms = row->period_ms;
                t->max_sampling_count = row->max_sampling_count;
                t->segments = rows[i].n_segments;
                t->done_segments = rows[i].n_done;
                t->snapshots = rows[i].n_snapshots;
                list->tasks[list->n_tasks++] = t;
        }
}

static void respond_tasks(ControlCall *call, const StoreTask *rows, size_t n)
{
        Swprof__Control__LocalTasks list = SWPROF__CONTROL__LOCAL_TASKS__INIT;
        Reply reply = SWPROF__CONTROL__REPLY__INIT;
        Swprof__Control__LocalTask *tasks = calloc(n + 1, sizeof(*tasks));
        char(*ids)[RESULT_TASK_ID_SIZE] = calloc(n + 1, sizeof(*ids));

        list.tasks = calloc(n + 1, sizeof(*list.tasks));
        if (tasks && ids && list.tasks) {
                tasks_fill(&list, tasks, ids, rows, n);
                reply.result_case = SWPROF__CONTROL__REPLY__RESULT_LOCAL_TASKS;
                reply.local_tasks = &list;
                control_call_respond(call, &reply);
        } else {
                control_call_fail(call, "out of memory", false);
        }
        free(list.tasks);
        free(tasks);
        free(ids);
}

static void on_tasks(void *userdata, const char *error, const StoreTask *tasks, size_t n)
{
        Question *q = userdata;

        if (q->call && error)
                control_call_fail(q->call, error, false);
        else if (q->call)
                respond_tasks(q->call, tasks, n);
        question_free(q);
}

void manager_local_tasks(Manager *m, ControlCall *call)
{
        Question *q = question_new(m, call);

        if (q && store_get_tasks(m->results, q->uid, on_tasks, q) < 0)
                question_fail(q);
}
