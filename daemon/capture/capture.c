/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/capture.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "capture/capture-private.h"
#include "util/error.h"

#define FIRST_WANT 4096U

/* No counter of switches is so high. */
#define NOT_KNOWN UINT64_MAX

struct CaptureThread {
        Capture *capture;
        void *userdata;
        pid_t pid, tid;
        uint32_t slot;
        uint32_t buffer; /* or SWP_NO_BUFFER */
        size_t want;
        uint64_t known_switches;
        bool known_waits; /* it blocked then, when these were: */
        uint64_t known_voluntary, known_runtime_ns, known_run_delay_ns;
        uint64_t start_boottime, exec_id;
        int iter_fd; /* -1 unless pulled by iterator */
        Shot shot;
        ListLink answered_link;
        uint64_t *pcs; /* SWP_MAX_USTACK; fp mode only */
};

static int new_buffers(Capture *c)
{
        unsigned n = capture_bpf_n_slots(c->bpf);

        c->threads = calloc(n, sizeof(*c->threads));
        c->free_slots = calloc(n, sizeof(*c->free_slots));
        if (!c->threads || !c->free_slots)
                return error_origin(-ENOMEM);
        for (unsigned i = 0; i < n; i++)
                c->free_slots[c->n_free_slots++] = n - 1 - i;
        for (unsigned i = 0; i < SWP_MAX_BUFFERS; i++)
                c->free_buffers[c->n_free_buffers++] = SWP_MAX_BUFFERS - 1 - i;
        return 0;
}

int capture_new_unproven(Capture **ret, const Config *config, bool iter)
{
        _cleanup_(capture_freep) Capture *c = NULL;
        unsigned n = config->capture_max_targets;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return error_origin(-ENOMEM);
        list_init(&c->answered);
        c->sched_clock = SCHED_CLOCK_INIT;
        c->fp = config->capture_unwind == UNWIND_MODE_FP;
        c->kernel_frames = config->capture_kernel_frames;
        c->max_stack_bytes = config->capture_max_stack_bytes;
        if (c->max_stack_bytes > SWP_STACK_BYTES)
                c->max_stack_bytes = SWP_STACK_BYTES;
        if (n > SWP_MAX_SLOTS)
                n = SWP_MAX_SLOTS;
        r = capture_bpf_new(&c->bpf, iter, n, c->fp || c->kernel_frames);
        if (r)
                return error_trace(r);
        r = new_buffers(c);
        if (r)
                return error_trace(r);
        *ret = TAKE_PTR(c);
        return 0;
}

Capture *capture_free(Capture *c)
{
        if (!c)
                return NULL;
        if (c->threads)
                for (unsigned i = 0; i < capture_bpf_n_slots(c->bpf); i++)
                        capture_thread_free(c->threads[i]);
        capture_bpf_free(c->bpf);
        free(c->free_slots);
        free(c->threads);
        free(c);
        return NULL;
}

int capture_fd(const Capture *c)
{
        return capture_bpf_fd(c->bpf);
}

static struct swp_slot *thread_slot(const CaptureThread *t)
{
        return capture_bpf_slot(t->capture->bpf, t->slot);
}

static bool thread_take_buffer(CaptureThread *t)
{
        Capture *c = t->capture;

        if (t->buffer == SWP_NO_BUFFER && c->n_free_buffers > 0)
                t->buffer = c->free_buffers[--c->n_free_buffers];
        return t->buffer != SWP_NO_BUFFER;
}

/* Stacks hold secrets: just what was copied is erased, since a buffer is large and most copies are
 * small. */
static void thread_drop_buffer(CaptureThread *t)
{
        Capture *c = t->capture;
        uint32_t copied = thread_slot(t)->copied;

        if (t->buffer == SWP_NO_BUFFER)
                return;
        explicit_bzero(capture_bpf_buffer(c->bpf, t->buffer),
                copied < SWP_STACK_BYTES ? copied : SWP_STACK_BYTES);
        thread_slot(t)->copied = 0;
        c->free_buffers[c->n_free_buffers++] = t->buffer;
        t->buffer = SWP_NO_BUFFER;
}

