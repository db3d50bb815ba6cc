/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/counter.h"
#include "manager/sampler-private.h"
#include "symbol/wait.h"
#include "unwind/unwind.h"
#include "util/error.h"

/* A process' map outlives its last target so long: the next request is mostly near. */
#define KEEP_NS (30 * NS_PER_S)
/* The first capture of a thread lacks the frames of Python unless it was known that it runs some. */
#define KEEP_PYTHON_NS (600 * NS_PER_S)

/* Captures tell when code comes or goes, but not when between two of them as much comes as goes: a
 * plugin that is loaded anew. So maps are read anew after that long. */
#define REFRESH_NS (500 * NS_PER_MS)

/* Rules may name what lies a little above the frames. */
#define END_MARGIN 256

#define MAX_PARKED       256
#define MAX_PARKED_BYTES (8U << 20)
#define MAX_KERNEL_PCS   32

/* A capture that waits for a map, with bytes of its own. Its sample is out, its stack is owed. */
typedef struct Parked {
        ListLink link;
        uint64_t ticket; /* maps with a lesser one were asked for before the capture: too old to
                            tell anything */
        TargetId target;
        uint64_t stack_id;
        EventNode *node;
        StackCopy copy; /* without bytes: */
        size_t n;       /* in all */
        bool pcs_only, pcs_cut;
        bool blocked, queued, blocked_on;
        int64_t syscall;
        size_t n_kernel_pcs;
        uint64_t kernel_pcs[MAX_KERNEL_PCS];
        bool has_python;
        enum swp_python_status python_status;
        bool python_searched;
        size_t n_python;
        struct swp_python_frame *python; /* behind the bytes */
        uint64_t bytes[]; /* of the stack, the other one and the code, or pcs_only: the pcs */
} Parked;

/* ---- unwinding ---- */

static Frame frame_of(FrameKind kind, uint64_t pc)
{
        return (Frame){.pc = pc, .vaddr = pc, .kind = kind};
}

/* Into s->frames: what it waits for innermost, then kernel frames, then the user's. */
static UnwindResult unwind(Process *p, const CaptureResult *c, const ProcMap *map, bool blocked_on)
{
        Sampler *s = p->sampler;
        const uint64_t *regs = c->copy.regs.r;
        size_t n_inner = 0;
        Frame *frames;
        UnwindResult u;

        if (blocked_on && (c->blocked || c->queued))
                s->frames[n_inner++] = frame_of(FRAME_WAIT,
                        wait_code(c->blocked, c->syscall, regs[X86_RDI], regs[X86_RSI]));
        for (size_t i = 0; i < c->n_kernel_pcs; i++)
                s->frames[n_inner++] = frame_of(FRAME_KERNEL, c->kernel_pcs[i]);
        frames = s->frames + n_inner;
        if (c->pcs_only)
                u = unwind_pcs(c->pcs, c->n_pcs, map, frames, SAMPLER_MAX_FRAMES - n_inner);
        else if (s->unwind_mode == UNWIND_MODE_FP)
                u = unwind_fp(&c->copy, map, frames, SAMPLER_MAX_FRAMES - n_inner);
        else
                u = unwind_cfi(&c->copy, map, frames, SAMPLER_MAX_FRAMES - n_inner);
        /* What the kernel cut off would be the outermost frames. */
        if (c->pcs_only && c->pcs_cut && u.status == UNWIND_DONE)
                u.status = UNWIND_TOO_DEEP;
        u.n_frames += n_inner;
        process_add_python(p, c, n_inner, &u);
        return u;
}

static void count_unwound(UnwindStatus status)
{
        static const CounterId counters[] = {
                [UNWIND_DONE] = COUNTER_STACKS_UNWOUND,
                [UNWIND_TRUNCATED] = COUNTER_STACKS_TRUNCATED,
                [UNWIND_OTHER_STACK] = COUNTER_STACKS_TRUNCATED,
                [UNWIND_NO_MAPPING] = COUNTER_STACKS_NO_MAPPING,
                [UNWIND_UNREAD] = COUNTER_STACKS_NO_CFI,
                [UNWIND_NO_CFI] = COUNTER_STACKS_NO_CFI,
                [UNWIND_BROKEN] = COUNTER_STACKS_BROKEN,
                [UNWIND_TOO_DEEP] = COUNTER_STACKS_TRUNCATED,
                [UNWIND_NO_PYTHON] = COUNTER_STACKS_NO_PYTHON,
                [UNWIND_PYTHON_MISMATCH] = COUNTER_STACKS_PYTHON_MISMATCH,
        };

        counter_add(counters[status], 1);
}

/* Whether a handler runs on a stack of its own, and what it interrupted is to be copied, may change
 * with each sample. */
