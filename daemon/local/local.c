/* SPDX-License-Identifier: Apache-2.0 */
#include "local/local.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "local/local-private.h"
#include "util/error.h"
#include "util/log.h"
#include "util/utf8.h"

/* As the client protocol has it. */
#define SERVICE_MAX 255
/* That are not over, of all services. */
#define TASKS_MAX 256

#define MINUTE_MS 60000

/* ---- tasks ---- */

static LocalTask *local_find(const Local *l, uint64_t number)
{
        LocalTask *t;

        list_for_each (t, &l->tasks, link)
                if (t->task.number == number)
                        return t;
        return NULL;
}

static void local_task_free(LocalTask *t)
{
        list_remove(&t->link);
        free(t->task.service);
        free(t->task.endpoint);
        free(t);
}

/* NULL: no memory. */
static LocalTask *local_task_new(Local *l, const ResultTask *task)
{
        LocalTask *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        list_init(&t->link);
        t->task = *task;
        t->task.service = strdup(task->service);
        t->task.endpoint = strdup(task->endpoint);
        if (!t->task.service || !t->task.endpoint) {
                local_task_free(t);
                return NULL;
        }
        result_task_id(task->number, t->id);
        list_append(&l->tasks, &t->link);
        return t;
}

static TaskCommand local_command(const Local *l, const LocalTask *t)
{
        return (TaskCommand){
                .source = &l->source,
                .task_id = t->id,
                .endpoint = t->task.endpoint,
                .duration_min = (t->task.end_wall_ms - t->task.start_wall_ms) / MINUTE_MS,
                .threshold_ms = t->task.threshold_ms,
                .period_ms = t->task.period_ms,
                .max_sampling_count = t->task.max_sampling_count,
                .start_wall_ms = t->task.start_wall_ms,
                .create_wall_ms = -1,
        };
}

/* An instance that has it, or may not have it, stays as it is. */
static void local_offer(Local *l, const LocalTask *t, Instance *i, Now now)
{
        TaskCommand command = local_command(l, t);

        if (strcmp(i->service, t->task.service) != 0 || i->n_clients == 0)
                return;
        if (core_task_add(l->core, i, &command, now) < 0)
                log_error("out of memory: instance %s of %s does without task %s", i->name,
                        i->service, t->id);
}

/* ---- beginning one ---- */

static int __attribute__((format(printf, 2, 3))) refuse(char **ret_error, const char *format, ...)
{
        va_list args;
        int n;

        va_start(args, format);
        n = vasprintf(ret_error, format, args);
        va_end(args);
        if (n >= 0)
                return LOCAL_E_REFUSED;
        *ret_error = NULL;
        return error_origin(-ENOMEM);
}

static int refuse_busy(char **ret_error, const char *service, const char *id, int64_t left_ms)
{
        return refuse(ret_error,
                "service '%s' has task %s already, for up to %lld s more, and can have one at a "
                "time",
                service, id, (long long)(left_ms / 1000 + 1));
}

/* Return: 0, LOCAL_E_REFUSED, -ENOMEM. */
static int check_room(const Local *l, const char *service, char **ret_error, Now now)
{
        unsigned n = 0;
        LocalTask *t;
        Task *task;

        list_for_each (t, &l->tasks, link) {
                n++;
                if (strcmp(t->task.service, service) == 0)
                        return refuse_busy(
                                ret_error, service, t->id, t->task.end_wall_ms - now.wall_ms);
        }
        if (n >= TASKS_MAX)
                return refuse(ret_error, "there are %u tasks already, as many as can be", n);
        for (Instance *i = core_instance_first(l->core); i; i = core_instance_next(l->core, i)) {
                if (strcmp(i->service, service) != 0)
                        continue;
                list_for_each (task, &i->tasks, link)
                        if (task->state == TASK_RUNNING && task->source != &l->source)
                                return refuse_busy(ret_error, service, task->id,
                                        task->end_wall_ms - now.wall_ms);
        }
        return 0;
}

