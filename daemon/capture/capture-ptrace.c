/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/capture-ptrace.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include "capture/proc-thread.h"
#include "capture/python-walk.h"
#include "capture/tracee.h"
#include "util/error.h"
#include "util/hash.h"
#include "util/list.h"
#include "util/log.h"
#include "util/time.h"

/* Most stop within some 10 µs; one that does not may need the very CPU that we wait on. */
#define STOP_WAIT_NS (80 * NS_PER_US)
/* How long a thread may stand that stopped later. */
#define LET_GO_NS (2 * NS_PER_MS)
/* A leader that ended before its process' other threads: it takes until these have, and then its
 * parent waits for us to see it. */
#define ENDED_NS (200 * NS_PER_MS)

/* One thread. */
typedef struct Follow {
        ProcThread proc;
        Tracee tracee;
        ListLink seized_link; /* in CapturePtrace.seized: was to stop, and has not yet */
        bool left;            /* nobody's any more, but that */
        bool ended;           /* and will not stop; not one whose exec gives it another number */
        bool waits;       /* was off the CPU, in want of something else, before it was to stop */
        bool asked_again; /* since the timer last expired: a capture may take it when it stands */
        /* The newest copy: what has to be the same for the stack to be the same. */
        ProcPlace place;
        size_t n;
        uint64_t hash;
        uint64_t asleep_n_runs; /* was seen with that stack, having run so many times; 0: not yet */
} Follow;

struct CapturePtrace {
        unsigned n_slots;
        struct swp_slot *slots;
        struct swp_python *pythons;
        struct swp_buffer *buffers; /* one more: scratch */
        Follow **follows;           /* by slot; NULL: free */
        ListLink seized;
        int timer_fd;
        uint64_t timer_period_ns; /* 0: it stands */
        LogLimit failure_limit;
};

static size_t buffers_size(void)
{
        return (SWP_MAX_BUFFERS + 1) * sizeof(struct swp_buffer);
}