/* Writes a request that no program is working on yet. */
static void thread_request(CaptureThread *t, size_t want)
{
        Capture *c = t->capture;
        struct swp_slot *s = thread_slot(t);

        s->tid = (uint32_t)t->tid;
        s->want = (uint32_t)want;
        s->buffer = t->buffer;
        s->flags = (c->kernel_frames ? SWP_F_KERNEL : 0) | (c->fp ? SWP_F_FP : 0);
        s->known_switches = t->known_switches;
        s->start_boottime = t->start_boottime;
        s->exec_id = t->exec_id;
        /* `answered` differs: numbers come round after 2^32 requests, a slot is used anew much
         * sooner. */
        __atomic_store_n(&s->request, ++c->last_request, __ATOMIC_RELEASE);
}

static bool thread_answered(const CaptureThread *t)
{
        const struct swp_slot *s = thread_slot(t);

        return __atomic_load_n(&s->answered, __ATOMIC_ACQUIRE) == s->request;
}

/* The lists of program counters of a shot. Return: whether they belong to it without a doubt. */
static bool result_fill_shot(CaptureThread *t, CaptureResult *r)
{
        Capture *c = t->capture;
        struct swp_slot *s = thread_slot(t);
        uint64_t pcs[SWP_MAX_USTACK];
        int n;

        if (s->kstack_id >= 0) {
                n = capture_bpf_stack(c->bpf, s->kstack_id, pcs);
                if (n > SWP_MAX_KSTACK)
                        n = SWP_MAX_KSTACK;
                if (n > 0) {
                        memcpy(s->kstack, pcs, (size_t)n * sizeof(*pcs));
                        r->n_kernel_pcs = (size_t)n;
                }
        }
        if (!c->fp)
                return true;
        r->pcs_only = true;
        n = capture_bpf_stack(c->bpf, s->ustack_id, t->pcs);
        if (n <= 0 || t->pcs[0] != s->regs[X86_RIP])
                return false;
        r->n_pcs = (size_t)n;
        r->pcs_cut = n == SWP_MAX_USTACK;
        r->pcs = t->pcs;
        return true;
}

static CaptureStatus status_of(uint32_t status)
{
        switch (status) {
        case SWP_UNCHANGED:
                return CAPTURE_REPEATED;
        case SWP_COPIED:
                return CAPTURE_TAKEN;
        case SWP_ON_CPU:
                return CAPTURE_RUNNING;
        case SWP_GONE:
                return CAPTURE_GONE;
        case SWP_FAULT:
                return CAPTURE_FAULT;
        case SWP_NO_ROOM:
                return CAPTURE_BUSY;
        default:
                return CAPTURE_UNSTABLE;
        }
}

/* Time in want of a CPU, with that which is not over yet. */
static uint64_t run_delay_ns(const CaptureThread *t)
{
        const struct swp_slot *s = thread_slot(t);
        uint64_t since = 0;

        if (s->queued_sched_ns && !s->shot)
                since = sched_clock_mono_ns(
                        &t->capture->sched_clock, s->queued_sched_ns, s->mono_ns);
        return s->run_delay_ns + (since ? s->mono_ns - since : 0);
}

/*
 * When the wait was over in which the last capture met the thread; 0: not known. It has blocked at most once since, now. As long
 * as it came onto a CPU just once, it came then. Else it was preempted, and all that is known is
 * when it woke up: what has passed since went to running and to wanting to.
 */
static uint64_t wait_end(
        const CaptureThread *t, bool on_cpu, uint64_t came_mono_ns, const CaptureResult *r)
{
        const struct swp_slot *s = thread_slot(t);
        uint64_t until = r->blocked ? r->waits_since_mono_ns : r->mono_ns;

        if (!t->known_waits || s->voluntary != t->known_voluntary + r->blocked)
                return 0;
        if (s->switches == t->known_switches + !on_cpu)
                return came_mono_ns;
        return until - (r->runtime_ns - t->known_runtime_ns) -
               (r->run_delay_ns - t->known_run_delay_ns);
}

/* What is known of the thread's last turn on a CPU, and of the waits before and after. `on_cpu`: it
 * is there still. */
