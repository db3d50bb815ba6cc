/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * Reads registers, counters and the stack's bytes of threads that the daemon names, and nothing
 * else. Three programs answer the same request (struct swp_slot):
 *
 *   pull_syscall  all threads of the work list in one call (needs the kfunc bpf_task_from_pid)
 *   pull_iter     the one thread that the task iterator was attached to
 *   shot          the running thread, in an interrupt that a one-shot perf event of that thread
 * raised
 *
 * None is attached to anything that the rest of the host passes through.
 */

#include <linux/bpf.h>

#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel-min.h"
#include "swprof-abi.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PAGE_BYTES 4096U
#define USER32_CS  0x23U /* code segment of 32-bit threads (__USER32_CS) */
#define EBUSY      16

/* Flags of mappings (include/linux/mm.h): page faults are handed to a userfaultfd. */
#define VM_UFFD_MISSING 0x200UL
#define VM_UFFD_WP      0x1000UL

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;

/* The loader sets the real sizes. */
struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, SWP_MAX_SLOTS);
        __type(key, __u32);
        __type(value, struct swp_slot);
} slots SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, SWP_MAX_SLOTS);
        __type(key, __u32);
        __type(value, struct swp_python);
} pythons SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, SWP_MAX_BUFFERS);
        __type(key, __u32);
        __type(value, struct swp_buffer);
} buffers SEC(".maps");

/* Slots to pull, in order. An mmap-able array's elements are multiples of 8 bytes. */
struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, SWP_MAX_SLOTS);
        __type(key, __u32);
        __type(value, __u64);
} work SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, 128 * 1024);
} events SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_STACK_TRACE);
        __uint(max_entries, 4096);
        __uint(key_size, sizeof(__u32));
        __uint(value_size, SWP_MAX_USTACK * sizeof(__u64));
} stacks SEC(".maps");

/* The slot that the iterator's thread belongs to. */
__u32 iter_slot;

/* The daemon looks at `answered` first: all else has to be there by then. */
static __always_inline void answer(struct swp_slot *s, __u32 status)
{
        s->status = status;
        barrier();
        *(volatile __u32 *)&s->answered = s->request;
}

static __always_inline __u32 task_on_cpu(struct task_struct *t)
{
        return BPF_CORE_READ_BITFIELD(t, on_cpu);
}

static __always_inline __u64 task_switches(struct task_struct *t)
{
        return t->nvcsw + t->nivcsw;
}

static __always_inline void fill_turn(struct swp_slot *s, struct task_struct *t)
{
        s->voluntary = t->nvcsw;
        s->arrival_sched_ns = t->sched_info.last_arrival;
        s->turn_ns = t->se.sum_exec_runtime - t->se.prev_sum_exec_runtime;
}

/* What changes while a thread does not run. Each more field of it would be a cold cache line. */
static __always_inline void fill_waiting(struct swp_slot *s, struct task_struct *t)
{
        s->mono_ns = bpf_ktime_get_ns();
        s->state = t->__state;
        s->run_delay_ns = t->sched_info.run_delay;
        s->queued_sched_ns = t->sched_info.last_queued;
}

/* Who the thread is and what it has used. Return: whether it is the one that was asked for, and
 * lives. */
static __always_inline bool fill_task(struct swp_slot *s, struct task_struct *t)
{
        struct mm_struct *mm = t->mm;

        fill_waiting(s, t);
        s->task_start_boottime = t->start_boottime;
        s->task_exec_id = t->self_exec_id;
        s->runtime_ns = t->se.sum_exec_runtime;
        s->fsbase = t->thread.fsbase;
        s->copied = 0;
        s->other_copied = 0;
        s->code_copied = 0;
        s->n_kstack = 0;
        s->ustack_id = -1;
        s->kstack_id = -1;
        if (!mm)
                return false;
        if (s->start_boottime &&
                (s->start_boottime != s->task_start_boottime || s->exec_id != s->task_exec_id))
                return false;
        s->exec_vm = mm->exec_vm;
        s->mm = (__u64)mm;
        s->process_start_boottime = t->group_leader->start_boottime;
        return true;
}

/* The user registers. Return: whether they are a 64-bit thread's. */
static __always_inline bool fill_regs(struct swp_slot *s, const struct pt_regs *r)
{
        s->regs[0] = r->ax;
        s->regs[1] = r->dx;
        s->regs[2] = r->cx;
        s->regs[3] = r->bx;
        s->regs[4] = r->si;
        s->regs[5] = r->di;
        s->regs[6] = r->bp;
        s->regs[7] = r->sp;
        s->regs[8] = r->r8;
        s->regs[9] = r->r9;
        s->regs[10] = r->r10;
        s->regs[11] = r->r11;
        s->regs[12] = r->r12;
        s->regs[13] = r->r13;
        s->regs[14] = r->r14;
        s->regs[15] = r->r15;
        s->regs[16] = r->ip;
        s->orig_ax = r->orig_ax;
        return (r->cs & 0xffff) != USER32_CS;
}

