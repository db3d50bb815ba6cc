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

/* So far below its end a stack is the same one still. If not, less is copied than there is at worst:
 * it is counted, and the end is not known any more. */
#define STACK_SPAN (8U << 20)

static int new_buffers(Capture *c)
{
        unsigned n = c->n_slots;

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

int capture_new_unproven(Capture **ret, const Config *config, CaptureBackend backend)
{
        _cleanup_(capture_freep) Capture *c = NULL;
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
        c->n_slots = config->capture_max_targets;
        if (c->n_slots > SWP_MAX_SLOTS)
                c->n_slots = SWP_MAX_SLOTS;
        if (backend == CAPTURE_BACKEND_PTRACE)
                r = capture_ptrace_new(&c->ptrace, c->n_slots);
        else
                r = capture_bpf_new(&c->bpf, backend == CAPTURE_BACKEND_BPF_ITER, c->n_slots,
                        c->fp || c->kernel_frames);
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
                for (unsigned i = 0; i < c->n_slots; i++)
                        capture_thread_free(c->threads[i]);
        capture_ptrace_free(c->ptrace);
        capture_bpf_free(c->bpf);
        free(c->free_slots);
        free(c->threads);
        free(c);
        return NULL;
}

int capture_fd(const Capture *c)
{
        return c->ptrace ? capture_ptrace_fd(c->ptrace) : capture_bpf_fd(c->bpf);
}

static bool thread_take_buffer(CaptureThread *t)
{
        Capture *c = t->capture;

        if (t->buffer == SWP_NO_BUFFER && c->n_free_buffers > 0)
                t->buffer = c->free_buffers[--c->n_free_buffers];
        return t->buffer != SWP_NO_BUFFER;
}

static void thread_drop_python(CaptureThread *t)
{
        struct swp_python_walk *w = thread_python_walk(t);
        uint32_t n = t->python->n_frames;

        if (!(t->shared->flags & SWP_F_PYTHON))
                return;
        explicit_bzero(w->frames, (n < SWP_MAX_PYTHON ? n : SWP_MAX_PYTHON) * sizeof(*w->frames));
        explicit_bzero(w->block, sizeof(w->block));
        t->python->n_frames = 0;
}

void thread_drop_buffer(CaptureThread *t)
{
        Capture *c = t->capture;
        uint32_t copied, other;

        if (t->buffer == SWP_NO_BUFFER)
                return;
        copied = t->shared->copied;
        other = t->shared->other_copied;
        explicit_bzero(thread_buffer(t), copied < SWP_STACK_BYTES ? copied : SWP_STACK_BYTES);
        explicit_bzero(
                thread_buffer(t) + SWP_OTHER_AT, other < SWP_OTHER_BYTES ? other : SWP_OTHER_BYTES);
        t->shared->copied = t->shared->other_copied = 0;
        thread_drop_python(t);
        c->free_buffers[c->n_free_buffers++] = t->buffer;
        t->buffer = SWP_NO_BUFFER;
}

/* Writes a request that no program is working on yet. */
static void thread_request(CaptureThread *t, size_t want)
{
        Capture *c = t->capture;
        struct swp_slot *s = t->shared;

        s->tid = (uint32_t)t->tid;
        s->want = (uint32_t)want;
        s->buffer = t->buffer;
        s->flags = (c->kernel_frames ? SWP_F_KERNEL : 0) | (c->fp ? SWP_F_FP : 0) |
                   (t->wants_python ? SWP_F_PYTHON : 0) | (t->code ? SWP_F_CODE : 0);
        if (t->new_python) {
                *t->python = t->next_python;
                t->new_python = false;
        }
        s->known_switches = t->known_switches;
        s->start_boottime = t->start_boottime;
        s->other_addr = t->other_addr;
        if (t->new_go) {
                s->go = (struct swp_go){.g = t->go.g,
                        .m = t->go.m,
                        .curg = t->go.curg,
                        .sched = t->go.sched,
                        .vdso_sp = t->go.vdso_sp};
                t->new_go = false;
        }
        s->exec_id = t->exec_id;
        /* `answered` differs: numbers come round after 2^32 requests, a slot is used anew much
         * sooner. */
        __atomic_store_n(&s->request, ++c->last_request, __ATOMIC_RELEASE);
}

static bool thread_answered(const CaptureThread *t)
{
        const struct swp_slot *s = t->shared;

        return __atomic_load_n(&s->answered, __ATOMIC_ACQUIRE) == s->request;
}

/* The program has answered the shot that was out. */
static void thread_fetch_shot(CaptureThread *t, CaptureResult *ret)
{
        Capture *c = t->capture;

        list_remove(&t->answered_link);
        shot_answered(&t->shot);
        thread_result(t, ret);
        /* Only now no shot can hold an id that is not read yet. */
        if (--c->n_shots == 0 && capture_bpf_stacks_crowded(c->bpf))
                capture_bpf_forget_stacks(c->bpf);
}

bool capture_cancel(CaptureThread *t, CaptureResult *ret)
{
        if (!t->shot.out)
                return false;
        if (!thread_answered(t))
                shot_stop(&t->shot);
        if (thread_answered(t)) {
                thread_fetch_shot(t, ret);
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
        CaptureThread *t = e->slot < c->n_slots ? c->threads[e->slot] : NULL;

        /* Older ones were fetched by capture_cancel() before they were announced. */
        if (t && t->shot.out && t->shared->request == e->request) {
                list_remove(&t->answered_link);
                list_append(&c->answered, &t->answered_link);
        }
}

bool capture_collect(Capture *c, void **ret_userdata, CaptureResult *ret)
{
        CaptureThread *t;

        if (c->ptrace) {
                capture_ptrace_let_go(c->ptrace);
                return false;
        }
        if (list_empty(&c->answered))
                capture_bpf_consume(c->bpf, on_answer, c);
        t = list_first(&c->answered, CaptureThread, answered_link);
        if (!t)
                return false;
        thread_fetch_shot(t, ret);
        *ret_userdata = t->userdata;
        return true;
}

void capture_release(CaptureThread *t)
{
        if (!t->shot.out)
                thread_drop_buffer(t);
}

/* Has a request answered: now, or as the next of the work list. Return: 0, -errno. */
static int thread_pull(CaptureThread *t, uint32_t *n_work)
{
        Capture *c = t->capture;

        if (c->ptrace)
                capture_ptrace_pull(c->ptrace, t->slot);
        else if (capture_bpf_iter(c->bpf))
                return error_trace(capture_bpf_pull_iter(c->bpf, t->iter_fd, t->slot));
        else
                capture_bpf_set_work(c->bpf, (*n_work)++, t->slot);
        return 0;
}

static int pull_list(Capture *c, uint32_t n_work)
{
        return n_work == 0 ? 0 : error_trace(capture_bpf_pull_list(c->bpf, n_work));
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
                /* Out of file descriptors or memory, for now: that need not stop the others. */
                if (thread_pull(threads[i], &n_work) < 0)
                        results[i].status = CAPTURE_UNSTABLE;
        }
        return pull_list(c, n_work);
}

/* The thread runs: has it interrupted. */
static CaptureStatus fire(CaptureThread *t)
{
        Capture *c = t->capture;
        int r;

        if ((!c->fp || t->wants_python) && !thread_take_buffer(t))
                return CAPTURE_BUSY;
        /* What a shot lacks cannot be had later. */
        if (t->end_addr) {
                t->shared->stack_start = t->end_addr > STACK_SPAN ? t->end_addr - STACK_SPAN : 0;
                t->shared->stack_end = t->end_addr;
        }
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
                results[i].status = CAPTURE_BUSY;
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
                                thread_result(threads[i], &results[i]);
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

void capture_thread_set_other(CaptureThread *t, uint64_t sp)
{
        t->other_addr = sp > SWP_RED_ZONE ? sp - SWP_RED_ZONE : 0;
}

void capture_thread_set_python(
        CaptureThread *t, const struct swp_python_layout *layout, uint64_t interpreters)
{
        struct swp_python next = {.interpreters = interpreters};

        if (layout)
                next.layout = *layout;
        if (t->next_python.interpreters == next.interpreters &&
                memcmp(&t->next_python.layout, &next.layout, sizeof(next.layout)) == 0)
                return;
        /* A shot may be out, which reads what it was asked for. */
        t->next_python = next;
        t->new_python = true;
        t->wants_python = layout != NULL;
}

void capture_thread_find_python(CaptureThread *t)
{
        t->new_python = t->wants_python;
}

void capture_thread_set_end(CaptureThread *t, uint64_t addr)
{
        t->end_addr = addr;
}

void capture_thread_set_go(CaptureThread *t, const GoPlaces *go)
{
        t->go = go ? *go : (GoPlaces){0};
        t->new_go = true;
}

void capture_thread_set_code(CaptureThread *t, bool code)
{
        t->code = code;
}

void capture_thread_forget(CaptureThread *t)
{
        t->known_switches = NOT_KNOWN;
        t->known_waits = false;
}

/* Return: 0; CAPTURE_E_GONE; -errno. */
static int pull_alone(CaptureThread *t)
{
        uint32_t n_work = 0;
        int r;

        thread_request(t, t->want);
        r = thread_pull(t, &n_work);
        if (r == 0)
                r = pull_list(t->capture, n_work);
        if (r)
                return error_trace(r);
        return thread_answered(t) && t->shared->status != SWP_GONE ? 0 : CAPTURE_E_GONE;
}

int capture_finish(CaptureThread *t, CaptureResult *ret)
{
        const struct swp_slot *s = t->shared;
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
                .run_delay_ns = thread_run_delay_ns(t)};
        if (s->status != SWP_UNCHANGED && s->status != SWP_UNSTABLE)
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
        t->start_boottime = t->shared->task_start_boottime;
        t->exec_id = t->shared->task_exec_id;
        /* Signal 0 is none: the kernel just looks whether the thread is one of that process (EPERM:
         * it is). */
        if (syscall(SYS_tgkill, t->pid, t->tid, 0) < 0 && errno == ESRCH)
                return CAPTURE_E_GONE;
        return 0;
}

/* What the backend keeps of a thread. Return: 0, CAPTURE_E_GONE, CAPTURE_E_LIMIT, -errno. */
static int thread_open(CaptureThread *t)
{
        Capture *c = t->capture;
        int r = 0;

        if (c->ptrace)
                r = capture_ptrace_follow(c->ptrace, t->slot, t->pid, t->tid);
        else if (capture_bpf_iter(c->bpf))
                r = t->iter_fd = capture_bpf_link_iter(c->bpf, t->tid);
        if (r == -EMFILE || r == -ENFILE)
                return CAPTURE_E_LIMIT;
        if (c->ptrace && r == -ESRCH)
                return CAPTURE_E_GONE;
        return r < 0 ? error_trace(r) : 0;
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
        t->shared = c->ptrace ? capture_ptrace_slot(c->ptrace, t->slot)
                              : capture_bpf_slot(c->bpf, t->slot);
        t->python = c->ptrace ? capture_ptrace_python(c->ptrace, t->slot)
                              : capture_bpf_python(c->bpf, t->slot);
        list_init(&t->answered_link);
        capture_thread_set_want(t, CAPTURE_FIRST_WANT);
        if (c->fp) {
                t->pcs = calloc(SWP_MAX_USTACK, sizeof(*t->pcs));
                if (!t->pcs)
                        return error_origin(-ENOMEM);
        }
        r = thread_open(t);
        if (r)
                return error_trace(r);
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
        if (c->ptrace)
                capture_ptrace_leave(c->ptrace, t->slot);
        memset(t->shared, 0, sizeof(struct swp_slot));
        memset(t->python, 0, sizeof(struct swp_python));
        c->threads[t->slot] = NULL;
        c->free_slots[c->n_free_slots++] = t->slot;
        free(t->pcs);
        free(t);
        return NULL;
}