static void result_fill_turn(const CaptureThread *t, bool on_cpu, CaptureResult *r)
{
        const SchedClock *clock = &t->capture->sched_clock;
        const struct swp_slot *s = thread_slot(t);
        uint64_t came = sched_clock_mono_ns(clock, s->arrival_sched_ns, s->mono_ns);

        if (came == 0)
                return;
        if (on_cpu && s->mono_ns - came > s->turn_ns)
                r->runtime_ns += s->mono_ns - came - s->turn_ns;
        if (r->blocked)
                r->waits_since_mono_ns =
                        sched_clock_mono_ns(clock, s->arrival_sched_ns + s->turn_ns, s->mono_ns);
        r->waited_until_mono_ns = wait_end(t, on_cpu, came, r);
}

/* The answer, which is there, as the caller sees it. Keeps the buffer only with a copy in it. */
static CaptureResult thread_result(CaptureThread *t)
{
        struct swp_slot *s = thread_slot(t);
        CaptureResult r = {
                .status = status_of(s->status),
                .mono_ns = s->mono_ns,
                .shot = s->shot,
                .space = {.exec_vm = s->exec_vm,
                        .mm = s->mm,
                        .process_start_boottime = s->process_start_boottime},
                .runtime_ns = s->runtime_ns,
                .run_delay_ns = run_delay_ns(t),
                .fsbase = s->fsbase,
                .syscall = (int64_t)s->orig_ax,
                .blocked = !s->shot && s->state != 0,
                .kernel_pcs =
                        (const uint64_t *)s->kstack, /* __u64 is another type of the same size */
        };

        memcpy(r.copy.regs.r, s->regs, sizeof(r.copy.regs.r));
        r.copy.addr = s->copy_addr;
        if (r.status == CAPTURE_TAKEN && s->shot && !result_fill_shot(t, &r))
                r.status = CAPTURE_UNSTABLE;
        if (r.status == CAPTURE_TAKEN && !s->shot)
                r.n_kernel_pcs = s->n_kstack < SWP_MAX_KSTACK ? s->n_kstack : SWP_MAX_KSTACK;
        if (r.status == CAPTURE_TAKEN && t->buffer != SWP_NO_BUFFER && !r.pcs_only) {
                r.copy.bytes = capture_bpf_buffer(t->capture->bpf, t->buffer);
                r.copy.n = s->copied < SWP_STACK_BYTES ? s->copied : SWP_STACK_BYTES;
        }
        if (r.status == CAPTURE_TAKEN) {
                if (!s->shot)
                        sched_clock_note(&t->capture->sched_clock, s->mono_ns, s->puller_sched_ns);
                result_fill_turn(t, s->shot, &r);
                t->known_switches = s->shot ? NOT_KNOWN : s->switches;
                t->known_waits = r.blocked;
                t->known_voluntary = s->voluntary;
                t->known_runtime_ns = r.runtime_ns;
                t->known_run_delay_ns = r.run_delay_ns;
        }
        if (!r.copy.bytes)
                thread_drop_buffer(t);
        return r;
}

/* The program has answered the shot that was out. */
static CaptureResult thread_fetch_shot(CaptureThread *t)
{
        Capture *c = t->capture;
        CaptureResult r;

        list_remove(&t->answered_link);
        shot_answered(&t->shot);
        r = thread_result(t);
        /* Only now no shot can hold an id that is not read yet. */
        if (--c->n_shots == 0 && capture_bpf_stacks_crowded(c->bpf))
                capture_bpf_forget_stacks(c->bpf);
        return r;
}

bool capture_cancel(CaptureThread *t, CaptureResult *ret)
{
        if (!t->shot.out)
                return false;
        if (!thread_answered(t))
                shot_stop(&t->shot);
        if (thread_answered(t)) {
                *ret = thread_fetch_shot(t);
                return true;
        }
        shot_unanswered(&t->shot);
        t->capture->n_shots--;
        thread_drop_buffer(t);
        return false;
}

