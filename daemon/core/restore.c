/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"
#include "util/error.h"

/* What a former daemon knew. */

int core_restore_instance(Core *c, Instance **ret, const char *service, const char *instance,
        int64_t last_command_wall_ms, Now now)
{
        Instance *i = instance_get(c, service, instance, now);

        if (!i)
                return error_origin(-ENOMEM);
        if (last_command_wall_ms > i->last_command_wall_ms)
                i->last_command_wall_ms = last_command_wall_ms;
        *ret = i;
        return 0;
}

int core_restore_task(Core *c, Instance *i, const TaskCommand *command, Now now)
{
        Task *task;

        if (core_task_check(command, now))
                return CORE_E_INVALID;
        if (task_find(i, command->task_id) || instance_seen(i, command->task_id))
                return CORE_E_DUPLICATE;
        if (task_limit(i))
                return CORE_E_LIMIT;
        task = task_new(i, command);
        if (!task)
                return error_origin(-ENOMEM);
        counter_add(COUNTER_TASKS_RESUMED, 1);
        log_info("task %s of %s/%s is gone on with: '%s'", task->id, i->service, i->name,
                task->endpoint);
        instance_update_watch(i);
        task_step(task, now);
        instance_notify(i);
        return 0;
}

int core_restore_finished(Core *c, Instance *i, const char *task_id)
{
        char *id = strdup(task_id);

        if (!id)
                return error_origin(-ENOMEM);
        instance_remember(i, id);
        return 0;
}

int core_restore_segment(Core *c, Instance *i, const RestoredSegment *segment)
{
        Task *task = task_find(i, segment->task_id);

        if (!task)
                return CORE_E_UNKNOWN;
        /* Nothing of it has left, nor will: it begins like any other. */
        if (segment->continues && segment->n_snapshots == 0)
                return 0;
        if (task->n_delivered < TASK_SAMPLING_COUNT_MAX)
                task->delivered[task->n_delivered++] = (Delivered){
                        .hash = hash_string(segment->segment_id),
                        .continues = segment->continues,
                        .n_snapshots = segment->n_snapshots,
                        .first_wall_ms = segment->first_wall_ms,
                        .last_wall_ms = segment->last_wall_ms,
                };
        return 0;
}