static void want_other(Target *t, const ProcMap *map, const UnwindResult *u)
{
        target_set_map(t, map);
        if (u->status == UNWIND_OTHER_STACK)
                capture_thread_set_other(t->thread, u->need_addr);
        else if (!u->other)
                capture_thread_set_other(t->thread, 0);
}

static bool is_without_python(const UnwindResult *u)
{
        return u->status == UNWIND_NO_PYTHON || u->status == UNWIND_PYTHON_MISMATCH ||
               u->python_doubtful;
}

/* The thread runs Python that its capture did not show, or not all: states come and go. */
static void want_python(Target *t)
{
        capture_thread_find_python(t->thread);
        capture_thread_forget(t->thread);
}

/* The root of a thread is where it is; that of a coroutine may be elsewhere. */
static void want_end(Target *t, const CaptureResult *c, const UnwindResult *u)
{
        bool shorter = u->status == UNWIND_TRUNCATED && c->copy.n < t->sampler->max_stack_bytes;

        t->end_moves |= shorter;
        capture_thread_set_end(
                t->thread, u->status == UNWIND_DONE && !u->moved && !c->pcs_only && !t->end_moves
                                   ? u->need_end + END_MARGIN
                                   : 0);
}

/* ---- parked captures ---- */

static size_t parked_size(const Parked *k)
{
        return sizeof(*k) + (k->n + 7) / 8 * 8 + k->n_python * sizeof(*k->python);
}

static void parked_free(Sampler *s, Parked *k)
{
        list_remove(&k->link);
        s->n_parked--;
        s->parked_bytes -= parked_size(k);
        free(k->node);
        explicit_bzero(k, parked_size(k));
        free(k);
}

static SampleFate park(
        Process *p, Target *t, const CaptureResult *c, const SampleTime *time, bool want_full)
{
        Sampler *s = p->sampler;
        const void *bytes = c->pcs_only ? (const void *)c->pcs : c->copy.bytes;
        size_t n_own = c->pcs_only ? c->n_pcs * sizeof(*c->pcs) : c->copy.n;
        size_t n_other = c->pcs_only ? 0 : c->copy.other_n;
        size_t n_code = c->pcs_only ? 0 : c->copy.n_code, n = n_own + n_other + n_code;
        size_t size = parked_size(&(Parked){.n = n, .n_python = c->n_python});
        Parked *k = NULL;

        if (s->n_parked < MAX_PARKED && s->parked_bytes + size <= MAX_PARKED_BYTES)
                k = malloc(size);
        if (k)
                *k = (Parked){
                        .link = LIST_INIT(k->link),
                        .target = t->id,
                        .stack_id = s->last_stack_id + 1,
                        .node = calloc(1, sizeof(*k->node)),
                        .copy = c->copy,
                        .n = n,
                        .pcs_only = c->pcs_only,
                        .pcs_cut = c->pcs_cut,
                        .blocked = c->blocked,
                        .queued = c->queued,
                        .blocked_on = t->blocked_on,
                        .syscall = c->syscall,
                        .has_python = c->has_python,
                        .python_status = c->python_status,
                        .python_searched = c->python_searched,
                        .n_python = c->n_python,
                        .python = (struct swp_python_frame *)(k->bytes + (n + 7) / 8),
                        .n_kernel_pcs =
                                c->n_kernel_pcs < MAX_KERNEL_PCS ? c->n_kernel_pcs : MAX_KERNEL_PCS,
                };
        if (!k || !k->node) {
                free(k);
                counter_add(COUNTER_SAMPLES_QUEUE_FULL, 1);
                return SAMPLE_LOST;
        }
        if (!sampler_emit_sample(s, t, time, k->stack_id)) {
                free(k->node);
                free(k);
                return SAMPLE_LOST;
        }
        s->last_stack_id++;
        memcpy(k->bytes, bytes, n_own);
        if (n_other > 0)
                memcpy((uint8_t *)k->bytes + n_own, c->copy.other_bytes, n_other);
        if (n_code > 0)
                memcpy((uint8_t *)k->bytes + n_own + n_other, c->copy.code, n_code);
        if (k->n_python > 0)
                memcpy(k->python, c->python, k->n_python * sizeof(*k->python));
        memcpy(k->kernel_pcs, c->kernel_pcs, k->n_kernel_pcs * sizeof(*k->kernel_pcs));
        s->n_parked++;
        s->parked_bytes += parked_size(k);
        list_append(&p->parked, &k->link);
        k->ticket = process_want_map(p, want_full);
        target_forget_stack(t);
        return SAMPLE_DONE;
}

/* With a map that is newer than the capture; NULL: there is none to be had. `full`: no table of it is
 * lazy. */