static bool is_text(const char *s)
{
        size_t left = strlen(s), n;

        while (left > 0 && (n = utf8_length((const unsigned char *)s, left)) > 0) {
                s += n;
                left -= n;
        }
        return left == 0;
}

static int check_spec(const Local *l, const LocalTaskSpec *spec, char **ret_error, Now now)
{
        const TaskCommand command = {
                .task_id = RESULT_TASK_PREFIX,
                .endpoint = spec->endpoint,
                .duration_min =
                        spec->duration_ms % MINUTE_MS == 0 ? spec->duration_ms / MINUTE_MS : 0,
                .threshold_ms = spec->threshold_ms,
                .period_ms = spec->period_ms,
                .max_sampling_count = spec->max_sampling_count,
                .start_wall_ms = now.wall_ms,
        };
        const char *wrong = core_task_check(&command, now);

        if (!l->config->profile_active)
                return refuse(ret_error, "profile.active is false: no task is carried out");
        if (!spec->service[0] || strlen(spec->service) > SERVICE_MAX)
                return refuse(ret_error, "the task is refused: its service is empty or too long");
        if (!is_text(spec->service) || !is_text(spec->endpoint))
                return refuse(ret_error, "the task is refused: its names are not UTF-8");
        return wrong ? refuse(ret_error, "the task is refused: %s", wrong) : 0;
}

int local_task_start(Local *l, const LocalTaskSpec *spec, char *ret_id, char **ret_error, Now now)
{
        ResultTask task = {
                .number = l->last_number + 1,
                .service = (char *)spec->service,
                .endpoint = (char *)spec->endpoint,
                .threshold_ms = (uint32_t)spec->threshold_ms,
                .period_ms = (uint32_t)spec->period_ms,
                .max_sampling_count = (uint32_t)spec->max_sampling_count,
                .start_wall_ms = now.wall_ms,
                .end_wall_ms = now.wall_ms + spec->duration_ms,
        };
        LocalTask *t;
        int r;

        r = check_spec(l, spec, ret_error, now);
        if (r == 0)
                r = check_room(l, spec->service, ret_error, now);
        if (r)
                return r < 0 ? error_trace(r) : r;
        t = local_task_new(l, &task);
        if (!t)
                return error_origin(-ENOMEM);
        l->last_number = task.number;
        log_info("task %s for service %s: '%s'", t->id, t->task.service, t->task.endpoint);
        sink_task(&l->sink, &t->task);
        for (Instance *i = core_instance_first(l->core); i; i = core_instance_next(l->core, i))
                local_offer(l, t, i, now);
        /* Whoever asks for it now shall find it. */
        sink_flush(&l->sink);
        strcpy(ret_id, t->id);
        return 0;
}

/* ---- ending one ---- */

static void local_end(Local *l, LocalTask *t, Now now)
{
        if (t->task.end_wall_ms > now.wall_ms) {
                t->task.end_wall_ms = now.wall_ms;
                sink_task(&l->sink, &t->task);
                /* No instance may have come for it. */
                (void)core_task_stop(l->core, t->id, now);
        }
        log_info("task %s for service %s is over", t->id, t->task.service);
        local_task_free(t);
}

int local_task_stop(Local *l, const char *id, char **ret_error, Now now)
{
        uint64_t number = result_task_number(id);
        LocalTask *t = number ? local_find(l, number) : NULL;

        if (t) {
                local_end(l, t, now);
                sink_flush(&l->sink);
                return 0;
        }
        if (number > 0 && number <= l->last_number)
                return refuse(ret_error, "task %s is over already", id);
        return refuse(ret_error, "there is no task '%s' of swprofctl", id);
}

static bool is_due(const LocalTask *t, Now now)
{
        return t->n_done >= t->task.max_sampling_count || t->task.end_wall_ms <= now.wall_ms;
}

/* ---- as a source of tasks ---- */

static void source_instance_added(void *userdata, Instance *i, Now now)
{
        Local *l = userdata;
        LocalTask *t;

        list_for_each (t, &l->tasks, link)
                if (!is_due(t, now))
                        local_offer(l, t, i, now);
}

static bool source_snapshot(void *userdata, const Snapshot *snapshot)
{
        Local *l = userdata;

        return sink_snapshot(&l->sink, snapshot);
}

