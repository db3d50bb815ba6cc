/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "capture/capture-private.h"
#include "util/time.h"

/* The kernel counts what a running thread has used at each tick (CONFIG_HZ is 100 at least). */
#define TICK_MAX_NS (10 * NS_PER_MS)
/* From the end of a turn until its thread is queued; interrupts count for no turn. */
#define PREEMPTED_NS (20 * NS_PER_US)

/* The lists of program counters of a shot. Return: whether they belong to it without a doubt. */
static bool result_fill_shot(CaptureThread *t, CaptureResult *r)
{
        Capture *c = t->capture;
        struct swp_slot *s = t->shared;
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
        case SWP_DENIED:
                return CAPTURE_DENIED;
        default:
                return CAPTURE_UNSTABLE;
        }
}

uint64_t thread_run_delay_ns(const CaptureThread *t)
{
        const struct swp_slot *s = t->shared;
        uint64_t since = 0;

        if (s->queued_sched_ns && !s->shot)
                since = sched_clock_mono_ns(
                        &t->capture->sched_clock, s->queued_sched_ns, s->mono_ns);
        return s->run_delay_ns + (since ? s->mono_ns - since : 0);
}

/*
 * When the wait was over in which the last capture met the thread; 0: not known. It has blocked at
 * most once since, now. As long as it came onto a CPU just once, it came then. Else it was
 * preempted, and all that is known is when it woke up: what has passed since went to running and to
 * wanting to.
 */
static uint64_t wait_end(
        const CaptureThread *t, bool on_cpu, uint64_t came_mono_ns, const CaptureResult *r)
{
        const struct swp_slot *s = t->shared;
        uint64_t until = r->blocked ? r->waits_since_mono_ns : r->mono_ns;

        if (!t->known_waits || s->voluntary != t->known_voluntary + r->blocked)
                return 0;
        if (s->switches == t->known_switches + !on_cpu)
                return came_mono_ns;
        if (until == 0)
                return 0;
        return until - (r->runtime_ns - t->known_runtime_ns) -
               (r->run_delay_ns - t->known_run_delay_ns);
}

/* One that has not blocked since the last capture was preempted. Else: that is queued as soon as its
 * turn ends, one that was woken up some time later. */
static uint64_t ran_until(const CaptureThread *t)
{
        const struct swp_slot *s = t->shared;
        uint64_t end_sched_ns = s->arrival_sched_ns + s->turn_ns;

        if (s->voluntary != t->known_voluntary && end_sched_ns + PREEMPTED_NS < s->queued_sched_ns)
                return 0;
        return sched_clock_mono_ns(&t->capture->sched_clock, s->queued_sched_ns, s->mono_ns);
}

void result_fill_turn(const CaptureThread *t, bool on_cpu, CaptureResult *r)
{
        const SchedClock *clock = &t->capture->sched_clock;
        const struct swp_slot *s = t->shared;
        uint64_t came = sched_clock_mono_ns(clock, s->arrival_sched_ns, s->mono_ns);
        uint64_t turn_ns = s->mono_ns - came; /* with what followed it */

        if (came == 0)
                return;
        if (on_cpu && turn_ns > s->turn_ns)
                r->runtime_ns +=
                        turn_ns - s->turn_ns < TICK_MAX_NS ? turn_ns - s->turn_ns : TICK_MAX_NS;
        /* Of threads that other classes schedule than the fair one the kernel does not keep it. */
        if (r->blocked && s->turn_ns < turn_ns + NS_PER_MS)
                r->waits_since_mono_ns =
                        sched_clock_mono_ns(clock, s->arrival_sched_ns + s->turn_ns, s->mono_ns);
        r->waited_until_mono_ns = wait_end(t, on_cpu, came, r);
}

/* With the copy of the stack. */
static void result_fill_python(const CaptureThread *t, CaptureResult *r)
{
        const struct swp_python *p = t->python;

        if (!(t->shared->flags & SWP_F_PYTHON) || t->buffer == SWP_NO_BUFFER)
                return;
        r->has_python = true;
        r->python_status = p->status;
        r->python_searched = p->searched;
        r->n_python = p->n_frames < SWP_MAX_PYTHON ? p->n_frames : SWP_MAX_PYTHON;
        r->python = thread_python_walk(t)->frames;
}

/* The rest of one that is TAKEN. */
static void result_fill_taken(CaptureThread *t, CaptureResult *r)
{
        struct swp_slot *s = t->shared;

        r->shot = s->shot;
        r->space = (CaptureSpace){.exec_vm = s->exec_vm,
                .mm = s->mm,
                .process_start_boottime = s->process_start_boottime};
        r->fsbase = s->fsbase;
        r->syscall = (int64_t)s->orig_ax;
        r->blocked = !s->shot && s->state != 0;
        r->queued = !s->shot && s->queued_sched_ns != 0;
        if (r->queued)
                r->ran_until_mono_ns = ran_until(t);
        r->kernel_pcs = (const uint64_t *)s->kstack; /* __u64 is another type of the same size */
        memcpy(r->copy.regs.r, s->regs, sizeof(r->copy.regs.r));
        r->copy.addr = s->copy_addr;
        if (s->shot && !result_fill_shot(t, r)) {
                r->status = CAPTURE_UNSTABLE;
                return;
        }
        if (!s->shot)
                r->n_kernel_pcs = s->n_kstack < SWP_MAX_KSTACK ? s->n_kstack : SWP_MAX_KSTACK;
        if (t->buffer != SWP_NO_BUFFER && !r->pcs_only) {
                r->copy.bytes = thread_buffer(t);
                r->copy.n = s->copied < SWP_STACK_BYTES ? s->copied : SWP_STACK_BYTES;
                r->copy.other_addr = s->other_begin;
                r->copy.other_n =
                        s->other_copied < SWP_OTHER_BYTES ? s->other_copied : SWP_OTHER_BYTES;
                r->copy.other_bytes = r->copy.bytes + SWP_OTHER_AT;
                r->copy.go_sp = s->go_sp;
                r->copy.go_pc = s->go_pc;
                r->copy.code = s->code;
                r->copy.n_code = s->code_copied < SWP_CODE_BYTES ? s->code_copied : SWP_CODE_BYTES;
        }
        result_fill_python(t, r);
        result_fill_turn(t, s->shot, r);
        t->known_switches = s->shot ? NOT_KNOWN : s->switches;
        t->known_waits = r->blocked;
        t->known_voluntary = s->voluntary;
        t->known_runtime_ns = r->runtime_ns;
        t->known_run_delay_ns = r->run_delay_ns;
}

void thread_result(CaptureThread *t, CaptureResult *ret)
{
        const struct swp_slot *s = t->shared;

        *ret = (CaptureResult){
                .status = status_of(s->status),
                .mono_ns = s->mono_ns,
                .runtime_ns = s->runtime_ns,
                .run_delay_ns = thread_run_delay_ns(t),
        };

        if (s->puller_sched_ns && !s->shot)
                sched_clock_note(&t->capture->sched_clock, s->mono_ns, s->puller_sched_ns);
        if (ret->status == CAPTURE_TAKEN)
                result_fill_taken(t, ret);
        if (!ret->copy.bytes && !ret->has_python)
                thread_drop_buffer(t);
}
