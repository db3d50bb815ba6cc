/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "core/internal.h"
#include "util/error.h"

static uint64_t min_ns(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

static Target *target_find(const Core *c, TargetId id)
{
        for (HashLink *l = hash_table_find(&c->targets, hash_u64(id)); l; l = hash_link_next(l)) {
                Target *t = container_of(l, Target, by_id);

                if (t->id == id)
                        return t;
        }
        return NULL;
}

bool core_target_thread(const Core *c, TargetId id, pid_t *ret_pid, pid_t *ret_tid)
{
        const Target *t = target_find(c, id);

        if (!t)
                return false;
        *ret_pid = t->segment->pid;
        *ret_tid = t->tid;
        return true;
}

static void target_free(Segment *s, Target *t)
{
        hash_table_remove(&s->core->targets, &t->by_id);
        list_remove(&t->link);
        s->n_targets--;
        free(t);
}

void segment_free_targets(Segment *s)
{
        Target *t, *tmp;

        list_for_each_safe (t, tmp, &s->targets, link)
                target_free(s, t);
        s->target = NULL;
}

static int target_new(Target **ret, Segment *s, uint64_t from_mono_ns)
{
        Core *c = s->core;
        Target *t = calloc(1, sizeof(*t));
        int r;

        if (!t)
                return error_origin(-ENOMEM);
        t->id = c->last_target + 1;
        r = hash_table_add(&c->targets, &t->by_id, hash_u64(t->id));
        if (r) {
                free(t);
                return error_trace(r);
        }
        c->last_target = t->id;
        t->segment = s;
        t->tid = s->tid;
        t->from_mono_ns = from_mono_ns;
        t->end_mono_ns = UINT64_MAX;
        list_append(&s->targets, &t->link);
        s->n_targets++;
        *ret = t;
        return 0;
}

static void target_end(Target *t, uint64_t at_mono_ns)
{
        if (at_mono_ns < t->from_mono_ns)
                at_mono_ns = t->from_mono_ns;
        if (at_mono_ns < t->end_mono_ns)
                t->end_mono_ns = at_mono_ns;
}

void segment_end_stretch(Segment *s, uint64_t at_mono_ns)
{
        if (!list_empty(&s->targets))
                target_end(container_of(s->targets.prev, Target, link), at_mono_ns);
        segment_cut_held(s, at_mono_ns);
}

int segment_update_target(Segment *s, uint64_t at_mono_ns)
{
        const Core *c = s->core;
        bool sampled = s->tid != 0 && segment_wanted(s);
        Target *t = s->target;
        int r;

        if (t && (!sampled || t->tid != s->tid)) {
                target_end(t, at_mono_ns);
                s->target = NULL;
                c->ops->target_remove(c->userdata, t->id);
        }
        if (!sampled || s->target)
                return 0;
        /* A coroutine may change threads all the time: only so many former ones are remembered. */
        if (s->n_targets > SEGMENT_TARGETS_MAX)
                target_free(s, list_first(&s->targets, Target, link));
        r = target_new(&t, s, at_mono_ns);
        if (r)
                return error_trace(r);
        s->target = t;
        c->ops->target_add(c->userdata, t->id,
                &(TargetSpec){
                        .pid = s->pid,
                        .tid = s->tid,
                        .first_mono_ns = s->request->begin_mono_ns + task_threshold_ns(s->task),
                        .period_ns = s->task->period_ms * NS_PER_MS,
                        .goes_on = s->n_switches > 0,
                });
        return 0;
}

static void target_take_times(Target *t, uint64_t mono_ns, const ThreadTimes *times)
{
        Segment *s = t->segment;

        /* The last word comes a moment after the end; what the thread did meanwhile is little. */
        mono_ns = min_ns(mono_ns, t->end_mono_ns);
        if (times->runtime_ns == 0 || mono_ns < t->times_mono_ns)
                return;
        /* Differences may be negative, and so their sums for a moment: what a running thread has
         * used is estimated. */
        if (t->times_mono_ns != 0) {
                s->wall_ns += (int64_t)(mono_ns - t->times_mono_ns);
                s->on_cpu_ns += (int64_t)(times->runtime_ns - t->times.runtime_ns);
                s->run_queue_ns += (int64_t)(times->run_delay_ns - t->times.run_delay_ns);
        }
        t->times_mono_ns = mono_ns;
        t->times = *times;
}

static uint64_t not_negative(int64_t ns)
{
        return ns > 0 ? (uint64_t)ns : 0;
}

SpanTimes segment_times(const Segment *s)
{
        return (SpanTimes){.on_cpu_ns = not_negative(s->on_cpu_ns),
                .run_queue_ns = not_negative(s->run_queue_ns),
                .blocked_ns = not_negative(s->wall_ns - s->on_cpu_ns - s->run_queue_ns)};
}

void core_thread_times(Core *c, TargetId id, uint64_t mono_ns, ThreadTimes times)
{
        Target *t = target_find(c, id);

        if (t)
                target_take_times(t, mono_ns, &times);
}

void core_samples(Core *c, TargetId id, const SampleRun *run, ThreadTimes times, Now now)
{
        Target *t = target_find(c, id);
        SampleRun r = *run;
        uint64_t end_mono_ns;
        Segment *s;

        if (!t) {
                counter_add(COUNTER_SAMPLES_UNCLAIMED, r.n);
                return;
        }
        s = t->segment;
        s->n_captured += r.n;
        target_take_times(t, sample_run_last_mono_ns(&r), &times);
        end_mono_ns = min_ns(t->end_mono_ns, s->cut_mono_ns);
        while (r.n > 0 && r.mono_ns < t->from_mono_ns)
                sample_run_drop_first(&r);
        while (r.n > 0 && sample_run_last_mono_ns(&r) >= end_mono_ns)
                r.n--;
        counter_add(COUNTER_SAMPLES_AFTER_STOP, run->n - r.n);
        if (r.n == 0)
                return;
        if (s->refused) {
                counter_add(COUNTER_SNAPSHOTS_DROPPED, r.n);
                return;
        }
        segment_hold(s, &r);
        segment_schedule(s, now);
}

void core_target_gone(Core *c, TargetId id, Now now)
{
        Target *t = target_find(c, id);

        /* The segment may have left that thread before. */
        if (!t || t->segment->target != t)
                return;
        counter_add(COUNTER_SEGMENTS_GONE, 1);
        segment_stop(t->segment, now.mono_ns, false, now);
}