/* t NULL: the current thread, in an interrupt, where the copy must not sleep. */
static __always_inline long copy(struct task_struct *t, void *dst, __u64 n, __u64 src)
{
        if (t)
                return bpf_copy_from_user_task(dst, n, (const void *)src, t, 0);
        return bpf_probe_read_user(dst, n, (const void *)src);
}

/*
 * Reading another task's memory waits for page faults, and a process can make those last: by a file
 * of a file system of its own (FUSE), or by userfaultfd. Private anonymous memory that is not
 * registered there is the kernel's alone.
 */
static long note_stack(struct task_struct *t, struct vm_area_struct *vma, struct swp_slot **ctx)
{
        struct swp_slot *s = *ctx;

        if (vma->vm_file || (vma->vm_flags & (VM_UFFD_MISSING | VM_UFFD_WP)))
                return 0;
        s->stack_start = vma->vm_start;
        s->stack_end = vma->vm_end;
        return 0;
}

struct range {
        __u64 start, end;
};

static long note_range(struct task_struct *t, struct vm_area_struct *vma, struct range *r)
{
        if (vma->vm_file || (vma->vm_flags & (VM_UFFD_MISSING | VM_UFFD_WP)))
                return 0;
        r->start = vma->vm_start;
        r->end = vma->vm_end;
        return 0;
}

/* Whether [addr, addr + n) is memory that the kernel has alone; *r: the last such mapping. */
static __always_inline bool find_range(struct task_struct *t, struct range *r, __u64 addr, __u32 n)
{
        if (addr >= r->start && addr < r->end && r->end - addr >= n)
                return true;
        r->start = r->end = 0;
        bpf_find_vma(t, addr, note_range, r, 0);
        return addr >= r->start && addr < r->end && r->end - addr >= n;
}

static __always_inline bool read_words(
        struct task_struct *t, struct range *r, void *dst, __u32 n, __u64 addr)
{
        return (!t || find_range(t, r, addr, n)) && !copy(t, dst, n, addr);
}

/* The goroutine's stack, where the thread is on another one: its own, on which the runtime and C
 * run, or that of its signals. */
static __always_inline void find_goroutine(
        struct swp_slot *s, struct task_struct *t, struct range *r)
{
        __u64 g, m, vdso_sp = 0, begin = 0, bounds[2], sched[2], sp = s->regs[7];

        if (!read_words(t, r, &g, sizeof(g), s->fsbase + s->go.g) ||
                !read_words(t, r, &m, sizeof(m), g + s->go.m) ||
                !read_words(t, r, &g, sizeof(g), m + s->go.curg))
                return;
        if (!g)
                s->go_sp = 1;
        if (!g || !read_words(t, r, bounds, sizeof(bounds), g))
                return;
        if (sp >= bounds[0] && sp < bounds[1])
                return;
        if (!read_words(t, r, sched, sizeof(sched), g + s->go.sched))
                return;
        if (s->go.vdso_sp && !read_words(t, r, &vdso_sp, sizeof(vdso_sp), m + s->go.vdso_sp))
                return;
        if (sched[0] >= bounds[0] && sched[0] < bounds[1]) {
                s->go_sp = begin = sched[0];
                s->go_pc = sched[1];
        }
        if (vdso_sp >= bounds[0] && vdso_sp < bounds[1] && (!begin || vdso_sp < begin))
                begin = vdso_sp;
        if (!begin)
                return;
        s->other_begin = begin - bounds[0] < SWP_RED_ZONE ? bounds[0] : begin - SWP_RED_ZONE;
        s->other_end = bounds[1];
}

/* The next instructions: what is behind the mapping may be memory of another kind. */
static __always_inline void fill_code(struct swp_slot *s, struct task_struct *t)
{
        struct range r = {};
        __u64 pc = s->regs[16], n = PAGE_BYTES - (pc & (PAGE_BYTES - 1));

        if (t && !find_range(t, &r, pc, 1))
                return;
        if ((!t || r.end - pc >= SWP_CODE_BYTES) && !copy(t, s->code, SWP_CODE_BYTES, pc)) {
                s->code_copied = SWP_CODE_BYTES;
                return;
        }
        barrier_var(n);
        if (n < SWP_CODE_BYTES && !copy(t, s->code, n, pc))
                s->code_copied = n;
}

