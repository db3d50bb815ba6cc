/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/counter.h"
#include "manager/sampler-private.h"
#include "util/error.h"
#include "util/log.h"

/* The wire's unit of time: lateness below it is not reported, nor what two samples would say. */
#define WIRE_NS NS_PER_MS
/* Threads with the same period fall due together, at some such step of it, so that waking up for
 * them costs little; at least PHASE_NS after the times asked for. Programs that are in step with
 * these, having timers of their own that started with the span, would else be caught just when they
 * change what they do, and a sample at the very expiry of a threshold proves nothing yet. */
#define STEP_NS  (5 * NS_PER_MS / 2)
#define PHASE_NS NS_PER_MS
/* A shot takes some 10 µs; when none has come by then, the thread has left the CPU, and can be
 * pulled. */
#define SHOT_NS (NS_PER_MS / 2)
/* A thread that ran while it was read is read again so often at once, then after a pause. */
#define N_AT_ONCE   5
#define PAUSE_NS    200000
#define NOT_IN_HEAP SIZE_MAX

/* ---- the heap: earliest wake_mono_ns first ---- */

static void heap_put(Sampler *s, size_t i, HeapNode node)
{
        s->heap[i] = node;
        node.target->heap_index = i;
}

static void heap_up(Sampler *s, size_t i)
{
        HeapNode node = s->heap[i];

        for (; i > 0 && s->heap[(i - 1) / 2].wake_mono_ns > node.wake_mono_ns; i = (i - 1) / 2)
                heap_put(s, i, s->heap[(i - 1) / 2]);
        heap_put(s, i, node);
}

static void heap_down(Sampler *s, size_t i)
{
        HeapNode node = s->heap[i];

        for (;;) {
                size_t child = 2 * i + 1;

                if (child + 1 < s->n_heap &&
                        s->heap[child + 1].wake_mono_ns < s->heap[child].wake_mono_ns)
                        child++;
                if (child >= s->n_heap || s->heap[child].wake_mono_ns >= node.wake_mono_ns)
                        break;
                heap_put(s, i, s->heap[child]);
                i = child;
        }
        heap_put(s, i, node);
}

static void heap_remove(Target *t)
{
        Sampler *s = t->sampler;
        size_t i = t->heap_index;
        HeapNode last;

        if (i == NOT_IN_HEAP)
                return;
        t->heap_index = NOT_IN_HEAP;
        last = s->heap[--s->n_heap];
        if (last.target == t)
                return;
        heap_put(s, i, last);
        heap_up(s, i);
        heap_down(s, last.target->heap_index);
}

static void sleep_until(Target *t, uint64_t mono_ns)
{
        Sampler *s = t->sampler;

        heap_remove(t);
        assert(s->n_heap < s->max_targets);
        heap_put(s, s->n_heap++, (HeapNode){.wake_mono_ns = mono_ns, .target = t});
        heap_up(s, t->heap_index);
}

uint64_t targets_next_mono_ns(const Sampler *s)
{
        return s->n_heap == 0 ? UINT64_MAX : s->heap[0].wake_mono_ns;
}

/* ---- due times ---- */

/* The first time after that one, of those at which threads with this period fall due. */
static uint64_t next_step(uint64_t after_mono_ns, uint64_t period_ns)
{
        uint64_t n_steps = (period_ns + STEP_NS - 1) / STEP_NS;
        uint64_t step = after_mono_ns % period_ns * n_steps / period_ns + 1;

        return after_mono_ns - after_mono_ns % period_ns + step * period_ns / n_steps;
}

/* The first time of the grid first + k·period (k may be negative) after that one. */
static uint64_t next_due(const Target *t, uint64_t after)
{
        if (after < t->first_mono_ns)
                return t->first_mono_ns -
                       (t->first_mono_ns - after - 1) / t->period_ns * t->period_ns;
        return t->first_mono_ns + ((after - t->first_mono_ns) / t->period_ns + 1) * t->period_ns;
}

/* The due sample is taken or lost. */
static void settle(Target *t)
{
        t->taking = false;
        t->n_unstable = 0;
        t->waited_until_mono_ns = 0;
        t->other_asked = false;
        t->python_asked = false;
        t->due_mono_ns = next_due(t, t->due_mono_ns);
        sleep_until(t, t->due_mono_ns);
}

/* Begins with the sample that is due; those before the newest are lost when a whole period has
 * passed. */
