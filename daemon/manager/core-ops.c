/* SPDX-License-Identifier: Apache-2.0 */

/* What the core asks for. */

#include <inttypes.h>
#include <stdlib.h>

#include "manager/internal.h"
#include "util/log.h"

static int sampler_command(Manager *m, TargetId id, const TargetSpec *spec)
{
        return spec ? sampler_add(m->sampler, id, spec) : sampler_remove(m->sampler, id);
}

/* In order: once something waits, all later commands wait behind it. */
static void sampler_command_or_defer(Manager *m, TargetId id, const TargetSpec *spec)
{
        Deferred *d;

        if (!m->sampler || (list_empty(&m->deferred) && sampler_command(m, id, spec) == 0))
                return;
        d = calloc(1, sizeof(*d));
        if (!d) {
                log_error("out of memory: a thread is not %s", spec ? "sampled" : "let go");
                return;
        }
        d->id = id;
        d->add = spec != NULL;
        if (spec)
                d->spec = *spec;
        list_append(&m->deferred, &d->link);
}

void manager_send_deferred(Manager *m)
{
        Deferred *d, *tmp;

        list_for_each_safe (d, tmp, &m->deferred, link) {
                if (sampler_command(m, d->id, d->add ? &d->spec : NULL) > 0)
                        return;
                list_remove(&d->link);
                free(d);
        }
}

void manager_target_add(Manager *m, TargetId id, const TargetSpec *spec)
{
        sampler_command_or_defer(m, id, spec);
}

void manager_target_remove(Manager *m, TargetId id)
{
        sampler_command_or_defer(m, id, NULL);
        stack_table_target_removed(m->stacks, id, mono_now_ns());
}

static void on_target_add(void *userdata, TargetId id, const TargetSpec *spec)
{
        manager_target_add(userdata, id, spec);
}

static void on_target_remove(void *userdata, TargetId id)
{
        manager_target_remove(userdata, id);
}

static void on_watch_changed(void *userdata, Instance *instance)
{
        Manager *m = userdata;

        if (m->listener)
                listener_watch_changed(m->listener, instance);
}

typedef struct Prepare {
        Manager *manager;
        Instance *instance;
} Prepare;

/* A full mailbox is no loss: the process is read when its first sample comes. */
void manager_prepare(Manager *m, pid_t pid)
{
        if (m->sampler)
                sampler_prepare(m->sampler, pid);
        else
                worker_prepare(m->worker, pid);
}

static void prepare_client(void *userdata, const ClientInfo *info)
{
        Prepare *p = userdata;

        if (info->instance == p->instance)
                manager_prepare(p->manager, info->pid);
}

static void on_prepare(void *userdata, Instance *instance)
{
        Manager *m = userdata;

        if (m->listener)
                listener_clients(m->listener, prepare_client,
                        &(Prepare){.manager = m, .instance = instance});
}

static bool on_snapshot(void *userdata, const Snapshot *snapshot)
{
        const TaskSource *source = snapshot->source;

        return source && source->snapshot(source->userdata, snapshot);
}

static void on_segment_began(void *userdata, const SegmentReport *report, bool report_wanted)
{
        const TaskSource *source = report->source;

        if (source && source->segment_began)
                source->segment_began(source->userdata, report, report_wanted);
}

static void on_segment_done(void *userdata, const SegmentReport *report, bool report_wanted)
{
        const TaskSource *source = report->source;
        const SpanTimes *t = &report->times;

        log_info("segment %s of %s, %s: %" PRId64
                 " ms, of these %.1f on CPU, %.1f waiting for one, %.1f blocked; "
                 "%" PRId32 " snapshots",
                report->segment_id, report->instance, report->operation,
                report->end_wall_ms - report->start_wall_ms, (double)t->on_cpu_ns / NS_PER_MS,
                (double)t->run_queue_ns / NS_PER_MS, (double)t->blocked_ns / NS_PER_MS,
                report->n_snapshots);
        if (source)
                source->segment_done(source->userdata, report, report_wanted);
}

static void on_task_added(void *userdata, const Task *task)
{
        Manager *m = userdata;

        if (!task->source || !task->source->remembers)
                store_task(m->store, task);
}

static void on_command_seen(void *userdata, const Instance *instance)
{
        Manager *m = userdata;

        store_instance(m->store, instance, now_get());
}

static void on_task_finished(void *userdata, const TaskSource *source, const char *service,
        const char *instance, const char *task_id)
{
        Manager *m = userdata;

        if (!source || !source->remembers)
                store_task_over(m->store, service, instance, task_id, now_get());
        if (source && source->task_finished)
                source->task_finished(source->userdata, service, instance, task_id);
}

const CoreOps manager_core_ops = {
        .target_add = on_target_add,
        .target_remove = on_target_remove,
        .watch_changed = on_watch_changed,
        .prepare = on_prepare,
        .snapshot = on_snapshot,
        .segment_began = on_segment_began,
        .segment_done = on_segment_done,
        .task_added = on_task_added,
        .command_seen = on_command_seen,
        .task_finished = on_task_finished,
};
