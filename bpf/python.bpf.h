/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Walks the frames that CPython keeps of the thread whose stack is being copied. Part of
 * capture.bpf.c. Every step is bounded, every address is the target's word, and nothing is
 * believed: what comes out is compared with the native stack and with the code objects later.
 */

#define VM_SHARED 0x8UL

enum python_kind {
        PYTHON_THREAD,
        PYTHON_FRAME,
        PYTHON_CODE,
        PYTHON_NAME,
};

struct python_ctx {
        struct swp_slot *s;
        struct swp_python *p;
        struct swp_python_walk *w;
        struct task_struct *t;
};

struct python_vma {
        __u64 start, end;
};

/* File systems whose pages come from this machine. A private mapping of a file is mostly the data
 * of the interpreter itself. */
static __always_inline bool is_local(__u64 magic)
{
        return magic == 0xef53 /* ext4 */ || magic == 0x58465342 /* XFS */ ||
               magic == 0x9123683e /* btrfs */ || magic == 0x01021994 /* tmpfs */ ||
               magic == 0xf2f52010 /* F2FS */ || magic == 0x73717368 /* squashfs */ ||
               magic == 0xe0f5e1e2 /* EROFS */ || magic == 0x2fc12fc1 /* ZFS */ ||
               magic == 0x858458f6 /* ramfs */;
}

static long note_python(struct task_struct *t, struct vm_area_struct *vma, struct python_vma *r)
{
        if (vma->vm_flags & (VM_SHARED | VM_UFFD_MISSING | VM_UFFD_WP))
                return 0;
        if (vma->vm_file && !is_local(vma->vm_file->f_inode->i_sb->s_magic))
                return 0;
        r->start = vma->vm_start;
        r->end = vma->vm_end;
        return 0;
}

/* t NULL: the current thread, in an interrupt. Return: whether n bytes were read. */
static __always_inline bool python_read(struct swp_python_walk *w, struct task_struct *t,
        enum python_kind kind, void *dst, __u64 n, __u64 src)
{
        if (t && (src < w->start[kind] || src + n > w->end[kind])) {
                struct python_vma r = {};

                if (bpf_find_vma(t, src, note_python, &r, 0) == -EBUSY)
                        w->busy = 1;
                if (src < r.start || src + n > r.end)
                        return false;
                w->start[kind] = r.start;
                w->end[kind] = r.end;
        }
        return copy(t, dst, n, src) == 0;
}

/* Reads up to `bytes` of an object into the block. */
static __always_inline bool python_read_block(struct swp_python_walk *w, struct task_struct *t,
        enum python_kind kind, __u64 bytes, __u64 src)
{
        barrier_var(bytes);
        if (bytes > SWP_PYTHON_BLOCK)
                return false;
        return python_read(w, t, kind, w->block, bytes, src);
}

static __always_inline __u64 python_block_u64(const struct swp_python_walk *w, __u64 at)
{
        barrier_var(at);
        return at <= SWP_PYTHON_BLOCK - 8 ? *(const __u64 *)(w->block + at) : 0;
}

static __always_inline __u32 python_block_u32(const struct swp_python_walk *w, __u64 at)
{
        barrier_var(at);
        return at <= SWP_PYTHON_BLOCK - 4 ? *(const __u32 *)(w->block + at) : 0;
}

static __always_inline __u32 python_block_u8(const struct swp_python_walk *w, __u64 at)
{
        barrier_var(at);
        return at <= SWP_PYTHON_BLOCK - 1 ? w->block[at] : 0;
}

/* One step through all interpreters' thread states, newest first. Return: whether to end. */
static __always_inline long python_search_step(struct python_ctx *c, struct task_struct *t)
{
        struct swp_python_walk *w = c->w;
        struct swp_python *p = c->p;
        const struct swp_python_layout *l = &p->layout;
        __u64 n = p->n_tstates;

        if (w->at) {
                __u64 tstate = w->at;

                if (!python_read_block(w, t, PYTHON_THREAD, l->tstate_bytes, tstate))
                        return 1;
                w->at = python_block_u64(w, l->tstate_next);
                if (python_block_u64(w, l->tstate_thread_id) == c->s->fsbase) {
                        barrier_var(n);
                        if (n >= SWP_MAX_TSTATES)
                                return 1;
                        p->tstates[n] = tstate;
                        p->n_tstates = n + 1;
                }
                return 0;
        }
        if (!w->interp)
                return 1;
        __u64 interp = w->interp;

        if (!python_read(w, t, PYTHON_THREAD, &w->at, 8, interp + l->interp_threads) ||
                !python_read(w, t, PYTHON_THREAD, &w->interp, 8, interp + l->interp_next))
                return 1;
        return 0;
}

