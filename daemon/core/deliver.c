/* SPDX-License-Identifier: Apache-2.0 */
#include "core/internal.h"

/* From held samples to snapshots. */

void segment_hold(Segment *s, const SampleRun *run)
{
        size_t n = held_add(&s->held, run, s->core->config->profile_max_pending_samples);

        s->losses.over += n;
        counter_add(COUNTER_SAMPLES_PENDING_OVER, n);
}

void segment_cut_held(Segment *s, uint64_t mono_ns)
{
        counter_add(COUNTER_SAMPLES_AFTER_STOP, held_cut(&s->held, mono_ns));
}

bool segment_blocked(const Segment *s)
{
        const SampleRun *first = held_first(&s->held);

        return s->state != SEGMENT_PENDING && first && first->stack->state == STACK_PENDING;
}

uint64_t segment_delivery_due(const Segment *s)
{
        const SampleRun *first = held_first(&s->held);
        uint64_t due = 0, mono_ns;

        /* One of a parked segment is made when it can be decided on. */
        if (first)
                mono_ns = first->mono_ns;
        else if (s->parked.stack && s->parked.due_mono_ns != UINT64_MAX)
                mono_ns = s->parked.due_mono_ns;
        else
                return UINT64_MAX;
        if (s->core->flushing)
                return 0;
        /* The span may have ended before, and the client's word of it be under way. */
        if (!s->stop_seen) {
                due = mono_ns > s->promoted_mono_ns ? mono_ns : s->promoted_mono_ns;
                due += s->core->config->profile_settle_ms * NS_PER_MS;
                due = (due + DELIVERY_GRID_NS - 1) / DELIVERY_GRID_NS * DELIVERY_GRID_NS;
        }
        if (first && first->stack->state == STACK_PENDING && due < first->mono_ns + STACK_WAIT_NS)
                due = first->mono_ns + STACK_WAIT_NS;
        return due;
}

static void segment_delivered_first(Segment *s, Now now)
{
        Task *task = s->task;

        counter_add(COUNTER_SEGMENTS_PROFILED, 1);
        task->delivered[task->n_delivered++] = (Delivered){.hash = s->by_id.hash};
        segment_set_state(s, s->state, false);
        segment_tell_began(s);
        if (task->n_delivered >= task->max_sampling_count)
                task_exhausted(task, now);
}

/* Return: whether the sink took it. */
static bool segment_snapshot(Segment *s, const SampleRun *sample, Now now)
{
        const Core *c = s->core;
        int64_t wall_ms = (int64_t)(sample->wall_ns / NS_PER_MS);
        Snapshot snapshot = {
                .source = s->source,
                .service = s->instance->service,
                .instance = s->instance->name,
                .task_id = s->task->id,
                .segment_id = s->id,
                /* The clock may have been put back between two samples. */
                .time_wall_ms = wall_ms > s->last_wall_ms ? wall_ms : s->last_wall_ms,
                .sequence = s->sequence,
                .stack = sample->stack,
                .state = sample->state,
                .start_wall_ms = s->start_wall_ms,
                .pid = s->pid,
                .tid = s->first_tid ?: s->tid,
                .uid = s->uid,
        };

        if (!c->ops->snapshot(c->userdata, &snapshot))
                return false;
        counter_add(COUNTER_SNAPSHOTS_QUEUED, 1);
        s->last_wall_ms = snapshot.time_wall_ms;
        if (s->sequence++ == 0) {
                s->first_wall_ms = snapshot.time_wall_ms;
                segment_delivered_first(s, now);
        }
        return true;
}

void segment_deliver(Segment *s, Now now)
{
        uint64_t settle_ns = s->core->config->profile_settle_ms * NS_PER_MS;
        const SampleRun *first;

        if (now.mono_ns >= settle_ns)
                segment_fill_parked(s, now.mono_ns - settle_ns + 1);
        while ((first = held_first(&s->held)) && segment_delivery_due(s) <= now.mono_ns) {
                /* One that is PENDING here has been waited for long enough. */
                if (first->stack->state != STACK_READY) {
                        counter_add(COUNTER_SAMPLES_NO_STACK, 1);
                        s->losses.no_stack++;
                } else if (!segment_snapshot(s, first, now)) {
                        /* The sink has counted this one; the segment's tail goes with it. */
                        s->losses.not_taken += s->held.n;
                        counter_add(COUNTER_SNAPSHOTS_DROPPED, held_clear(&s->held) - 1);
                        s->refused = true;
                        segment_set_state(s, s->state, false);
                        segment_halt(s, now);
                        return;
                }
                held_drop_first(&s->held);
        }
}
