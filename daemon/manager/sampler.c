/* SPDX-License-Identifier: Apache-2.0 */
#include "manager/sampler.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "core/counter.h"
#include "manager/sampler-private.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mailbox.h"

/* Enough for some seconds in which main does not read. */
#define N_EVENTS 65536
/* Waits for room in another thread's mailbox are rare, and need no descriptor of their own. */
#define RETRY_NS      NS_PER_MS
#define NICE          (-20)
#define SHARE_NS      (NS_PER_S / 3)
#define NEVER         UINT64_MAX
#define WALL_NOISE_NS 50000
#define EXPIRE_EVERY  (10 * NS_PER_S)
/* Samples of sleeping threads wait so long for others: ten cost little more than one. */
#define RUN_NS (100 * NS_PER_MS)

typedef struct Command {
        TargetId id;
        enum {
                COMMAND_REMOVE,
                COMMAND_ADD,
                COMMAND_PREPARE, /* of the spec, the pid alone */
        } type;
        TargetSpec spec;
} Command;

/* ---- events ---- */

static void event_drop(SamplerEvent *e)
{
        procmap_unref(e->map);
        cpython_codes_unref(e->codes);
        free(e->frames);
}

static bool push(Sampler *s, const SamplerEvent *e)
{
        return list_empty(&s->backlog) && mailbox_push(s->events, e) == 0;
}

/* `node` is taken over; NULL: the spare one serves. */
static void push_or_keep(Sampler *s, EventNode *node, const SamplerEvent *e)
{
        if (push(s, e)) {
                free(node);
                return;
        }
        if (!node)
                node = TAKE_PTR(s->spare);
        assert(node);
        node->event = *e;
        list_append(&s->backlog, &node->link);
}

static void send_backlog(Sampler *s)
{
        EventNode *node, *tmp;

        list_for_each_safe (node, tmp, &s->backlog, link) {
                if (mailbox_push(s->events, &node->event) != 0)
                        return;
                list_remove(&node->link);
                free(node);
        }
}

bool sampler_emit_sample(Sampler *s, Target *t, const SampleTime *time, uint64_t stack_id)
{
        SamplerEvent e = {
                .type = SAMPLER_SAMPLE,
                .target = t->id,
                .mono_ns = time->capture_mono_ns,
                .wall_ns = time->mono_ns + (uint64_t)s->wall_offset_ns,
                .stack_id = stack_id,
                .times = time->times,
                .state = time->state,
                .period_ns = t->period_ns,
                .n = 1,
        };

        sampler_flush_run(s, t);
        if (!s->spare)
                s->spare = calloc(1, sizeof(*s->spare));
        if (!s->spare || !push(s, &e)) {
                counter_add(COUNTER_SAMPLES_QUEUE_FULL, 1);
                return false;
        }
        t->stack_id = stack_id;
        t->sample = *time;
        return true;
}

void sampler_flush_run(Sampler *s, Target *t)
{
        const TargetRun *run = &t->run;
        SamplerEvent e = {
                .type = SAMPLER_SAMPLE,
                .target = t->id,
                .mono_ns = run->mono_ns,
                .wall_ns = run->mono_ns + (uint64_t)run->wall_offset_ns,
                .stack_id = t->stack_id,
                .times = run->times,
                .state = t->sample.state,
                .period_ns = t->period_ns,
                .n = run->n,
        };

        if (run->n > 0 && !push(s, &e))
                counter_add(COUNTER_SAMPLES_QUEUE_FULL, run->n);
        t->run.n = 0;
}

bool sampler_run_is_due(const Target *t, uint64_t now_mono_ns)
{
        return t->run.n > 0 && now_mono_ns >= t->run.mono_ns + RUN_NS;
}

void sampler_repeat_sample(Sampler *s, Target *t, const SampleTime *time)
{
        TargetRun *run = &t->run;

        if (time->mono_ns != run->mono_ns + run->n * t->period_ns ||
                run->wall_offset_ns != s->wall_offset_ns)
                sampler_flush_run(s, t);
        if (run->n == 0) {
                run->mono_ns = time->mono_ns;
                run->wall_offset_ns = s->wall_offset_ns;
        }
        run->n++;
        run->times = time->times;
        t->sample = *time;
        if (run->n * t->period_ns >= RUN_NS)
                sampler_flush_run(s, t);
}

void sampler_emit_stack(Sampler *s, EventNode *node, TargetId target, uint64_t stack_id,
        ProcMap *map, CpythonCodes *codes, size_t n_frames)
{
        SamplerEvent e = {
                .type = SAMPLER_STACK, .target = target, .stack_id = stack_id, .failed = true};

        if (map) {
                e.frames = malloc(n_frames * sizeof(*e.frames));
                if (e.frames) {
                        memcpy(e.frames, s->frames, n_frames * sizeof(*e.frames));
                        e.n_frames = n_frames;
                        e.map = procmap_ref(map);
                        e.codes = cpython_codes_ref(codes);
                        e.failed = false;
                } else {
                        counter_add(COUNTER_SAMPLES_QUEUE_FULL, 1);
                }
        }
        push_or_keep(s, node, &e);
}

