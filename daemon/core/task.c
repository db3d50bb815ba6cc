/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"
#include "util/error.h"

/* The protocol's bounds, and ours where it has none. */
#define ID_MAX           512
#define ENDPOINT_MAX     1023
#define DURATION_MIN_MAX 15
#define THRESHOLD_MS_MAX (3600 * 1000)
#define PERIOD_MS_MIN    10
#define PERIOD_MS_MAX    (60 * 1000)

/* A task that begins later than that is a mistake, and would be kept for as long. */
#define START_AHEAD_MS (30 * 24 * 3600 * 1000LL)

/* ---- arrival ---- */

static int64_t command_end(const TaskCommand *command)
{
        return command->start_wall_ms + command->duration_min * 60 * 1000;
}

const char *core_task_check(const TaskCommand *command, Now now)
{
        size_t n_id = strnlen(command->task_id, ID_MAX + 1);
        size_t n_endpoint = strnlen(command->endpoint, ENDPOINT_MAX + 1);

        if (n_id == 0 || n_id > ID_MAX)
                return "its id is empty or too long";
        if (n_endpoint == 0 || n_endpoint > ENDPOINT_MAX)
                return "its endpoint is empty or too long";
        if (command->duration_min < 1 || command->duration_min > DURATION_MIN_MAX)
                return "its duration is not 1 to 15 minutes, whole ones";
        if (command->threshold_ms < 0 || command->threshold_ms > THRESHOLD_MS_MAX)
                return "its threshold is not 0 to 1 hour";
        if (command->period_ms < PERIOD_MS_MIN || command->period_ms > PERIOD_MS_MAX)
                return "its dump period is not 10 ms to 60 s";
        if (command->max_sampling_count < 1 ||
                command->max_sampling_count > TASK_SAMPLING_COUNT_MAX)
                return "its sampling count is not 1 to 9";
        if (command->start_wall_ms < 0 || command->start_wall_ms > now.wall_ms + START_AHEAD_MS)
                return "its start is out of range";
        return NULL;
}

Task *task_find(const Instance *i, const char *id)
{
        Task *task;

        list_for_each (task, &i->tasks, link)
                if (strcmp(task->id, id) == 0)
                        return task;
        return NULL;
}

static Task *task_overlapping(const Instance *i, const TaskCommand *command)
{
        Task *task;

        list_for_each (task, &i->tasks, link)
                if (task->state != TASK_ENDING && command->start_wall_ms < task->end_wall_ms &&
                        task->start_wall_ms < command_end(command))
                        return task;
        return NULL;
}

bool task_limit(const Instance *i)
{
        size_t n = 0;
        Task *task;

        list_for_each (task, &i->tasks, link)
                n++;
        return n >= INSTANCE_TASKS_MAX;
}

static int task_reject(
        Core *c, const Instance *i, const TaskCommand *command, const char *why, int code)
{
        unsigned suppressed;

        counter_add(COUNTER_TASKS_REJECTED, 1);
        if (log_limit(&c->log_rejected, &suppressed))
                log_warning("task %.*s of %s/%s is rejected: %s (%u more not logged)", ID_MAX,
                        command->task_id, i->service, i->name, why, suppressed);
        return code;
}

static int task_over(Core *c, Instance *i, const TaskCommand *command)
{
        char *id = strdup(command->task_id);

        if (!id)
                return error_origin(-ENOMEM);
        instance_remember(i, id);
        log_info("task %s of %s/%s was over when it arrived", id, i->service, i->name);
        counter_add(COUNTER_TASKS_OVER, 1);
        counter_add(COUNTER_TASKS_FINISHED, 1);
        c->ops->task_finished(c->userdata, command->source, i->service, i->name, id);
        return CORE_E_OVER;
}