static void unpark(Process *p, Parked *k, ProcMap *map, bool full)
{
        Sampler *s = p->sampler;
        Target *t = target_find(s, k->target);
        UnwindResult u = {.status = UNWIND_NO_MAPPING};
        CaptureResult c = {
                .copy = k->copy,
                .pcs_only = k->pcs_only,
                .pcs_cut = k->pcs_cut,
                .blocked = k->blocked,
                .queued = k->queued,
                .syscall = k->syscall,
                .n_pcs = k->n / sizeof(*c.pcs),
                .pcs = k->bytes,
                .n_kernel_pcs = k->n_kernel_pcs,
                .kernel_pcs = k->kernel_pcs,
                .has_python = k->has_python,
                .python_status = k->python_status,
                .python_searched = k->python_searched,
                .n_python = k->n_python,
                .python = k->python,
        };

        c.copy.bytes = (const uint8_t *)k->bytes;
        c.copy.other_bytes = c.copy.bytes + c.copy.n;
        c.copy.code = c.copy.other_bytes + c.copy.other_n;
        if (map)
                u = unwind(p, &c, map, k->blocked_on);
        if (u.status == UNWIND_UNREAD && !full) {
                k->ticket = process_want_map(p, true);
                return;
        }
        count_unwound(u.status);
        if (u.status == UNWIND_DONE && t && t->stack_id == k->stack_id)
                target_set_stack(t, map, u.n_frames);
        if (u.status == UNWIND_DONE && t && t->thread)
                target_size(t);
        if (map && t && t->thread) {
                want_other(t, map, &u);
                if (u.status == UNWIND_OTHER_STACK)
                        capture_thread_forget(t->thread);
        }
        if (is_without_python(&u) && t && t->thread)
                want_python(t);
        /* A sleeping thread would repeat the stack that could not be had. */
        if (u.status == UNWIND_TRUNCATED && t && t->thread &&
                target_grow(t, u.need_end - k->copy.addr))
                capture_thread_forget(t->thread);
        sampler_emit_stack(s, TAKE_PTR(k->node), k->target, k->stack_id,
                u.status == UNWIND_DONE ? map : NULL, p->codes, u.n_frames);
        parked_free(s, k);
}

/* ---- samples ---- */

static SampleFate announce(Process *p, Target *t, const CaptureResult *c, const SampleTime *time,
        const UnwindResult *u)
{
        Sampler *s = p->sampler;
        bool done = u->status == UNWIND_DONE, begun = false;
        uint64_t stack_id;

        count_unwound(u->status);
        if (c->shot)
                want_end(t, c, u);
        if (done && target_has_stack(t, p->map, u->n_frames))
                return sampler_emit_sample(s, t, time, t->stack_id) ? SAMPLE_DONE : SAMPLE_LOST;
        stack_id = ++s->last_stack_id;
        /* The first sample comes right after the thread was named; it may wait for long already. */
        if (t->stack_id) {
                target_add_edge(t, t->waited_until_mono_ns, time->mono_ns, t->stack_id);
                begun = done && target_add_edge(t, c->waits_since_mono_ns, time->mono_ns, stack_id);
        }
        if (!sampler_emit_sample(s, t, time, stack_id) && !begun)
                return SAMPLE_LOST;
        if (done)
                target_set_stack(t, p->map, u->n_frames);
        else
                target_forget_stack(t);
        sampler_emit_stack(s, NULL, t->id, stack_id, done ? p->map : NULL, p->codes, u->n_frames);
        return SAMPLE_DONE;
}

SampleFate process_take_sample(
        Process *p, Target *t, const CaptureResult *result, const SampleTime *time)
{
        UnwindResult u;

        p->space = result->space;
        if (!p->map || !capture_space_equal(&p->space, &p->map_space))
                return park(p, t, result, time, false);
        if (!p->load_ticket && time->capture_mono_ns > p->map_mono_ns + REFRESH_NS)
                process_want_map(p, false);
        u = unwind(p, result, p->map, t->blocked_on);
        if (u.status == UNWIND_NO_MAPPING || u.status == UNWIND_UNREAD)
                return park(p, t, result, time, u.status == UNWIND_UNREAD);
        want_other(t, p->map, &u);
        if (u.status == UNWIND_OTHER_STACK && !result->shot && !t->other_asked) {
                t->other_asked = true;
                return SAMPLE_LARGER;
        }
        if (is_without_python(&u)) {
                want_python(t);
                if (!result->shot && !t->python_asked) {
                        t->python_asked = true;
                        return SAMPLE_LARGER;
                }
        }
        if (u.status == UNWIND_TRUNCATED) {
                /* A copy that is shorter than it was to be ends with its mapping, or at a page that
                 * cannot be read. */
                bool larger = result->copy.n >= capture_thread_want(t->thread) &&
                              target_grow(t, u.need_end - result->copy.addr);

                if (larger && !result->shot)
                        return SAMPLE_LARGER;
        }
        return announce(p, t, result, time, &u);
}

/* ---- maps ---- */

