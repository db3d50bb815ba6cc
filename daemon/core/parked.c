/* SPDX-License-Identifier: Apache-2.0 */
#include "core/internal.h"

/*
 * A segment on no thread that waits with a known stack: what a sampler would have seen there. The
 * samples are made when they are needed, not when they are due, so that waiting costs nothing.
 */

/* The wire's unit of time: two samples of a stack that are nearer tell nothing more. */
#define WIRE_NS NS_PER_MS

/* One sample, or n of them a period apart. */
static void parked_samples(Segment *s, uint64_t mono_ns, size_t n)
{
        uint64_t period_ns = s->task->period_ms * NS_PER_MS;
        Parked *p = &s->parked;
        SampleRun run = {
                .mono_ns = mono_ns,
                .wall_ns = mono_ns + (uint64_t)p->wall_offset_ns,
                .period_ns = period_ns,
                .n = n,
                .state = THREAD_BLOCKED,
                .stack = p->stack,
        };

        counter_add(COUNTER_SAMPLES_PARKED, n);
        s->n_captured += n;
        p->last_mono_ns = mono_ns + (n - 1) * period_ns;
        segment_hold(s, &run);
}

void segment_begin_parked(Segment *s, uint64_t from_mono_ns)
{
        uint64_t first_mono_ns = s->request->begin_mono_ns + task_threshold_ns(s->task);
        uint64_t period_ns = s->task->period_ms * NS_PER_MS;
        Parked *p = &s->parked;

        if (!p->stack)
                return;
        if (p->from_mono_ns < from_mono_ns)
                p->from_mono_ns = from_mono_ns;
        /* The grid that the sampler is given for its targets. */
        if (p->from_mono_ns <= first_mono_ns)
                p->due_mono_ns = p->from_mono_ns + (first_mono_ns - p->from_mono_ns) % period_ns;
        else
                p->due_mono_ns = first_mono_ns + (p->from_mono_ns - first_mono_ns + period_ns - 1) /
                                                         period_ns * period_ns;
}

void segment_park(Segment *s, Stack *stack, uint64_t at_mono_ns, Now now)
{
        s->parked.stack = stack_ref(stack);
        s->parked.due_mono_ns = UINT64_MAX;
        s->parked.last_mono_ns = 0;
        s->parked.wall_offset_ns =
                (int64_t)((uint64_t)now.wall_ms * NS_PER_MS + now.wall_rest_ns - now.mono_ns);
        if (s->parked.from_mono_ns < at_mono_ns)
                s->parked.from_mono_ns = at_mono_ns;
        if (segment_wanted(s))
                segment_begin_parked(s, segment_begin_mono_ns(s));
}

void segment_fill_parked(Segment *s, uint64_t until_mono_ns)
{
        Parked *p = &s->parked;
        uint64_t n, period_ns;

        if (!p->stack || p->due_mono_ns >= until_mono_ns)
                return;
        period_ns = s->task->period_ms * NS_PER_MS;
        n = (until_mono_ns - 1 - p->due_mono_ns) / period_ns + 1;
        /* A wait between two due times stays unseen, as a thread's would; one that is seen has its
         * full length. */
        if (p->last_mono_ns == 0 && p->due_mono_ns - p->from_mono_ns >= WIRE_NS)
                parked_samples(s, p->from_mono_ns, 1);
        parked_samples(s, p->due_mono_ns, n);
        p->due_mono_ns += n * period_ns;
}

void segment_drop_parked(Segment *s)
{
        s->parked.stack = stack_unref(s->parked.stack);
}

void segment_end_parked(Segment *s, uint64_t at_mono_ns)
{
        Parked *p = &s->parked;

        if (!p->stack)
                return;
        if (p->due_mono_ns != UINT64_MAX && at_mono_ns > p->from_mono_ns && !s->refused) {
                segment_fill_parked(s, at_mono_ns);
                if (p->last_mono_ns != 0 && at_mono_ns - p->last_mono_ns > WIRE_NS)
                        parked_samples(s, at_mono_ns - 1, 1);
                s->wall_ns += (int64_t)(at_mono_ns - p->from_mono_ns);
                p->from_mono_ns = at_mono_ns;
        }
        /* A client whose times go back does not get the same time twice. */
        if (p->from_mono_ns <= p->last_mono_ns)
                p->from_mono_ns = p->last_mono_ns + 1;
        segment_drop_parked(s);
}