Task *task_new(Instance *i, const TaskCommand *command)
{
        Task *task = calloc(1, sizeof(*task));

        if (!task)
                return NULL;
        list_init(&task->link);
        list_init(&task->segments);
        list_init(&task->queue);
        task->instance = i;
        task->source = command->source;
        task->id = strdup(command->task_id);
        task->endpoint = strdup(command->endpoint);
        if (!task->id || !task->endpoint)
                return task_free(task);
        task->threshold_ms = command->threshold_ms;
        task->period_ms = command->period_ms;
        task->max_sampling_count = command->max_sampling_count;
        task->start_wall_ms = command->start_wall_ms;
        task->end_wall_ms = command_end(command);
        list_append(&i->tasks, &task->link);
        return task;
}

Task *task_free(Task *task)
{
        if (!task)
                return NULL;
        list_remove(&task->link);
        free(task->id);
        free(task->endpoint);
        free(task);
        return NULL;
}

static int task_accept(Core *c, Instance *i, Task **ret, const TaskCommand *command, Now now)
{
        const char *wrong = core_task_check(command, now);
        Task *task;
        int r;

        if (wrong)
                return task_reject(c, i, command, wrong, CORE_E_INVALID);
        if (task_find(i, command->task_id) || instance_seen(i, command->task_id))
                return CORE_E_DUPLICATE;
        if (command_end(command) <= now.wall_ms) {
                r = task_over(c, i, command);
                return r < 0 ? error_trace(r) : r;
        }
        if (task_overlapping(i, command))
                return task_reject(c, i, command, "another task runs in that time", CORE_E_OVERLAP);
        if (task_limit(i))
                return task_reject(c, i, command, "there are too many tasks", CORE_E_LIMIT);

        task = task_new(i, command);
        if (!task)
                return error_origin(-ENOMEM);
        counter_add(COUNTER_TASKS_ACCEPTED, 1);
        log_info("task %s of %s/%s: '%s', over %u ms, every %u ms, %u segments", task->id,
                i->service, i->name, task->endpoint, task->threshold_ms, task->period_ms,
                task->max_sampling_count);
        c->ops->task_added(c->userdata, task);
        *ret = task;
        return 0;
}

int core_task_add(Core *c, Instance *i, const TaskCommand *command, Now now)
{
        Task *task = NULL;
        int r = task_accept(c, i, &task, command, now);

        /* Not before: a task whose command counts as seen does not come again. */
        if (command->create_wall_ms > i->last_command_wall_ms && r >= 0) {
                i->last_command_wall_ms = command->create_wall_ms;
                c->ops->command_seen(c->userdata, i);
        }
        if (r != 0)
                return r < 0 ? error_trace(r) : r;
        instance_update_watch(i);
        task_step(task, now);
        instance_notify(i);
        c->ops->prepare(c->userdata, i);
        return 0;
}

Task *task_match(const Instance *i, const char *operation)
{
        Task *best = NULL, *task;

        list_for_each (task, &i->tasks, link) {
                if (task->state == TASK_ENDING || strcmp(task->endpoint, operation) != 0)
                        continue;
                if (!best || task->state > best->state ||
                        (task->state == best->state && task->start_wall_ms < best->start_wall_ms))
                        best = task;
        }
        return best;
}

/* ---- its life ---- */

/* PENDING segments will not be profiled any more. */
static void task_let_go(Task *task, CounterId fast, Now now)
{
        Segment *s, *tmp;

        list_for_each_safe (s, tmp, &task->segments, task_link)
                if (s->state == SEGMENT_PENDING &&
                        (s->sequence == 0 || task->state != TASK_RUNNING))
                        segment_close(s, segment_cause(s, now.mono_ns, fast), now);
}

static void task_end(Task *task, Now now)
{
        Segment *s, *tmp;

        log_info("task %s of %s/%s is over: %llu segments seen, %u sampled", task->id,
                task->instance->service, task->instance->name, (unsigned long long)task->n_matched,
                task->n_delivered);
        task->state = TASK_ENDING;
        instance_update_watch(task->instance);
        task_let_go(task, COUNTER_SEGMENTS_UNDECIDED, now);
        list_for_each_safe (s, tmp, &task->segments, task_link) {
                segment_halt(s, now);
                segment_schedule(s, now);
        }
}