/* The other stack that is to be copied: other_begin is 0 if there is none. */
static __always_inline void find_other(struct swp_slot *s, struct task_struct *t)
{
        struct range r = {};

        s->other_begin = s->other_addr;
        s->other_end = ~0ULL;
        s->go_sp = s->go_pc = 0;
        if (!s->other_addr && s->go.m)
                find_goroutine(s, t, &r);
        if (!t || !s->other_begin)
                return;
        if (!find_range(t, &r, s->other_begin, 1))
                s->other_end = 0;
        else if (s->other_end > r.end)
                s->other_end = r.end;
}

/* Return: SWP_COPIED: may be copied, SWP_UNSTABLE: the mappings are being changed, SWP_FAULT. */
static __always_inline __u32 find_stack(struct swp_slot *s, struct task_struct *t)
{
        struct swp_slot *ctx = s;
        long r;

        s->stack_start = s->stack_end = 0;
        r = bpf_find_vma(t, s->regs[7], note_stack, &ctx, 0);
        if (r == -EBUSY)
                return SWP_UNSTABLE;
        return s->stack_end ? SWP_COPIED : SWP_FAULT;
}

/* Copies upwards, page by page up to the first that cannot be read. `max`: room, a constant. Return:
 * bytes. */
static __always_inline __u64 copy_pages(
        struct task_struct *t, __u8 *dst, __u64 max, __u64 n, __u64 begin)
{
        __u64 offset = 0; /* 64 bits wide: the verifier keeps its bounds only so */

        for (int i = 0; i <= max / PAGE_BYTES; i++) {
                __u64 part = PAGE_BYTES - ((begin + offset) & (PAGE_BYTES - 1));

                if (offset >= n)
                        break;
                if (part > n - offset)
                        part = n - offset;
                barrier_var(offset);
                barrier_var(part);
                if (offset > max - PAGE_BYTES || part > PAGE_BYTES)
                        break;
                if (copy(t, dst + offset, part, begin + offset))
                        break;
                offset += part;
        }
        return offset;
}

/* Copies the stack upwards from the red zone: at once, or page by page. */
static __always_inline void fill_stack(
        struct swp_slot *s, struct swp_buffer *b, struct task_struct *t)
{
        __u64 sp = s->regs[7], begin = sp - SWP_RED_ZONE;
        __u64 n = s->want;

        if (sp >= s->stack_start && sp < s->stack_end) {
                if (begin < s->stack_start)
                        begin = sp;
                if (n > s->stack_end - begin)
                        n = s->stack_end - begin;
        }
        s->copy_addr = begin;
        if (n > SWP_STACK_BYTES)
                n = SWP_STACK_BYTES;
        if (s->other_begin && n > SWP_OTHER_AT)
                n = SWP_OTHER_AT;
        barrier_var(n);
        if (n > SWP_STACK_BYTES)
                return;
        if (!copy(t, b->bytes, n, begin))
                s->copied = n;
        else
                s->copied = copy_pages(t, b->bytes, SWP_STACK_BYTES, n, begin);
}

/* Copies the other stack, up to its end. */
static __always_inline void fill_other(
        struct swp_slot *s, struct swp_buffer *b, struct task_struct *t)
{
        __u64 begin = s->other_begin, end = s->other_end, n = SWP_OTHER_BYTES;

        if (begin >= end)
                return;
        if (n > end - begin)
                n = end - begin;
        s->other_copied = copy_pages(t, b->bytes + SWP_OTHER_AT, SWP_OTHER_BYTES, n, begin);
}

#include "python.bpf.h"

/*
 * A thread off CPU. on_cpu is set before a task runs, and cleared after its switch away has been
 * counted. So a thread that was off CPU, then has the same counters, then (after all was read) is
 * off CPU still or again, and then has the same counters still, has not run in between. One that is
 * on CPU has noted its arrival before.
 */