/* One frame. Return: whether to end. */
static __always_inline long python_frame_step(struct python_ctx *c, struct task_struct *t)
{
        struct swp_python_walk *w = c->w;
        struct swp_python *p = c->p;
        const struct swp_python_layout *l = &p->layout;
        struct swp_python_frame *f;
        __u64 type, name, filename, linetable, hash, at = w->at;
        __u64 n = p->n_frames;
        __u32 line;

        if (!at)
                return 1;
        barrier_var(n);
        if (n >= SWP_MAX_PYTHON) {
                p->status = SWP_PYTHON_CUT;
                return 1;
        }
        f = &w->frames[n];
        p->status = SWP_PYTHON_FAULT;
        if (!python_read_block(w, t, PYTHON_FRAME, l->frame_bytes, at))
                return 1;
        w->at = python_block_u64(w, l->frame_previous);
        f->owner = l->frame_owner == SWP_PYTHON_NONE ? 0 : python_block_u8(w, l->frame_owner);
        f->instr = l->instr_bytes == 4 ? python_block_u32(w, l->frame_instr)
                                       : python_block_u64(w, l->frame_instr);
        /* The lowest bits may be a tag (3.14). */
        f->code = python_block_u64(w, l->frame_code) & ~7ULL;
        f->identity = 0;
        p->n_frames = n + 1;
        if (l->shim_owner && f->owner >= l->shim_owner) {
                f->code = 0;
                f->instr = at;
                p->status = SWP_PYTHON_OK;
                return 0;
        }
        if (!python_read_block(w, t, PYTHON_CODE, l->code_bytes, f->code))
                return 1;
        type = python_block_u64(w, SWP_PYTHON_TYPE);
        line = python_block_u32(w, l->code_firstlineno);
        filename = python_block_u64(w, l->code_filename);
        name = python_block_u64(w, l->code_name);
        linetable = python_block_u64(w, l->code_linetable);
        if (!python_read_block(w, t, PYTHON_NAME, 8, name + l->text_hash))
                return 1;
        hash = python_block_u64(w, 0);
        f->identity = swp_python_identity(type, line, filename, name, linetable, hash);
        p->status = SWP_PYTHON_OK;
        return 0;
}

static long python_search_task(__u32 i, struct python_ctx *c)
{
        return python_search_step(c, c->t);
}

static long python_search_current(__u32 i, struct python_ctx *c)
{
        return python_search_step(c, NULL);
}

static long python_frame_task(__u32 i, struct python_ctx *c)
{
        return python_frame_step(c, c->t);
}

static long python_frame_current(__u32 i, struct python_ctx *c)
{
        return python_frame_step(c, NULL);
}

/* The innermost frame of that thread state, into w->at. Return: whether it is this thread's. */
static __always_inline bool python_enter(struct python_ctx *c, struct task_struct *t, __u64 tstate)
{
        struct swp_python_walk *w = c->w;
        const struct swp_python_layout *l = &c->p->layout;

        if (!python_read_block(w, t, PYTHON_THREAD, l->tstate_bytes, tstate) ||
                python_block_u64(w, l->tstate_thread_id) != c->s->fsbase)
                return false;
        w->at = python_block_u64(w, l->tstate_frame);
        if (l->cframe_frame == SWP_PYTHON_NONE || !w->at)
                return true;
        return python_read(w, t, PYTHON_NAME, &w->at, 8, w->at + l->cframe_frame);
}

static __always_inline void python_walk(struct python_ctx *c, struct task_struct *t)
{
        struct swp_python *p = c->p;
        struct swp_python_walk *w = c->w;
        int i;

        p->n_frames = 0;
        p->status = SWP_PYTHON_FAULT;
        w->busy = 0;
        w->start[0] = w->start[1] = w->start[2] = w->start[3] = 0;
        w->end[0] = w->end[1] = w->end[2] = w->end[3] = 0;
        p->searched = p->n_tstates == 0;
        if (p->n_tstates == 0) {
                w->at = 0;
                if (!python_read(w, t, PYTHON_THREAD, &w->interp, 8, p->interpreters))
                        return;
                if (t)
                        bpf_loop(SWP_PYTHON_THREADS, python_search_task, c, 0);
                else
                        bpf_loop(SWP_PYTHON_THREADS, python_search_current, c, 0);
        }
        p->status = SWP_PYTHON_NO_THREAD;
        for (i = 0; i < SWP_MAX_TSTATES; i++) {
                if (i >= p->n_tstates)
                        break;
                if (!python_enter(c, t, p->tstates[i])) {
                        p->n_tstates = 0;
                        p->status = SWP_PYTHON_NO_THREAD;
                        return;
                }
                p->status = SWP_PYTHON_OK;
                if (t)
                        bpf_loop(SWP_MAX_PYTHON + 1, python_frame_task, c, 0);
                else
                        bpf_loop(SWP_MAX_PYTHON + 1, python_frame_current, c, 0);
                if (p->status != SWP_PYTHON_OK)
                        return;
        }
}

/*
 * The frames of the slot's thread into the buffer. t NULL: the current thread, in an interrupt.
 * Return: false: the mappings are being changed, so that not all could be looked at.
 */
static __always_inline bool fill_python(
        __u32 slot, struct swp_slot *s, struct swp_buffer *b, struct task_struct *t)
{
        struct python_ctx c = {.s = s, .w = &b->python, .t = t};

        if (!(s->flags & SWP_F_PYTHON))
                return true;
        c.p = bpf_map_lookup_elem(&pythons, &slot);
        if (!c.p)
                return true;
        python_walk(&c, t);
        return !b->python.busy;
}