static void task_run(Task *task, Now now)
{
        uint64_t since_ns = (uint64_t)(now.wall_ms - task->start_wall_ms) * NS_PER_MS;
        Segment *s, *tmp;
        Task *other;

        /* Tasks of an instance do not overlap; where a step of the clock makes them, the later
         * start stops the earlier. */
        list_for_each (other, &task->instance->tasks, link)
                if (other->state == TASK_RUNNING)
                        task_end(other, now);

        task->state = TASK_RUNNING;
        task->start_mono_ns = since_ns < now.mono_ns ? now.mono_ns - since_ns : 0;
        /* The clock may be put back later: the task does not last longer for that. */
        task->end_mono_ns = now.mono_ns + (uint64_t)(task->end_wall_ms - now.wall_ms) * NS_PER_MS;
        log_info("task %s of %s/%s runs", task->id, task->instance->service, task->instance->name);
        list_for_each_safe (s, tmp, &task->segments, task_link)
                if (segment_begin(s, now) < 0)
                        segment_close(s, COUNTER_SEGMENTS_UNDECIDED, now);
}

void task_step(Task *task, Now now)
{
        if (task->state == TASK_WAITING && now.wall_ms >= task->start_wall_ms &&
                now.wall_ms < task->end_wall_ms)
                task_run(task, now);
        if (task->state == TASK_RUNNING && now.mono_ns >= task->end_mono_ns)
                task_end(task, now);
        /* The clock may also have jumped over all of it. */
        if (task->state != TASK_ENDING && now.wall_ms >= task->end_wall_ms)
                task_end(task, now);
}

int core_task_stop(Core *c, const char *task_id, Now now)
{
        int r = CORE_E_UNKNOWN;
        Instance *i;

        list_for_each (i, &c->instances, link) {
                Task *task = task_find(i, task_id);

                if (!task)
                        continue;
                r = 0;
                if (task->state == TASK_ENDING)
                        continue;
                if (task->end_wall_ms > now.wall_ms)
                        task->end_wall_ms = now.wall_ms;
                task_end(task, now);
                instance_notify(i);
        }
        return r;
}

void task_sweep(Task *task)
{
        Instance *i = task->instance;
        Core *c = i->core;

        if (task->state != TASK_ENDING || !list_empty(&task->segments))
                return;
        counter_add(COUNTER_TASKS_FINISHED, 1);
        c->ops->task_finished(c->userdata, task->source, i->service, i->name, task->id);
        instance_remember(i, TAKE_PTR(task->id));
        task_free(task);
}

static uint64_t wall_due(int64_t wall_ms, Now now)
{
        return wall_ms > now.wall_ms ? now.mono_ns + (uint64_t)(wall_ms - now.wall_ms) * NS_PER_MS
                                     : now.mono_ns;
}

uint64_t task_due(const Task *task, Now now)
{
        uint64_t due;

        switch (task->state) {
        case TASK_WAITING:
                return wall_due(task->start_wall_ms, now);
        case TASK_RUNNING:
                due = wall_due(task->end_wall_ms, now);
                return due < task->end_mono_ns ? due : task->end_mono_ns;
        default:
                /* Else its segments say when. */
                return list_empty(&task->segments) ? now.mono_ns : UINT64_MAX;
        }
}

/* ---- its segments ---- */

void task_offer(Task *task, Now now)
{
        Segment *s, *tmp;

        if (task->state != TASK_RUNNING || task->instance->core->flushing)
                return;
        list_for_each_safe (s, tmp, &task->queue, queue_link)
                if (segment_has_count(s))
                        segment_promote(s, now);
}

void task_exhausted(Task *task, Now now)
{
        assert(!task_has_count(task));
        task_let_go(task, COUNTER_SEGMENTS_OVER_COUNT, now);
}