static void begin(Target *t, uint64_t now)
{
        if (now - t->due_mono_ns >= t->period_ns) {
                uint64_t skip_to = next_due(t, now) - t->period_ns;
                uint64_t n = (skip_to - next_due(t, t->due_mono_ns)) / t->period_ns + 1;

                counter_add(COUNTER_SAMPLES_DUE, n);
                counter_add(COUNTER_SAMPLES_LATE, n);
                t->due_mono_ns = skip_to;
        }
        counter_add(COUNTER_SAMPLES_DUE, 1);
        t->taking = true;
        if (sampler_run_is_due(t, now))
                sampler_flush_run(t->sampler, t);
}

/*
 * A thread that had to make room on its CPU after the sample was due did so for the sampler, most of all:
 * when it was due, it ran.
 */
static bool was_queued(const Target *t, const CaptureResult *r)
{
        return r->queued && !(r->ran_until_mono_ns && r->ran_until_mono_ns >= t->due_mono_ns);
}

static ThreadState sample_state(const Target *t, const CaptureResult *r)
{
        /* One that was running then has not run since. */
        if (r->status == CAPTURE_REPEATED)
                return t->sample.state == THREAD_RUNNING ? THREAD_RUNNABLE : t->sample.state;
        if (r->blocked)
                return THREAD_BLOCKED;
        return r->queued ? THREAD_RUNNABLE : THREAD_RUNNING;
}

/*
 * The time to be reported of a capture: when it was due, if it came that near. After a sample that
 * was so late that it has its true time, the next due time may lie before that.
 */
static SampleTime sample_time(const Target *t, const CaptureResult *r)
{
        uint64_t capture_mono_ns = r->mono_ns;
        bool punctual = capture_mono_ns >= t->due_mono_ns &&
                        capture_mono_ns - t->due_mono_ns < WIRE_NS &&
                        t->due_mono_ns > t->sample.mono_ns;

        return (SampleTime){.mono_ns = punctual ? t->due_mono_ns : capture_mono_ns,
                .capture_mono_ns = capture_mono_ns,
                .times = {.runtime_ns = r->runtime_ns, .run_delay_ns = r->run_delay_ns},
                .state = sample_state(t, r)};
}

bool target_add_edge(Target *t, uint64_t mono_ns, uint64_t next_mono_ns, uint64_t stack_id)
{
        SampleTime edge = {.mono_ns = mono_ns, .capture_mono_ns = mono_ns};
        bool ends = stack_id == t->stack_id;

        edge.state = ends ? t->sample.state : THREAD_BLOCKED;
        /* Nearer to another sample of that stack than the wire's unit it tells nothing more. */
        if (mono_ns < t->sample.capture_mono_ns ||
                mono_ns < t->sample.mono_ns + (ends ? WIRE_NS : 0) ||
                mono_ns > next_mono_ns - (ends ? 0 : WIRE_NS))
                return false;
        if (!sampler_emit_sample(t->sampler, t, &edge, stack_id))
                return false;
        counter_add(COUNTER_SAMPLES_EDGE, 1);
        return true;
}

void target_finish(Target *t)
{
        CaptureResult r;

        sampler_flush_run(t->sampler, t);
        if (!t->thread || !t->stack_id || capture_finish(t->thread, &r) != 0)
                return;
        target_add_edge(t, r.waited_until_mono_ns, UINT64_MAX, t->stack_id);
        sampler_emit_times(t->sampler, t->id, &r);
}

/* ---- captures: each handler returns whether to pull again at once ---- */

static bool on_taken(Target *t, CaptureResult *r)
{
        SampleTime time;
        SampleFate fate;

        r->queued = was_queued(t, r);
        time = sample_time(t, r);

        /* A larger copy is another capture, which no longer knows of the one before. */
        if (r->waited_until_mono_ns)
                t->waited_until_mono_ns = r->waited_until_mono_ns;
        fate = process_take_sample(t->process, t, r, &time);
        capture_release(t->thread);
        /* What was not announced must not be repeated by its id. */
        if (fate != SAMPLE_DONE)
                capture_thread_forget(t->thread);
        if (fate == SAMPLE_LARGER)
                return true;
        counter_add(COUNTER_SAMPLES_CAPTURED, 1);
        if (r->shot)
                counter_add(COUNTER_SAMPLES_SHOT, 1);
        settle(t);
        return false;
}