static void source_segment_done(void *userdata, const SegmentReport *report, bool trace_wanted)
{
        Local *l = userdata;
        LocalTask *t = local_find(l, result_task_number(report->task_id));

        sink_segment_done(&l->sink, report);
        if (t)
                t->n_done++;
}

static void source_step(void *userdata, Now now)
{
        Local *l = userdata;
        LocalTask *t, *next;

        list_for_each_safe (t, next, &l->tasks, link)
                if (is_due(t, now))
                        local_end(l, t, now);
        sink_step(&l->sink, now);
}

static uint64_t source_next_mono_ns(const void *userdata, Now now)
{
        const Local *l = userdata;
        uint64_t due = sink_next_mono_ns(&l->sink);
        LocalTask *t;

        list_for_each (t, &l->tasks, link) {
                int64_t left_ms = is_due(t, now) ? 0 : t->task.end_wall_ms - now.wall_ms;
                /* The wall clock may step. */
                uint64_t at_mono_ns =
                        now.mono_ns + (uint64_t)(left_ms < 1000 ? left_ms : 1000) * NS_PER_MS;

                due = at_mono_ns < due ? at_mono_ns : due;
        }
        return due;
}

static void source_flush(void *userdata, Now now)
{
        Local *l = userdata;

        sink_flush(&l->sink);
}

static bool source_idle(const void *userdata)
{
        const Local *l = userdata;

        return sink_idle(&l->sink);
}

const TaskSource *local_source(const Local *l)
{
        return &l->source;
}

size_t local_n_pending(const Local *l)
{
        return sink_n_pending(&l->sink);
}

/* ---- restart ---- */

int local_restore_task(Local *l, const ResultTask *task, Now now)
{
        if (task->number > l->last_number)
                l->last_number = task->number;
        if (task->end_wall_ms <= now.wall_ms)
                return 0;
        return local_task_new(l, task) ? 0 : error_origin(-ENOMEM);
}

int local_restore_segment(Local *l, const ResultSegment *segment, int32_t n_snapshots,
        int64_t first_wall_ms, int64_t last_wall_ms, Now now)
{
        LocalTask *t = local_find(l, segment->task);
        RestoredSegment restored = {
                .segment_id = segment->segment_id,
                .continues = !segment->done,
                .n_snapshots = n_snapshots,
                .first_wall_ms = first_wall_ms,
                .last_wall_ms = last_wall_ms,
        };
        TaskCommand command;
        Instance *i;
        int r;

        if (!t)
                return 0;
        t->n_done += segment->done;
        command = local_command(l, t);
        restored.task_id = t->id;
        r = core_restore_instance(l->core, &i, t->task.service, segment->instance, -1, now);
        if (r == 0)
                r = core_restore_task(l->core, i, &command, now);
        if (r < 0)
                return error_trace(r);
        /* It has the task from a segment before. */
        if (core_restore_segment(l->core, i, &restored) != 0 || segment->done)
                return 0;
        return error_trace(sink_restore_segment(&l->sink, segment));
}

/* ---- its beginning and end ---- */

int local_new(Local **ret, const Config *config, Core *core, const Results *results)
{
        Local *l = calloc(1, sizeof(*l));

        if (!l)
                return error_origin(-ENOMEM);
        l->source = (TaskSource){
                .name = "local",
                .userdata = l,
                .remembers = true,
                .instance_added = source_instance_added,
                .snapshot = source_snapshot,
                .segment_done = source_segment_done,
                .step = source_step,
                .next_mono_ns = source_next_mono_ns,
                .flush = source_flush,
                .idle = source_idle,
        };
        l->config = config;
        l->core = core;
        list_init(&l->tasks);
        sink_init(&l->sink, results);
        *ret = l;
        return 0;
}

Local *local_free(Local *l)
{
        LocalTask *t, *next;

        if (!l)
                return NULL;
        sink_deinit(&l->sink);
        list_for_each_safe (t, next, &l->tasks, link)
                local_task_free(t);
        free(l);
        return NULL;
}