static void on_answer(void *userdata, const struct swp_event *e)
{
        Capture *c = userdata;
        CaptureThread *t = e->slot < capture_bpf_n_slots(c->bpf) ? c->threads[e->slot] : NULL;

        /* Older ones were fetched by capture_cancel() before they were announced. */
        if (t && t->shot.out && thread_slot(t)->request == e->request) {
                list_remove(&t->answered_link);
                list_append(&c->answered, &t->answered_link);
        }
}

bool capture_collect(Capture *c, void **ret_userdata, CaptureResult *ret)
{
        CaptureThread *t;

        if (list_empty(&c->answered))
                capture_bpf_consume(c->bpf, on_answer, c);
        t = list_first(&c->answered, CaptureThread, answered_link);
        if (!t)
                return false;
        *ret = thread_fetch_shot(t);
        *ret_userdata = t->userdata;
        return true;
}

void capture_release(CaptureThread *t)
{
        if (!t->shot.out)
                thread_drop_buffer(t);
}

/* Asks those whose result is still BUSY, with as many buffers as are free. Return: 0, -errno. */
static int pull_pending(Capture *c, CaptureThread *const *threads, size_t n, CaptureResult *results)
{
        uint32_t n_work = 0;

        for (size_t i = 0; i < n; i++) {
                if (results[i].status != CAPTURE_BUSY)
                        continue;
                thread_take_buffer(threads[i]);
                thread_request(threads[i], threads[i]->want);
                if (capture_bpf_iter(c->bpf)) {
                        /* Out of file descriptors or memory, for now: that need not stop the
                         * others. */
                        if (capture_bpf_pull_iter(c->bpf, threads[i]->iter_fd, threads[i]->slot) <
                                0)
                                results[i].status = CAPTURE_UNSTABLE;
                } else {
                        capture_bpf_set_work(c->bpf, n_work++, threads[i]->slot);
                }
        }
        return n_work == 0 ? 0 : error_trace(capture_bpf_pull_list(c->bpf, n_work));
}

/* The thread runs: has it interrupted. */
static CaptureStatus fire(CaptureThread *t)
{
        Capture *c = t->capture;
        int r;

        if (!c->fp && !thread_take_buffer(t))
                return CAPTURE_BUSY;
        /* What a shot lacks cannot be had later. */
        thread_request(t, c->max_stack_bytes);
        r = shot_fire(&t->shot, c->bpf, t->tid, t->slot);
        if (r == 0) {
                c->n_shots++;
                return CAPTURE_RUNNING;
        }
        thread_drop_buffer(t);
        return r == -ESRCH ? CAPTURE_GONE : CAPTURE_UNSTABLE;
}

int capture_pull(Capture *c, CaptureThread *const *threads, size_t n, CaptureResult *results)
{
        size_t n_busy, n_before = n + 1;
        int r;

        for (size_t i = 0; i < n; i++) {
                CaptureResult late;

                capture_cancel(threads[i], &late);
                thread_drop_buffer(threads[i]);
                results[i] = (CaptureResult){.status = CAPTURE_BUSY};
        }
        /* Threads that have not run need no buffer, so more than there are buffers are served at
         * once. */
        for (n_busy = n; n_busy > 0 && n_busy < n_before && c->n_free_buffers > 0;) {
                r = pull_pending(c, threads, n, results);
                if (r)
                        return error_trace(r);
                n_before = n_busy;
                n_busy = 0;
                for (size_t i = 0; i < n; i++) {
                        if (results[i].status != CAPTURE_BUSY)
                                continue;
                        if (thread_answered(threads[i]))
                                results[i] = thread_result(threads[i]);
                        else
                                results[i].status = CAPTURE_GONE;
                        n_busy += results[i].status == CAPTURE_BUSY;
                }
        }
        for (size_t i = 0; i < n; i++)
                if (results[i].status == CAPTURE_RUNNING)
                        results[i].status = fire(threads[i]);
        return 0;
}

void capture_thread_set_want(CaptureThread *t, size_t bytes)
{
        if (bytes > t->capture->max_stack_bytes)
                bytes = t->capture->max_stack_bytes;
        t->want = bytes;
}

size_t capture_thread_want(const CaptureThread *t)
{
        return t->want;
}

void capture_thread_forget(CaptureThread *t)
{
        t->known_switches = NOT_KNOWN;
        t->known_waits = false;
}

