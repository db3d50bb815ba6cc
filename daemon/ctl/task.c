/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/task.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/call.h"
#include "ctl/ctl.h"
#include "ctl/json.h"
#include "ctl/options.h"
#include "ctl/output.h"
#include "ctl/parse.h"
#include "ctl/table.h"
#include "ctl/text.h"
#include "util/cleanup.h"
#include "version.h"

#define DURATION_MS 300000
/* How often the daemon is asked by --wait. */
#define POLL_MS 500
/* What a task that is over may still get is waited for so long. */
#define SETTLE_POLLS 4

typedef Swprof__Control__Request Request;
typedef Swprof__Control__Reply Reply;
typedef Swprof__Control__LocalTask LocalTask;

static bool fail_value(const char *what, const char *value)
{
        fprintf(stderr, "swprofctl: %s, not '%s'; try: swprofctl --help\n", what, value);
        return false;
}

bool task_option(TaskOptions *o, int option, const char *value)
{
        switch (option) {
        case 'S':
                o->service = value;
                return true;
        case 'w':
                o->wait = true;
                return true;
        case TASK_OPTION_THRESHOLD:
                return parse_threshold(value, &o->threshold_ms) ||
                       fail_value("a threshold is up to an hour, as 0ms, 200ms or 2s", value);
        case TASK_OPTION_PERIOD:
                return parse_duration(value, &o->period_ms) ||
                       fail_value("a period is a time, as 10ms or 1s", value);
        default:
                return parse_depth(value, &o->count) || fail_value("the count is a number", value);
        }
}

static int fail_usage(const char *what)
{
        fprintf(stderr, "swprofctl: %s; try: swprofctl --help\n", what);
        return CTL_EXIT_USAGE;
}

/* ---- list ---- */

static int ask_tasks(const Options *o, Reply **ret)
{
        Swprof__Control__Empty empty = SWPROF__CONTROL__EMPTY__INIT;
        Request request = SWPROF__CONTROL__REQUEST__INIT;

        request.verb_case = SWPROF__CONTROL__REQUEST__VERB_LOCAL_TASKS;
        request.local_tasks = &empty;
        return ctl_ask(o, &request, CTL_RESULTS_S, SWPROF__CONTROL__REPLY__RESULT_LOCAL_TASKS, ret);
}

static char *list_text(const Swprof__Control__LocalTasks *list)
{
        static const Column columns[] = {
                {"TASK"},
                {"SERVICE"},
                {"ENDPOINT"},
                {"STATE"},
                {"START"},
                {"REMAINING", true},
                {"THRESHOLD", true},
                {"PERIOD", true},
                {"SEGMENTS", true},
                {"SAMPLES", true},
        };
        _cleanup_(table_freep) Table *t = TABLE(columns);
        char *text = NULL;
        size_t size;
        FILE *f = check_memory(open_memstream(&text, &size));

        for (size_t i = 0; i < list->n_tasks; i++) {
                const LocalTask *x = list->tasks[i];

                table_add(t, "%s", x->id);
                table_add(t, "%s", x->service);
                table_add(t, "%s", x->endpoint);
                table_add(t, "%s", x->state);
                table_take(t, text_time(x->start_wall_ms));
                table_take(t, text_duration(x->remaining_ms > 0 ? (uint64_t)x->remaining_ms : 0));
                table_add(t, "%" PRIu32 " ms", x->threshold_ms);
                table_add(t, "%" PRIu32 " ms", x->period_ms);
                table_add(t, "%" PRIu64 "/%" PRIu32, x->segments, x->max_sampling_count);
                table_add(t, "%" PRIu64, x->snapshots);
        }
        table_print(t, f, output_wants_colour());
        fclose(f);
        return check_memory(text);
}

static int list_run(const Options *o)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        struct json_object *object;
        int r;

        r = ask_tasks(o, &reply);
        if (r)
                return r;
        if (!o->json)
                return output_take(list_text(reply->local_tasks));
        object = json_new();
        json_add(object, "version", json_string(SWPROFD_VERSION));
        json_add(object, "tasks", json_from_field(&reply->local_tasks->base, "tasks"));
        return output_take(json_take_text(object));
}

/* ---- start ---- */

static const LocalTask *find(const Reply *reply, const char *id)
{
        for (size_t i = 0; i < reply->local_tasks->n_tasks; i++)
                if (strcmp(reply->local_tasks->tasks[i]->id, id) == 0)
                        return reply->local_tasks->tasks[i];
        return NULL;
}

/* One line, of no more columns than there are. */
static void show_progress(const LocalTask *t)
{
        _cleanup_(freep) char *left = NULL, *line = NULL;
        unsigned width = output_width();

        if (!isatty(STDERR_FILENO))
                return;
        left = text_duration(t->remaining_ms > 0 ? (uint64_t)t->remaining_ms : 0);
        line = text_format("%" PRIu64 " of %" PRIu32 " requests, %" PRIu64 " samples, %s left",
                t->done_segments, t->max_sampling_count, t->snapshots, left);
        fprintf(stderr, "\r\033[K%.*s", width > 1 ? (int)width - 1 : 79, line);
        fflush(stderr);
}

