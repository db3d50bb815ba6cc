/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "core/counter.h"
#include "world.h"

/* ---- what the core asks for ---- */

static void on_target_add(void *userdata, TargetId id, const TargetSpec *spec)
{
        cr_assert_lt(w.n_targets, TARGETS_MAX);
        w.targets[w.n_targets].id = id;
        w.targets[w.n_targets].due_ns = w.now_ns;
        w.targets[w.n_targets++].period_ns = spec->period_ns;
}

static void on_target_remove(void *userdata, TargetId id)
{
        for (unsigned i = 0; i < w.n_targets; i++)
                if (w.targets[i].id == id)
                        w.targets[i] = w.targets[--w.n_targets];
}

static void on_instance(void *userdata, Instance *i)
{
}

static void on_task_added(void *userdata, const Task *task)
{
        disk_push(op_new_task(task));
}

static void on_command_seen(void *userdata, const Instance *i)
{
        disk_push(op_new_instance(i, world_now().wall_ms));
}

static bool on_snapshot(void *userdata, const Snapshot *snapshot)
{
        return session_snapshot(w.session, snapshot);
}

static void on_segment_began(void *userdata, const SegmentReport *report, bool wanted)
{
        if (wanted)
                session_segment_began(w.session, report);
}

static void on_segment_done(void *userdata, const SegmentReport *report, bool wanted)
{
        if (!wanted)
                return;
        w.n_reports++;
        session_segment_done(w.session, report);
}

static void on_task_finished(void *userdata, const TaskSource *source, const char *service,
        const char *instance, const char *task_id)
{
        disk_push(op_new_task_end(service, instance, task_id, KEPT_TASK_OVER, world_now().wall_ms));
        session_task_finished(w.session, service, instance, task_id);
}

static const CoreOps ops = {
        .target_add = on_target_add,
        .target_remove = on_target_remove,
        .watch_changed = on_instance,
        .prepare = on_instance,
        .snapshot = on_snapshot,
        .segment_began = on_segment_began,
        .segment_done = on_segment_done,
        .task_added = on_task_added,
        .command_seen = on_command_seen,
        .task_finished = on_task_finished,
};

/* ---- the daemon ---- */

static Instance *restore_get(const char *service, const char *name, int64_t last)
{
        Instance *i;

        cr_assert_eq(core_restore_instance(w.core, &i, service, name, last, world_now()), 0);
        return i;
}

static void restore_instance(void *userdata, const KeptInstance *k)
{
        restore_get(k->service, k->instance, k->last_command_wall_ms);
}

static void restore_task(void *userdata, const KeptTask *k)
{
        Instance *i = restore_get(k->service, k->instance, -1);
        TaskCommand command = {.task_id = k->task_id,
                .endpoint = k->endpoint,
                .duration_min = (k->end_wall_ms - k->start_wall_ms) / 60000,
                .threshold_ms = k->threshold_ms,
                .period_ms = k->period_ms,
                .max_sampling_count = k->max_sampling_count,
                .start_wall_ms = k->start_wall_ms};

        if (k->state == KEPT_TASK_LIVE) {
                cr_assert_eq(core_restore_task(w.core, i, &command, world_now()), 0);
                return;
        }
        cr_assert_eq(core_restore_finished(w.core, i, k->task_id), 0);
        if (k->state == KEPT_TASK_OVER)
                session_task_finished(w.session, k->service, k->instance, k->task_id);
}

static void restore_segment(void *userdata, const KeptSegment *k, size_t n_snapshots)
{
        Instance *i = restore_get(k->service, k->instance, -1);
        RestoredSegment segment = {.task_id = k->task_id,
                .segment_id = k->segment_id,
                .n_snapshots = k->next_sequence + (int32_t)n_snapshots,
                .first_wall_ms = k->first_wall_ms,
                .last_wall_ms = k->last_wall_ms};
        bool lives = false;
        Task *task;

        list_for_each (task, &i->tasks, link)
                lives = lives || strcmp(task->id, k->task_id) == 0;
        cr_assert_eq(
                session_restore_segment(w.session, k, n_snapshots, lives, &segment.continues), 0);
        core_restore_segment(w.core, i, &segment);
}

void daemon_start(void)
{
        uint64_t n_ambiguous = counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS);

        w.keep = disk_keep();
        cr_assert_eq(core_new(&w.core, &w.config, &ops, NULL), 0);
        cr_assert_eq(session_new(&w.session, &w.config, w.core, &w.keep, random_u32), 0);
        session_step(w.session, world_now());
        cr_assert_eq(database_begin(w.database, false), 0);
        cr_assert_eq(database_sweep(w.database, world_now().wall_ms), 0);
        cr_assert_eq(database_commit(w.database), 0);
        cr_assert_eq(database_instances(w.database, restore_instance, NULL), 0);
        cr_assert_eq(database_tasks(w.database, restore_task, NULL), 0);
        cr_assert_eq(database_segments(w.database, restore_segment, NULL), 0);
        w.n_ambiguous_kills += counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS) - n_ambiguous;
        for (unsigned i = 0; i < N_APPS; i++)
                w.apps[i].connect_ns = w.now_ns + random_n(2000) * NS_PER_MS;
}

void daemon_kill(void)
{
        Session *session = w.session;
        uint64_t n_ambiguous = counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS);

        disk_kill();
        w.session = NULL;
        session_free(session);
        w.core = core_free(w.core);
        w.n_targets = 0;
        for (unsigned i = 0; i < N_APPS; i++)
                w.apps[i].instance = NULL;
        w.n_kills++;
        /* That the OAP knows of their end may not be on record. */
        for (unsigned t = 0; t < N_TASKS; t++)
                for (unsigned a = 0; a < N_APPS; a++)
                        if (w.tasks[t].told_ns[a] + 3 * NS_PER_S > w.now_ns)
                                w.tasks[t].told_ns[a] = 0;
        /* It said nothing any more. */
        w.n_ambiguous_kills += counter_get(COUNTER_SNAPSHOTS_AMBIGUOUS) - n_ambiguous;
}