int capture_ptrace_new(CapturePtrace **ret, unsigned n_slots)
{
        _cleanup_(capture_ptrace_freep) CapturePtrace *p = NULL;
        void *buffers;

        p = calloc(1, sizeof(*p));
        if (!p)
                return error_origin(-ENOMEM);
        list_init(&p->seized);
        p->failure_limit = (LogLimit)LOG_LIMIT_INIT;
        p->n_slots = n_slots;
        p->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (p->timer_fd < 0)
                return error_origin(-errno);
        p->slots = calloc(n_slots, sizeof(*p->slots));
        p->pythons = calloc(n_slots, sizeof(*p->pythons));
        p->follows = calloc(n_slots, sizeof(Follow *));
        if (!p->slots || !p->pythons || !p->follows)
                return error_origin(-ENOMEM);
        buffers = mmap(
                NULL, buffers_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (buffers == MAP_FAILED)
                return error_origin(-errno);
        p->buffers = buffers;
        *ret = TAKE_PTR(p);
        return 0;
}

struct swp_slot *capture_ptrace_slot(CapturePtrace *p, uint32_t slot)
{
        assert(slot < p->n_slots);
        return &p->slots[slot];
}

struct swp_python *capture_ptrace_python(CapturePtrace *p, uint32_t slot)
{
        assert(slot < p->n_slots);
        return &p->pythons[slot];
}

uint8_t *capture_ptrace_buffer(CapturePtrace *p, uint32_t buffer)
{
        assert(buffer < SWP_MAX_BUFFERS);
        return p->buffers[buffer].bytes;
}

int capture_ptrace_fd(const CapturePtrace *p)
{
        return p->timer_fd;
}

/* ---- threads that do not stop at once ---- */

static void set_timer(CapturePtrace *p, uint64_t period_ns)
{
        struct timespec t = {.tv_nsec = (long)period_ns};

        if (period_ns == p->timer_period_ns)
                return;
        p->timer_period_ns = period_ns;
        timerfd_settime(
                p->timer_fd, 0, &(struct itimerspec){.it_value = t, .it_interval = t}, NULL);
}

/* As in ps(1); 'X': there is no such thread any more. */
static char state_of(const Follow *f)
{
        ProcStatus status;

        /* The state is there even if the rest is not. */
        return proc_thread_read_status(&f->proc, &status) == -ESRCH ? 'X' : status.state;
}

static bool has_ended(const Follow *f)
{
        char state = state_of(f);

        return state == 'Z' || state == 'X';
}

static void follow_free(Follow *f)
{
        list_remove(&f->seized_link); /* it may have been found gone, and be there still */
        proc_thread_deinit(&f->proc);
        free(f);
}

static void keep_seized(CapturePtrace *p, Follow *f)
{
        if (!f->ended)
                set_timer(p, LET_GO_NS);
        else if (list_empty(&p->seized))
                set_timer(p, ENDED_NS);
        list_remove(&f->seized_link);
        list_append(&p->seized, &f->seized_link);
}

static void follow_resume(CapturePtrace *p, Follow *f)
{
        tracee_resume(&f->tracee);
        if (f->tracee.seized)
                keep_seized(p, f);
}

static void let_go(CapturePtrace *p)
{
        uint64_t period_ns = 0;
        Follow *f, *next;

        list_for_each_safe (f, next, &p->seized, seized_link) {
                if (f->asked_again && !f->left) {
                        f->asked_again = false;
                        period_ns = LET_GO_NS;
                        continue;
                }
                if (tracee_stop(&f->tracee, 0) == 0)
                        tracee_resume(&f->tracee);
                if (f->tracee.seized) {
                        f->ended = state_of(f) == 'Z';
                        if (!f->ended)
                                period_ns = LET_GO_NS;
                        else if (period_ns == 0)
                                period_ns = ENDED_NS;
                        continue;
                }
                list_remove(&f->seized_link);
                if (f->left)
                        follow_free(f);
        }
        set_timer(p, period_ns);
}

void capture_ptrace_let_go(CapturePtrace *p)
{
        uint64_t n;

        if (read(p->timer_fd, &n, sizeof(n)) == sizeof(n))
                let_go(p);
}

/* ---- captures ---- */

static bool place_equal(const ProcPlace *now, const ProcPlace *before)
{
        /* A call that was to end at some time goes on as another one. */
        return (now->syscall == before->syscall || now->syscall == SYS_restart_syscall) &&
               memcmp(now->args, before->args, sizeof(now->args)) == 0 && now->sp == before->sp &&
               now->pc == before->pc;
}

/* Whether the thread still, or again, has the stack of the newest copy. `run` was read before. */
static bool has_same_stack(CapturePtrace *p, Follow *f, const ProcRun *run)
{
        uint8_t *bytes = p->buffers[SWP_MAX_BUFFERS].bytes;
        ProcPlace place;
        ProcRun after;
        uint64_t hash;
        size_t n;

        if (run->n_runs == 0 || f->n == 0)
                return false;
        if (run->n_runs == f->asleep_n_runs)
                return true;
        if (!proc_thread_read_place(&f->proc, &place) || !place_equal(&place, &f->place))
                return false;
        n = proc_thread_copy(&f->proc, place.sp, f->n, bytes);
        hash = hash_bytes(bytes, n);
        explicit_bzero(bytes, n);
        /* It was asleep before the bytes were read: if it has not been given a CPU since, they are
         * of one instant. */
        if (n != f->n || hash != f->hash || proc_thread_read_run(&f->proc, &after) ||
                after.n_runs != run->n_runs)
                return false;
        f->asleep_n_runs = run->n_runs;
        return true;
}

static void answer_run(struct swp_slot *s, const ProcRun *run)
{
        s->mono_ns = mono_now_ns();
        s->runtime_ns = run->runtime_ns;
        s->run_delay_ns = run->run_delay_ns;
        s->switches = run->n_runs;
}

static bool read_words(Follow *f, uint64_t addr, void *dst, size_t n)
{
        return proc_thread_copy(&f->proc, addr, n, dst) == n;
}

/* As bpf/capture.bpf.c does it. */
static void find_goroutine(Follow *f, struct swp_slot *s)
{
        uint64_t g, m, vdso_sp = 0, begin = 0, bounds[2], sched[2], sp = s->regs[X86_RSP];

        if (!read_words(f, s->fsbase + (uint64_t)s->go.g, &g, sizeof(g)) ||
                !read_words(f, g + s->go.m, &m, sizeof(m)) ||
                !read_words(f, m + s->go.curg, &g, sizeof(g)))
                return;
        if (g == 0)
                s->go_sp = GO_SP_NONE;
        if (g == 0 || !read_words(f, g, bounds, sizeof(bounds)) ||
                (sp >= bounds[0] && sp < bounds[1]) ||
                !read_words(f, g + s->go.sched, sched, sizeof(sched)) ||
                (s->go.vdso_sp && !read_words(f, m + s->go.vdso_sp, &vdso_sp, sizeof(vdso_sp))))
                return;
        if (sched[0] >= bounds[0] && sched[0] < bounds[1]) {
                s->go_sp = begin = sched[0];
                s->go_pc = sched[1];
        }
        if (vdso_sp >= bounds[0] && vdso_sp < bounds[1] && (begin == 0 || vdso_sp < begin))
                begin = vdso_sp;
        if (begin == 0)
                return;
        s->other_begin = begin - bounds[0] < SWP_RED_ZONE ? bounds[0] : begin - SWP_RED_ZONE;
        s->other_end = bounds[1];
}

static void copy_other(Follow *f, struct swp_slot *s, uint8_t *buffer)
{
        size_t n = SWP_OTHER_BYTES;

        if (s->other_begin && s->other_end > s->other_begin) {
                if (n > s->other_end - s->other_begin)
                        n = s->other_end - s->other_begin;
                s->other_copied = (uint32_t)proc_thread_copy(
                        &f->proc, s->other_begin, n, buffer + SWP_OTHER_AT);
        }
        if (s->flags & SWP_F_CODE)
                s->code_copied =
                        proc_thread_copy(&f->proc, s->regs[X86_RIP], SWP_CODE_BYTES, s->code);
}

/* The thread stands. */
static uint32_t copy_stopped(CapturePtrace *p, Follow *f, struct swp_slot *s)
{
        uint8_t *buffer = capture_ptrace_buffer(p, s->buffer);
        uint64_t sp, red_zone = SWP_RED_ZONE, want;
        ProcStatus status;
        TraceeRegs regs;
        ProcRun run;
        int r;

        /* The files are of the thread that was asked for; another one with its number may stand. */
        r = proc_thread_read_run(&f->proc, &run);
        if (r == -ESRCH || !proc_thread_has_memory(&f->proc))
                return SWP_GONE;
        if (r || !tracee_read_regs(&f->tracee, &regs) || proc_thread_read_status(&f->proc, &status))
                return SWP_FAULT;
        answer_run(s, &run);
        memcpy(s->regs, regs.regs.r, sizeof(s->regs));
        s->fsbase = regs.fsbase;
        s->orig_ax = (uint64_t)regs.syscall;
        /* One that waits outside of calls is in a page fault, or stopped: not told apart. */
        s->state = f->waits && regs.syscall >= 0;
        s->exec_vm = status.exec_vm;
        sp = regs.regs.r[X86_RSP];
        f->n = 0;
        f->asleep_n_runs = 0;
        s->other_begin = s->other_addr;
        s->other_end = UINT64_MAX;
        s->go_sp = s->go_pc = 0;
        if (!s->other_addr && s->go.m)
                find_goroutine(f, s);
        want = s->other_begin ? SWP_OTHER_AT : SWP_STACK_BYTES;
        want = s->want < want ? s->want : want;
        s->copied = (uint32_t)proc_thread_copy(&f->proc, sp - red_zone, want, buffer);
        if (s->copied <= red_zone) {
                /* Whoever gets a copy zeroes as much as it is long: this next one may be shorter. */
                explicit_bzero(buffer, s->copied);
                red_zone = 0;
                s->copied = (uint32_t)proc_thread_copy(&f->proc, sp, want, buffer);
        }
        s->copy_addr = sp - red_zone;
        s->mm = f->proc.mm;
        s->process_start_boottime = f->proc.process_start_boottime;
        if (s->copied == 0)
                return SWP_FAULT;
        copy_other(f, s, buffer);
        f->place = (ProcPlace){.syscall = regs.syscall, .sp = sp, .pc = regs.regs.r[X86_RIP]};
        memcpy(f->place.args, regs.args, sizeof(f->place.args));
        if (s->flags & SWP_F_PYTHON)
                python_walk(&f->proc, s->fsbase, &p->pythons[s - p->slots],
                        &p->buffers[s->buffer].python);
        /* The other stack is not looked at when it is asked whether all is the same. */
        f->n = s->other_copied ? 0 : s->copied - red_zone;
        f->hash = hash_bytes(buffer + red_zone, f->n);
        return SWP_COPIED;
}

static bool waits(const Follow *f)
{
        char state = state_of(f);

        return state == 'S' || state == 'D';
}

static void log_failure(CapturePtrace *p, const Follow *f, int error)
{
        unsigned n;

        if (log_limit(&p->failure_limit, &n))
                log_warning("thread %d of process %d cannot be stopped: %s (%u more such)",
                        (int)f->proc.tid, (int)f->proc.pid, strerror(error), n);
}

static uint32_t pull(CapturePtrace *p, Follow *f, struct swp_slot *s)
{
        uint32_t status;
        ProcRun run;
        int r;

        s->shot = 0;
        s->copied = s->other_copied = 0;
        s->code_copied = 0;
        s->n_kstack = 0;
        s->ustack_id = s->kstack_id = -1;
        s->process_start_boottime = f->proc.process_start_boottime;
        s->mm = f->proc.mm;
        if (proc_thread_read_run(&f->proc, &run))
                return SWP_GONE;
        answer_run(s, &run);
        /* No number is that high: the caller has forgotten the newest copy. */
        if (!f->tracee.seized && s->known_switches != UINT64_MAX && has_same_stack(p, f, &run))
                return SWP_UNCHANGED;
        /* What it does after an exec has nothing to do with what it did. */
        if (!f->tracee.seized && !proc_thread_has_memory(&f->proc))
                return SWP_GONE;
        if (s->buffer == SWP_NO_BUFFER)
                return has_ended(f) ? SWP_GONE : SWP_NO_ROOM;

        if (!f->tracee.seized)
                f->waits = waits(f);
        /* One that did not stop at once is looked at again only. */
        r = tracee_stop(&f->tracee, f->tracee.seized ? 0 : STOP_WAIT_NS);
        if (r == TRACEE_E_DENIED)
                return has_ended(f) ? SWP_GONE : SWP_DENIED;
        if (r < 0) {
                log_failure(p, f, -r);
                return SWP_FAULT;
        }
        if (r) {
                f->ended = state_of(f) == 'Z';
                f->asked_again = !f->ended;
                if (f->tracee.seized)
                        keep_seized(p, f);
                return r == TRACEE_E_GONE || has_ended(f) ? SWP_GONE : SWP_UNSTABLE;
        }
        list_remove(&f->seized_link);
        status = copy_stopped(p, f, s);
        follow_resume(p, f);
        return status;
}

void capture_ptrace_pull(CapturePtrace *p, uint32_t slot)
{
        struct swp_slot *s = capture_ptrace_slot(p, slot);

        s->status = p->follows[slot] ? pull(p, p->follows[slot], s) : (uint32_t)SWP_GONE;
        s->answered = s->request;
}

/* ---- threads come and go ---- */

int capture_ptrace_follow(CapturePtrace *p, uint32_t slot, pid_t pid, pid_t tid)
{
        Follow *f;
        int r;

        assert(slot < p->n_slots && !p->follows[slot]);

        f = calloc(1, sizeof(*f));
        if (!f)
                return error_origin(-ENOMEM);
        r = proc_thread_init(&f->proc, pid, tid);
        if (r) {
                free(f);
                return error_trace(r);
        }
        f->tracee = (Tracee)TRACEE_INIT(pid, tid);
        list_init(&f->seized_link);
        p->follows[slot] = f;
        return 0;
}

void capture_ptrace_leave(CapturePtrace *p, uint32_t slot)
{
        Follow *f = p->follows[slot];

        if (!f)
                return;
        p->follows[slot] = NULL;
        f->left = true;
        if (f->tracee.seized)
                let_go(p); /* frees it, if it stands by now */
        else
                follow_free(f);
}

CapturePtrace *capture_ptrace_free(CapturePtrace *p)
{
        Follow *f, *next;

        if (!p)
                return NULL;
        if (p->follows)
                for (unsigned i = 0; i < p->n_slots; i++)
                        capture_ptrace_leave(p, i);
        let_go(p);
        list_for_each_safe (f, next, &p->seized, seized_link)
                follow_free(f);
        if (p->buffers)
                munmap(p->buffers, buffers_size());
        closep(&p->timer_fd);
        free(p->follows);
        free(p->pythons);
        free(p->slots);
        free(p);
        return NULL;
}