static bool on_repeated(Target *t, const CaptureResult *r)
{
        SampleTime time = sample_time(t, r);

        assert(t->stack_id);

        counter_add(COUNTER_SAMPLES_CAPTURED, 1);
        counter_add(COUNTER_SAMPLES_REPEATED, 1);
        /* The thread has not run since the sample before: it was the same when this one was due. */
        if (time.mono_ns == t->due_mono_ns)
                sampler_repeat_sample(t->sampler, t, &time);
        else
                sampler_emit_sample(t->sampler, t, &time, t->stack_id);
        settle(t);
        return false;
}

static bool on_unstable(Target *t)
{
        if (++t->n_unstable % N_AT_ONCE != 0)
                return true;
        sleep_until(t, mono_now_ns() + PAUSE_NS);
        return false;
}

static bool on_lost(Target *t, CounterId cause)
{
        counter_add(cause, 1);
        settle(t);
        return false;
}

static void announce_gone(Target *t)
{
        counter_add(COUNTER_SAMPLES_GONE, 1);
        sampler_flush_run(t->sampler, t);
        heap_remove(t);
        t->thread = capture_thread_free(t->thread);
        sampler_emit_gone(t->sampler, TAKE_PTR(t->gone_node), t->id);
}

static bool on_result(Target *t, CaptureResult *r)
{
        switch (r->status) {
        case CAPTURE_TAKEN:
                return on_taken(t, r);
        case CAPTURE_REPEATED:
                return on_repeated(t, r);
        case CAPTURE_RUNNING:
                t->shot_out = true;
                sleep_until(t, mono_now_ns() + SHOT_NS);
                return false;
        case CAPTURE_GONE:
                announce_gone(t);
                return false;
        case CAPTURE_FAULT:
                return on_lost(t, COUNTER_SAMPLES_FAULT);
        case CAPTURE_DENIED:
                return on_lost(t, COUNTER_SAMPLES_DENIED);
        case CAPTURE_UNSTABLE:
        case CAPTURE_BUSY:
                break;
        }
        return on_unstable(t);
}

/* A target that woke up. Return: whether to pull it now. */
static bool wake(Target *t, uint64_t now)
{
        CaptureResult r;

        if (t->shot_out) {
                t->shot_out = false;
                if (capture_cancel(t->thread, &r))
                        return on_result(t, &r);
        }
        if (t->taking && now >= next_due(t, t->due_mono_ns)) {
                counter_add(COUNTER_SAMPLES_UNSTABLE, 1);
                settle(t);
                heap_remove(t);
        }
        if (!t->taking)
                begin(t, now);
        return true;
}

void targets_collect(Sampler *s)
{
        void *userdata;
        CaptureResult r;

        while (capture_collect(s->capture, &userdata, &r)) {
                Target *t = userdata;

                t->shot_out = false;
                if (on_result(t, &r))
                        sleep_until(t, 0);
        }
}

/* Pulls the first n of s->batch. Return: how many are to be pulled again at once, at the front of
 * s->batch. */
static size_t pull_batch(Sampler *s, size_t n)
{
        size_t n_again = 0, n_busy = 0;
        int r;

        for (size_t i = 0; i < n; i++)
                s->batch_threads[i] = s->batch[i]->thread;
        r = capture_pull(s->capture, s->batch_threads, n, s->batch_results);
        if (r < 0) {
                static LogLimit limit = LOG_LIMIT_INIT;
                unsigned suppressed;

                if (log_limit(&limit, &suppressed))
                        log_error("capturing %zu threads: %s", n, strerror(-r));
                for (size_t i = 0; i < n; i++)
                        on_lost(s->batch[i], COUNTER_SAMPLES_FAULT);
                return 0;
        }
        for (size_t i = 0; i < n; i++)
                n_busy += s->batch_results[i].status == CAPTURE_BUSY;
        for (size_t i = 0; i < n; i++) {
                Target *t = s->batch[i];
                bool busy = s->batch_results[i].status == CAPTURE_BUSY;

                /* There are fewer buffers than copies; those served in this pass give theirs back.
                 */
                if (busy ? n_busy < n : on_result(t, &s->batch_results[i]))
                        s->batch[n_again++] = t;
                else if (busy)
                        sleep_until(t, mono_now_ns() + PAUSE_NS);
        }
        return n_again;
}

void targets_serve(Sampler *s, uint64_t now_mono_ns)
{
        size_t n = 0;

        while (s->n_heap > 0 && s->heap[0].wake_mono_ns <= now_mono_ns) {
                Target *t = s->heap[0].target;

                heap_remove(t);
                if (wake(t, now_mono_ns))
                        s->batch[n++] = t;
        }
        while (n > 0)
                n = pull_batch(s, n);
}

/* ---- a target's life ---- */