/* Return: 0; CAPTURE_E_GONE; -errno. */
static int pull_alone(CaptureThread *t)
{
        Capture *c = t->capture;
        int r;

        thread_request(t, t->want);
        if (capture_bpf_iter(c->bpf)) {
                r = capture_bpf_pull_iter(c->bpf, t->iter_fd, t->slot);
        } else {
                capture_bpf_set_work(c->bpf, 0, t->slot);
                r = capture_bpf_pull_list(c->bpf, 1);
        }
        if (r)
                return error_trace(r);
        return thread_answered(t) && thread_slot(t)->status != SWP_GONE ? 0 : CAPTURE_E_GONE;
}

int capture_finish(CaptureThread *t, CaptureResult *ret)
{
        const struct swp_slot *s = thread_slot(t);
        CaptureResult late;
        int r;

        capture_cancel(t, &late);
        thread_drop_buffer(t);
        r = pull_alone(t);
        if (r)
                return error_trace(r);
        *ret = (CaptureResult){.mono_ns = s->mono_ns,
                .blocked = s->status != SWP_ON_CPU && s->state != 0,
                .runtime_ns = s->runtime_ns,
                .run_delay_ns = run_delay_ns(t)};
        if (s->status != SWP_UNCHANGED)
                result_fill_turn(t, s->status == SWP_ON_CPU, ret);
        return 0;
}

/* Remembers who the thread is and what it runs, so that no later one with its number is taken for
 * it, and neither is itself after exec: its connection to the daemon need not end with that. */
static int thread_identify(CaptureThread *t)
{
        int r;

        r = pull_alone(t);
        if (r)
                return error_trace(r);
        t->start_boottime = thread_slot(t)->task_start_boottime;
        t->exec_id = thread_slot(t)->task_exec_id;
        /* Signal 0 is none: the kernel just looks whether the thread is one of that process (EPERM:
         * it is). */
        if (syscall(SYS_tgkill, t->pid, t->tid, 0) < 0 && errno == ESRCH)
                return CAPTURE_E_GONE;
        return 0;
}

int capture_thread_new(Capture *c, CaptureThread **ret, pid_t pid, pid_t tid, void *userdata)
{
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        int r;

        if (pid <= 0 || tid <= 0)
                return CAPTURE_E_GONE;
        if (c->n_free_slots == 0)
                return CAPTURE_E_LIMIT;
        t = calloc(1, sizeof(*t));
        if (!t)
                return error_origin(-ENOMEM);
        *t = (CaptureThread){
                .capture = c,
                .userdata = userdata,
                .pid = pid,
                .tid = tid,
                .slot = c->free_slots[--c->n_free_slots],
                .buffer = SWP_NO_BUFFER,
                .known_switches = NOT_KNOWN,
                .iter_fd = -1,
                .shot = SHOT_INIT,
        };
        c->threads[t->slot] = t;
        list_init(&t->answered_link);
        capture_thread_set_want(t, FIRST_WANT);
        if (c->fp) {
                t->pcs = calloc(SWP_MAX_USTACK, sizeof(*t->pcs));
                if (!t->pcs)
                        return error_origin(-ENOMEM);
        }
        if (capture_bpf_iter(c->bpf)) {
                r = capture_bpf_link_iter(c->bpf, tid);
                if (r == -EMFILE || r == -ENFILE)
                        return CAPTURE_E_LIMIT;
                if (r < 0)
                        return error_trace(r);
                t->iter_fd = r;
        }
        r = thread_identify(t);
        if (r)
                return error_trace(r);
        *ret = TAKE_PTR(t);
        return 0;
}

CaptureThread *capture_thread_free(CaptureThread *t)
{
        CaptureResult late;
        Capture *c;

        if (!t)
                return NULL;
        c = t->capture;
        capture_cancel(t, &late);
        thread_drop_buffer(t);
        shot_deinit(&t->shot);
        closep(&t->iter_fd);
        memset(thread_slot(t), 0, sizeof(struct swp_slot));
        c->threads[t->slot] = NULL;
        c->free_slots[c->n_free_slots++] = t->slot;
        free(t->pcs);
        free(t);
        return NULL;
}