void sampler_emit_times(Sampler *s, TargetId target, const CaptureResult *r)
{
        SamplerEvent e = {.type = SAMPLER_TIMES,
                .target = target,
                .mono_ns = r->mono_ns,
                .times = {.runtime_ns = r->runtime_ns, .run_delay_ns = r->run_delay_ns}};

        /* No sample is lost without. */
        push(s, &e);
}

void sampler_emit_gone(Sampler *s, EventNode *node, TargetId target)
{
        SamplerEvent e = {.type = SAMPLER_GONE, .target = target, .mono_ns = mono_now_ns()};

        e.wall_ns = e.mono_ns + (uint64_t)s->wall_offset_ns;
        push_or_keep(s, node, &e);
}

/* ---- the thread ---- */

static void do_commands(Sampler *s)
{
        Command c;
        int r;

        while (mailbox_pop(s->commands, &c) == 0) {
                if (c.type == COMMAND_PREPARE) {
                        process_prepare(s, c.spec.pid, mono_now_ns());
                        continue;
                }
                if (c.type == COMMAND_REMOVE) {
                        Target *t = target_find(s, c.id);

                        if (t)
                                target_finish(t);
                        target_free(t);
                        continue;
                }
                r = target_new(s, c.id, &c.spec, mono_now_ns());
                if (r < 0)
                        log_error("thread %d of process %d is not sampled: %s", (int)c.spec.tid,
                                (int)c.spec.pid, strerror(-r));
        }
}

static void take_maps(Sampler *s)
{
        WorkerMap answer;

        while (mailbox_pop(worker_maps(s->worker), &answer) == 0)
                process_take_map(s, &answer);
}

/* Return: whether to go on. */
static bool wait_until(Sampler *s, uint64_t deadline_mono_ns)
{
        struct timespec timeout;
        struct epoll_event event;
        uint64_t now = mono_now_ns();
        uint64_t ns = deadline_mono_ns > now ? deadline_mono_ns - now : 0, late_ns = 0;
        bool needed;
        int n;

        timeout.tv_sec = (time_t)(ns / NS_PER_S);
        timeout.tv_nsec = (long)(ns % NS_PER_S);
        atomic_store(&s->busy_since_mono_ns, 0);
        n = epoll_pwait2(s->epoll_fd, &event, 1, deadline_mono_ns == NEVER ? NULL : &timeout, NULL);
        now = mono_now_ns();
        atomic_store(&s->busy_since_mono_ns, now);
        if (n == 0 && ns > 0)
                late_ns = now - deadline_mono_ns;
        needed = realtime_need(&s->realtime_need, late_ns, now);
        atomic_store(&s->needs_realtime, needed);
        realtime_step(&s->realtime, needed, clock_ns(CLOCK_THREAD_CPUTIME_ID), now);
        /* What is readable is seen when all sources are drained; only the order to stop is not. */
        return !(n == 1 && event.data.fd == s->stop_fd);
}

static uint64_t next_deadline(Sampler *s, uint64_t expire_mono_ns)
{
        uint64_t deadline = targets_next_mono_ns(s);

        if (!list_empty(&s->process_list) && expire_mono_ns < deadline)
                deadline = expire_mono_ns;
        if (!list_empty(&s->backlog) || s->n_loads_unsent > 0) {
                uint64_t retry = mono_now_ns() + RETRY_NS;

                if (retry < deadline)
                        deadline = retry;
        }
        return deadline;
}

/* A new offset is taken over when the wall clock was set or has drifted; noise of reading would
 * make times flicker, and one who was kept waiting between the two clocks has read none. */
static void read_wall_offset(Sampler *s)
{
        uint64_t before_mono_ns = mono_now_ns();
        int64_t offset = (int64_t)(wall_now_ns() - before_mono_ns);

        if (s->wall_offset_ns != 0 && mono_now_ns() - before_mono_ns > WALL_NOISE_NS)
                return;
        if (llabs(offset - s->wall_offset_ns) > WALL_NOISE_NS)
                s->wall_offset_ns = offset;
}

static void *sampler_main(void *userdata)
{
        Sampler *s = userdata;
        uint64_t now, expire_mono_ns = 0;

        pthread_setname_np(pthread_self(), "sampler");
        prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
        realtime_init(&s->realtime, "sampler", s->may_realtime, NICE, SHARE_NS);
        do {
                now = mono_now_ns();
                read_wall_offset(s);
                send_backlog(s);
                do_commands(s);
                take_maps(s);
                targets_collect(s);
                targets_serve(s, mono_now_ns());
                processes_send_loads(s);
                if (now >= expire_mono_ns) {
                        processes_expire(s, now);
                        expire_mono_ns = now + EXPIRE_EVERY;
                }
        } while (wait_until(s, next_deadline(s, expire_mono_ns)));
        return NULL;
}

/* ---- from outside ---- */

static int watch(Sampler *s, int fd)
{
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

        return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? error_origin(-errno) : 0;
}

