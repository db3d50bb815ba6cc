/* SPDX-License-Identifier: Apache-2.0 */

/* What a former daemon has left, back to where it belongs. */

#include <string.h>

#include "core/counter.h"
#include "manager/internal.h"
#include "util/log.h"

typedef struct Restore {
        Manager *manager;
        Now now;
        bool failed; /* no memory */
} Restore;

static Instance *restore_get_instance(
        Restore *r, const char *service, const char *name, int64_t last_command_wall_ms)
{
        Instance *i = NULL;

        if (core_restore_instance(
                    r->manager->core, &i, service, name, last_command_wall_ms, r->now) < 0)
                r->failed = true;
        return i;
}

static void restore_instance(void *userdata, const KeptInstance *k)
{
        restore_get_instance(userdata, k->service, k->instance, k->last_command_wall_ms);
}

static void restore_live_task(Restore *r, Instance *i, const KeptTask *k)
{
        TaskCommand command = {
                .source = r->manager->session ? session_source(r->manager->session) : NULL,
                .task_id = k->task_id,
                .endpoint = k->endpoint,
                .threshold_ms = k->threshold_ms,
                .period_ms = k->period_ms,
                .max_sampling_count = k->max_sampling_count,
                .start_wall_ms = k->start_wall_ms,
        };
        int result = CORE_E_INVALID;

        if (k->start_wall_ms >= 0 && k->end_wall_ms >= k->start_wall_ms) {
                command.duration_min = (k->end_wall_ms - k->start_wall_ms) / 60000;
                result = core_restore_task(r->manager->core, i, &command, r->now);
        }
        if (result < 0)
                r->failed = true;
        else if (result > 0)
                log_warning("task %s, left by a former swprofd, is not gone on with", k->task_id);
}

static void restore_task(void *userdata, const KeptTask *k)
{
        Restore *r = userdata;
        Manager *m = r->manager;
        Instance *i = restore_get_instance(r, k->service, k->instance, -1);

        if (!i)
                return;
        if (k->state == KEPT_TASK_LIVE) {
                restore_live_task(r, i, k);
                return;
        }
        if (core_restore_finished(m->core, i, k->task_id) < 0)
                r->failed = true;
        if (k->state == KEPT_TASK_OVER && m->session)
                session_task_finished(m->session, k->service, k->instance, k->task_id);
}

static bool task_lives(const Instance *i, const char *task_id)
{
        const Task *task;

        list_for_each (task, &i->tasks, link)
                if (strcmp(task->id, task_id) == 0)
                        return true;
        return false;
}

static void restore_segment(void *userdata, const KeptSegment *k, size_t n_snapshots)
{
        Restore *r = userdata;
        Manager *m = r->manager;
        Instance *i = restore_get_instance(r, k->service, k->instance, -1);
        RestoredSegment segment = {
                .task_id = k->task_id,
                .segment_id = k->segment_id,
                .n_snapshots = k->next_sequence + (int32_t)n_snapshots,
                .first_wall_ms = k->first_wall_ms,
                .last_wall_ms = k->last_wall_ms,
        };

        if (!i || !m->session)
                return;
        if (session_restore_segment(
                    m->session, k, n_snapshots, task_lives(i, k->task_id), &segment.continues) < 0)
                r->failed = true;
        else
                core_restore_segment(m->core, i, &segment);
}

static const StoreRestore restore_ops = {
        .instance = restore_instance,
        .task = restore_task,
        .segment = restore_segment,
};

/* ---- the local backend ---- */

static void restore_result_task(void *userdata, const ResultTask *task)
{
        Restore *r = userdata;

        if (local_restore_task(r->manager->local, task, r->now) < 0)
                r->failed = true;
}

static void restore_result_segment(void *userdata, const ResultSegment *segment,
        int32_t n_snapshots, int64_t first_wall_ms, int64_t last_wall_ms)
{
        Restore *r = userdata;

        if (local_restore_segment(r->manager->local, segment, n_snapshots, first_wall_ms,
                    last_wall_ms, r->now) < 0)
                r->failed = true;
}

static const StoreResultsRestore results_restore = {
        .task = restore_result_task,
        .segment = restore_result_segment,
};

void manager_restore(Manager *m)
{
        Restore r = {.manager = m, .now = now_get()};

        store_restore(m->store, &restore_ops, &r, r.now);
        if (m->local)
                store_restore_results(m->results, &results_restore, &r, r.now);
        if (r.failed)
                log_error("out of memory: not all that a former swprofd has left is gone on with");
}