static int target_follow(Target *t, const TargetSpec *spec)
{
        static LogLimit limit = LOG_LIMIT_INIT;
        unsigned suppressed;
        int r;

        r = capture_thread_new(t->sampler->capture, &t->thread, spec->pid, spec->tid, t);
        if (r && r != CAPTURE_E_GONE && log_limit(&limit, &suppressed))
                log_warning("thread %d of process %d cannot be followed: %s", (int)spec->tid,
                        (int)spec->pid,
                        r == CAPTURE_E_LIMIT ? "capture.max_targets or open files are used up"
                                             : strerror(-r));
        return r;
}

int target_new(Sampler *s, TargetId id, const TargetSpec *spec, uint64_t now_mono_ns)
{
        Process *p;
        Target *t;
        int r;

        assert(spec->period_ns > 0);

        t = calloc(1, sizeof(*t));
        if (!t)
                return error_origin(-ENOMEM);
        t->sampler = s;
        t->id = id;
        t->heap_index = NOT_IN_HEAP;
        t->first_mono_ns = next_step(spec->first_mono_ns + PHASE_NS, spec->period_ns);
        t->period_ns = spec->period_ns;
        t->blocked_on = s->blocked_on || spec->say_waits;
        t->due_mono_ns = spec->goes_on ? next_due(t, now_mono_ns) : now_mono_ns;
        t->gone_node = calloc(1, sizeof(*t->gone_node));
        p = process_get(s, spec->pid);
        r = t->gone_node && p ? hash_table_add(&s->targets, &t->by_id, hash_u64(id))
                              : error_origin(-ENOMEM);
        if (r) {
                free(t->gone_node);
                free(t);
                return error_trace(r);
        }
        process_add_target(p, t);
        atomic_fetch_add(&s->n_targets, 1);
        if (target_follow(t, spec)) {
                announce_gone(t);
                return 0;
        }
        target_size(t);
        if (p->map)
                target_set_map(t, p->map);
        target_set_python(t);
        sleep_until(t, t->due_mono_ns);
        return 0;
}

Target *target_free(Target *t)
{
        Sampler *s;

        if (!t)
                return NULL;
        s = t->sampler;
        heap_remove(t);
        capture_thread_free(t->thread);
        target_forget_stack(t);
        process_remove_target(t->process, t, mono_now_ns());
        hash_table_remove(&s->targets, &t->by_id);
        atomic_fetch_sub(&s->n_targets, 1);
        free(t->gone_node);
        free(t);
        return NULL;
}

Target *target_find(Sampler *s, TargetId id)
{
        for (HashLink *l = hash_table_find(&s->targets, hash_u64(id)); l; l = hash_link_next(l)) {
                Target *t = container_of(l, Target, by_id);

                if (t->id == id)
                        return t;
        }
        return NULL;
}

void target_set_map(Target *t, const ProcMap *map)
{
        capture_thread_set_go(t->thread, map->go);
        capture_thread_set_code(t->thread, map->generates_code);
}

void target_size(Target *t)
{
        capture_thread_set_want(
                t->thread, t->process->map ? CAPTURE_FIRST_WANT : t->sampler->max_stack_bytes);
}

bool target_grow(Target *t, uint64_t need_bytes)
{
        size_t before = capture_thread_want(t->thread), want = before * 2;

        while (want < need_bytes && want < t->sampler->max_stack_bytes)
                want *= 2;
        capture_thread_set_want(t->thread, want);
        return capture_thread_want(t->thread) > before;
}

/* ---- the newest stack ---- */

void target_forget_stack(Target *t)
{
        t->stack_map = procmap_unref(t->stack_map);
        free(TAKE_PTR(t->pcs));
        t->n_pcs = 0;
}

void target_set_stack(Target *t, ProcMap *map, size_t n_frames)
{
        const Frame *frames = t->sampler->frames;
        uint64_t *pcs = malloc(n_frames * sizeof(*pcs));

        target_forget_stack(t);
        if (!pcs)
                return;
        for (size_t i = 0; i < n_frames; i++)
                pcs[i] = frames[i].pc;
        t->pcs = pcs;
        t->n_pcs = n_frames;
        t->stack_map = procmap_ref(map);
}

bool target_has_stack(const Target *t, const ProcMap *map, size_t n_frames)
{
        const Frame *frames = t->sampler->frames;

        if (t->stack_map != map || t->n_pcs != n_frames)
                return false;
        for (size_t i = 0; i < n_frames; i++)
                if (t->pcs[i] != frames[i].pc)
                        return false;
        return true;
}