static __always_inline __u32 pull(__u32 slot, struct swp_slot *s, struct task_struct *t)
{
        struct swp_buffer *b = NULL;
        __u32 index = s->buffer, found = SWP_FAULT;

        s->puller_sched_ns = bpf_get_current_task_btf()->sched_info.last_arrival;
        if (!task_on_cpu(t)) {
                barrier();
                s->switches = task_switches(t);
                if (s->switches == s->known_switches && s->start_boottime == t->start_boottime) {
                        fill_waiting(s, t);
                        return SWP_UNCHANGED;
                }
        }
        if (!fill_task(s, t))
                return SWP_GONE;
        if (task_on_cpu(t)) {
                barrier();
                s->switches = task_switches(t);
                fill_turn(s, t);
                return SWP_ON_CPU;
        }
        barrier();
        s->switches = task_switches(t);
        fill_turn(s, t);

        if (fill_regs(s, (const struct pt_regs *)bpf_task_pt_regs(t)))
                found = find_stack(s, t);
        if (index != SWP_NO_BUFFER)
                b = bpf_map_lookup_elem(&buffers, &index);
        if (b && found == SWP_COPIED) {
                find_other(s, t);
                fill_stack(s, b, t);
                if (s->other_begin)
                        fill_other(s, b, t);
                if (s->flags & SWP_F_CODE)
                        fill_code(s, t);
                if (!fill_python(slot, s, b, t))
                        found = SWP_UNSTABLE;
                if (s->flags & SWP_F_KERNEL) {
                        long n = bpf_get_task_stack(t, s->kstack, sizeof(s->kstack), 0);

                        s->n_kstack = n > 0 ? n / sizeof(s->kstack[0]) : 0;
                }
        }

        barrier();
        /* What is filled in is of before it came. */
        if (task_on_cpu(t))
                return b ? SWP_ON_CPU : SWP_UNSTABLE;
        barrier();
        if (task_switches(t) != s->switches)
                return SWP_UNSTABLE;
        if (found != SWP_COPIED)
                return found;
        if (!b)
                return SWP_NO_ROOM;
        return s->copied ? SWP_COPIED : SWP_FAULT;
}

static long pull_one(__u32 i, void *ctx)
{
        __u64 *entry = bpf_map_lookup_elem(&work, &i);
        if (!entry)
                return 1;
        __u32 index = *entry;
        struct swp_slot *s = bpf_map_lookup_elem(&slots, &index);
        if (!s)
                return 1;
        s->shot = 0;
        struct task_struct *t = bpf_task_from_pid(s->tid);
        if (!t) {
                answer(s, SWP_GONE);
                return 0;
        }
        answer(s, pull(index, s, t));
        bpf_task_release(t);
        return 0;
}

SEC("syscall")
int pull_syscall(struct swp_pull *args)
{
        __u32 n = args->n;

        bpf_loop(n > SWP_MAX_SLOTS ? SWP_MAX_SLOTS : n, pull_one, NULL, 0);
        return 0;
}

SEC("iter.s/task")
int pull_iter(struct bpf_iter__task *ctx)
{
        struct task_struct *t = ctx->task;
        __u32 index = iter_slot;

        /* The call after the last task: a thread that is gone shows as a request without answer. */
        if (!t)
                return 0;
        struct swp_slot *s = bpf_map_lookup_elem(&slots, &index);
        if (!s)
                return 0;
        s->shot = 0;
        answer(s, pull(index, s, t));
        return 0;
}

SEC("perf_event")
int shot(void *ctx)
{
        struct task_struct *t = bpf_get_current_task_btf();
        __u32 index = bpf_get_attach_cookie(ctx);
        struct swp_slot *s = bpf_map_lookup_elem(&slots, &index);
        struct swp_buffer *b;
        __u32 status;

        /* 1 in every case: with 0 some kernels do not count the overflow, and the event would go on
         * firing. */
        if (!s || s->answered == s->request)
                return 1;
        s->shot = 1;
        if (!fill_task(s, t)) {
                status = SWP_GONE;
        } else if (!fill_regs(s, (const struct pt_regs *)bpf_task_pt_regs(t))) {
                status = SWP_FAULT;
        } else {
                status = SWP_COPIED;
                s->switches = task_switches(t);
                fill_turn(s, t);
                if (s->flags & SWP_F_KERNEL)
                        s->kstack_id = bpf_get_stackid(ctx, &stacks, 0);
                index = s->buffer;
                b = bpf_map_lookup_elem(&buffers, &index);
                if (s->flags & SWP_F_FP) {
                        s->ustack_id = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
                        if (s->ustack_id < 0)
                                status = SWP_UNSTABLE;
                } else {
                        if (b) {
                                find_other(s, NULL);
                                fill_stack(s, b, NULL);
                                if (s->other_begin)
                                        fill_other(s, b, NULL);
                                if (s->flags & SWP_F_CODE)
                                        fill_code(s, NULL);
                        }
                        if (!s->copied)
                                status = SWP_FAULT;
                }
                if (b)
                        fill_python(bpf_get_attach_cookie(ctx), s, b, NULL);
        }
        struct swp_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
        if (e) {
                e->slot = bpf_get_attach_cookie(ctx);
                e->request = s->request;
        }
        answer(s, status);
        if (e)
                bpf_ringbuf_submit(e, 0);
        return 1;
}