static int show_end(const Options *o, const LocalTask *t)
{
        struct json_object *object;
        int r;

        if (isatty(STDERR_FILENO))
                fputs("\r\033[K", stderr);
        if (o->json) {
                object = json_new();
                json_add(object, "version", json_string(SWPROFD_VERSION));
                json_add(object, "task", json_from_message(&t->base));
                r = output_take(json_take_text(object));
                if (r || t->segments > 0)
                        return r;
        }
        if (t->segments == 0) {
                fprintf(stderr,
                        "swprofctl: %s is over, and has seen no request that took longer than "
                        "%" PRIu32 " ms\n",
                        t->id, t->threshold_ms);
                return CTL_EXIT_FAILED;
        }
        return output_take(text_format("%s is over: %" PRIu64 " request%s, %" PRIu64
                                       " samples; see: swprofctl report %s\n",
                t->id, t->segments, t->segments == 1 ? "" : "s", t->snapshots, t->id));
}

static int wait_for(const Options *o, const char *id)
{
        const struct timespec pause = {
                .tv_sec = POLL_MS / 1000, .tv_nsec = POLL_MS % 1000 * 1000000L};
        unsigned n_polls = 0, n_unknown = 0;

        for (;;) {
                _cleanup_(reply_freep) Reply *reply = NULL;
                const LocalTask *t;
                int r = ask_tasks(o, &reply);

                if (r)
                        return r;
                t = find(reply, id);
                if (t && strcmp(t->state, "over") == 0 &&
                        ((t->segments > 0 && t->done_segments == t->segments) ||
                                ++n_polls > SETTLE_POLLS))
                        return show_end(o, t);
                if (!t && ++n_unknown > SETTLE_POLLS) {
                        fprintf(stderr, "swprofctl: swprofd does not know %s any more\n", id);
                        return CTL_EXIT_FAILED;
                }
                if (t)
                        show_progress(t);
                nanosleep(&pause, NULL);
        }
}

static int start_run(const Options *o)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        Swprof__Control__TaskStart start = SWPROF__CONTROL__TASK_START__INIT;
        Request request = SWPROF__CONTROL__REQUEST__INIT;
        struct json_object *object;
        int r;

        if (!o->arguments[1] || !o->task.service)
                return fail_usage("task start needs an ENDPOINT and --service");
        start.service = (char *)o->task.service;
        start.endpoint = (char *)o->arguments[1];
        start.duration_ms = o->duration_ms ?: DURATION_MS;
        start.threshold_ms = o->task.threshold_ms;
        start.period_ms = o->task.period_ms;
        start.max_sampling_count = o->task.count;
        request.verb_case = SWPROF__CONTROL__REQUEST__VERB_TASK_START;
        request.task_start = &start;
        r = ctl_ask(o, &request, 0, SWPROF__CONTROL__REPLY__RESULT_TASK, &reply);
        if (r)
                return r;
        if (o->task.wait)
                return wait_for(o, reply->task);
        if (!o->json)
                return output_take(text_format("%s has begun; see: swprofctl task list, "
                                               "swprofctl report %s\n",
                        reply->task, reply->task));
        object = json_new();
        json_add(object, "version", json_string(SWPROFD_VERSION));
        json_add(object, "task", json_string(reply->task));
        return output_take(json_take_text(object));
}

/* ---- stop ---- */

static int stop_run(const Options *o)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        Swprof__Control__TaskStop stop = SWPROF__CONTROL__TASK_STOP__INIT;
        Request request = SWPROF__CONTROL__REQUEST__INIT;
        struct json_object *object;
        int r;

        if (!o->arguments[1])
                return fail_usage("task stop needs a TASK, see swprofctl task list");
        stop.id = (char *)o->arguments[1];
        request.verb_case = SWPROF__CONTROL__REQUEST__VERB_TASK_STOP;
        request.task_stop = &stop;
        r = ctl_ask(o, &request, 0, SWPROF__CONTROL__REPLY__RESULT_DONE, &reply);
        if (r)
                return r;
        if (!o->json)
                return output_take(text_format("%s is over\n", stop.id));
        object = json_new();
        json_add(object, "version", json_string(SWPROFD_VERSION));
        json_add(object, "done", json_new());
        return output_take(json_take_text(object));
}

int task_run(const Options *o)
{
        const char *what = o->arguments[0] ?: "list";

        if (strcmp(what, "start") == 0)
                return start_run(o);
        if (strcmp(what, "stop") == 0)
                return stop_run(o);
        if (strcmp(what, "list") == 0 && !o->arguments[1])
                return list_run(o);
        return fail_usage("task is followed by start, list or stop");
}