static void send_load(Process *p)
{
        Sampler *s = p->sampler;
        bool sent = worker_load(s->worker, p->pid, p->load_wanted_full, s->last_ticket + 1) == 0;

        if (sent) {
                p->load_ticket = ++s->last_ticket;
                p->load_space = p->space;
                p->load_mono_ns = mono_now_ns();
                p->load_full = p->load_wanted_full;
                p->load_wanted = p->load_wanted_full = false;
        }
        if (p->load_unsent == sent) {
                p->load_unsent = !sent;
                s->n_loads_unsent += sent ? -1U : 1U;
        }
}

uint64_t process_want_map(Process *p, bool full)
{
        uint64_t ticket = p->sampler->last_ticket + 1;

        p->load_wanted = true;
        p->load_wanted_full |= full;
        if (!p->load_ticket)
                send_load(p);
        return ticket;
}

void processes_send_loads(Sampler *s)
{
        Process *p;

        if (s->n_loads_unsent == 0)
                return;
        list_for_each (p, &s->process_list, link)
                if (p->load_unsent)
                        send_load(p);
}

static Process *process_find(Sampler *s, pid_t pid)
{
        for (HashLink *l = hash_table_find(&s->processes, hash_u64((uint64_t)pid)); l;
                l = hash_link_next(l)) {
                Process *p = container_of(l, Process, by_pid);

                if (p->pid == pid)
                        return p;
        }
        return NULL;
}

void process_take_map(Sampler *s, const WorkerMap *answer)
{
        Process *p = process_find(s, answer->pid);
        Parked *k, *next_parked;
        ProcMap *map = answer->map;
        bool full;

        if (answer->early) {
                if (p && p->load_ticket == answer->ticket && !p->map)
                        process_expect_python(p, &answer->python);
                return;
        }
        if (!p || p->load_ticket != answer->ticket) {
                procmap_unref(map);
                return;
        }
        p->load_ticket = 0;
        full = p->load_full;
        p->map_mono_ns = p->load_mono_ns;
        if (map) {
                /* The same one: newest stacks that were unwound with it can be compared still. */
                if (p->map && procmap_same_code(p->map, map))
                        map = procmap_ref(p->map);
                else
                        procmap_ref(map);
                procmap_unref(answer->map);
                procmap_unref(p->map);
                p->map = map;
                p->map_space = p->load_space;
                process_find_python(p);
        }
        list_for_each_safe (k, next_parked, &p->parked, link)
                if (k->ticket <= answer->ticket)
                        unpark(p, k, map, full);
        if (p->load_wanted && !p->load_ticket)
                send_load(p);
}

/* ---- a process' life ---- */

Process *process_get(Sampler *s, pid_t pid)
{
        Process *p = process_find(s, pid);

        if (p)
                return p;
        p = calloc(1, sizeof(*p));
        if (!p)
                return NULL;
        p->sampler = s;
        p->pid = pid;
        list_init(&p->targets);
        list_init(&p->parked);
        if (hash_table_add(&s->processes, &p->by_pid, hash_u64((uint64_t)pid)) < 0) {
                free(p);
                return NULL;
        }
        list_append(&s->process_list, &p->link);
        return p;
}

void process_prepare(Sampler *s, pid_t pid, uint64_t now_mono_ns)
{
        Process *p = process_get(s, pid);

        if (!p)
                return;
        if (list_empty(&p->targets))
                p->unused_since_mono_ns = now_mono_ns;
        if (!p->map)
                process_want_map(p, false);
}

static void process_free(Process *p)
{
        Sampler *s = p->sampler;
        Parked *k, *tmp;

        list_for_each_safe (k, tmp, &p->parked, link)
                parked_free(s, k);
        if (p->load_unsent)
                s->n_loads_unsent--;
        hash_table_remove(&s->processes, &p->by_pid);
        list_remove(&p->link);
        procmap_unref(p->map);
        cpython_codes_unref(p->codes);
        free(p);
}

void process_add_target(Process *p, Target *t)
{
        t->process = p;
        list_append(&p->targets, &t->process_link);
}

void process_remove_target(Process *p, Target *t, uint64_t now_mono_ns)
{
        list_remove(&t->process_link);
        if (list_empty(&p->targets))
                p->unused_since_mono_ns = now_mono_ns;
}

void processes_expire(Sampler *s, uint64_t now_mono_ns)
{
        Process *p, *tmp;

        list_for_each_safe (p, tmp, &s->process_list, link)
                if (list_empty(&p->targets) && list_empty(&p->parked) && !p->load_ticket &&
                        now_mono_ns - p->unused_since_mono_ns >=
                                (p->python ? KEEP_PYTHON_NS : KEEP_NS))
                        process_free(p);
}

void processes_free(Sampler *s)
{
        Process *p, *tmp;

        list_for_each_safe (p, tmp, &s->process_list, link)
                process_free(p);
}