static int open_sources(Sampler *s)
{
        int r;

        s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (s->epoll_fd < 0)
                return error_origin(-errno);
        s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->stop_fd < 0)
                return error_origin(-errno);
        r = mailbox_new(&s->commands, sizeof(Command), 2 * s->max_targets + 64);
        if (r == 0)
                r = mailbox_new(&s->events, sizeof(SamplerEvent), N_EVENTS);
        if (r == 0)
                r = watch(s, s->stop_fd);
        if (r == 0)
                r = watch(s, mailbox_fd(s->commands));
        if (r == 0)
                r = watch(s, mailbox_fd(worker_maps(s->worker)));
        if (r == 0)
                r = watch(s, capture_fd(s->capture));
        return error_trace(r);
}

static int start_thread(Sampler *s)
{
        sigset_t all, before;
        int r;

        /* Signals are main's. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&s->thread, NULL, sampler_main, s);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r)
                return error_origin(-r);
        s->has_thread = true;
        return 0;
}

int sampler_new(Sampler **ret, const Config *config, Capture *capture, Worker *worker)
{
        _cleanup_(sampler_freep) Sampler *s = NULL;
        int r;

        s = calloc(1, sizeof(*s));
        if (!s)
                return error_origin(-ENOMEM);
        s->worker = worker;
        s->unwind_mode = (UnwindMode)config->capture_unwind;
        s->max_stack_bytes = config->capture_max_stack_bytes;
        s->blocked_on = config->stacks_blocked_on;
        s->python_mixed = config->python_stacks == PYTHON_STACKS_MIXED;
        s->max_targets = config->capture_max_targets;
        s->may_realtime = config->capture_realtime;
        s->stop_fd = s->epoll_fd = -1;
        list_init(&s->backlog);
        list_init(&s->process_list);
        s->heap = calloc(s->max_targets, sizeof(*s->heap));
        s->batch = calloc(s->max_targets, sizeof(*s->batch));
        s->batch_threads = calloc(s->max_targets, sizeof(*s->batch_threads));
        s->batch_results = calloc(s->max_targets, sizeof(*s->batch_results));
        s->frames = calloc(SAMPLER_MAX_FRAMES, sizeof(*s->frames));
        s->merged = calloc(SAMPLER_MAX_FRAMES, sizeof(*s->merged));
        if (!s->heap || !s->batch || !s->batch_threads || !s->batch_results || !s->frames ||
                !s->merged)
                return error_origin(-ENOMEM);
        s->capture = capture;
        r = open_sources(s);
        if (r == 0)
                r = start_thread(s);
        if (r) {
                s->capture = NULL; /* the caller's still */
                return error_trace(r);
        }
        *ret = TAKE_PTR(s);
        return 0;
}

Sampler *sampler_free(Sampler *s)
{
        EventNode *node, *tmp;
        SamplerEvent e;

        if (!s)
                return NULL;
        if (s->has_thread) {
                eventfd_write(s->stop_fd, 1);
                pthread_join(s->thread, NULL);
        }
        for (size_t i = 0; i < s->targets.n_buckets; i++)
                while (s->targets.buckets[i])
                        target_free(container_of(s->targets.buckets[i], Target, by_id));
        processes_free(s);
        capture_free(s->capture);
        list_for_each_safe (node, tmp, &s->backlog, link) {
                event_drop(&node->event);
                free(node);
        }
        while (s->events && mailbox_pop(s->events, &e) == 0)
                event_drop(&e);
        mailbox_free(s->events);
        mailbox_free(s->commands);
        closep(&s->epoll_fd);
        closep(&s->stop_fd);
        hash_table_deinit(&s->targets);
        hash_table_deinit(&s->processes);
        free(s->spare);
        free(s->merged);
        free(s->frames);
        free(s->batch_results);
        free(s->batch_threads);
        free(s->batch);
        free(s->heap);
        free(s);
        return NULL;
}

int sampler_add(Sampler *s, TargetId id, const TargetSpec *spec)
{
        Command c = {.id = id, .type = COMMAND_ADD, .spec = *spec};

        return mailbox_push(s->commands, &c) == 0 ? 0 : SAMPLER_E_BUSY;
}

int sampler_remove(Sampler *s, TargetId id)
{
        Command c = {.id = id, .type = COMMAND_REMOVE};

        return mailbox_push(s->commands, &c) == 0 ? 0 : SAMPLER_E_BUSY;
}

void sampler_prepare(Sampler *s, pid_t pid)
{
        Command c = {.type = COMMAND_PREPARE, .spec.pid = pid};

        mailbox_push(s->commands, &c);
}

struct Mailbox *sampler_events(Sampler *s)
{
        return s->events;
}

unsigned sampler_n_targets(Sampler *s)
{
        return atomic_load(&s->n_targets);
}

bool sampler_needs_realtime(Sampler *s)
{
        return atomic_load(&s->needs_realtime);
}

uint64_t sampler_busy_since_mono_ns(Sampler *s)
{
        return atomic_load(&s->busy_since_mono_ns);
}
