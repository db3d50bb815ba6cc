/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/python-walk.h"

#include <stdbool.h>
#include <string.h>

typedef struct Walk {
        ProcThread *thread;
        uint64_t fsbase;
        struct swp_python *p;
        struct swp_python_walk *w;
} Walk;

static bool read_at(Walk *k, uint64_t addr, void *ret, size_t n)
{
        return proc_thread_copy(k->thread, addr, n, ret) == n;
}

/* Into the block. */
static bool read_object(Walk *k, uint64_t addr, size_t n)
{
        return n <= SWP_PYTHON_BLOCK && read_at(k, addr, k->w->block, n);
}

static uint64_t word_at(const Walk *k, unsigned at)
{
        uint64_t value = 0;

        if (at <= SWP_PYTHON_BLOCK - sizeof(value))
                memcpy(&value, k->w->block + at, sizeof(value));
        return value;
}

static bool is_own(const Walk *k)
{
        return word_at(k, k->p->layout.tstate_thread_id) == k->fsbase;
}

/* Return: false: memory that cannot be read. */
static bool find_states(Walk *k)
{
        const struct swp_python_layout *l = &k->p->layout;
        uint64_t interp, tstate = 0;

        if (!read_at(k, k->p->interpreters, &interp, sizeof(interp)))
                return false;
        for (unsigned i = 0; i < SWP_PYTHON_THREADS && (interp || tstate); i++) {
                if (!tstate) {
                        if (!read_at(k, interp + l->interp_threads, &tstate, sizeof(tstate)) ||
                                !read_at(k, interp + l->interp_next, &interp, sizeof(interp)))
                                return false;
                        continue;
                }
                if (!read_object(k, tstate, l->tstate_bytes))
                        return false;
                if (is_own(k) && k->p->n_tstates < SWP_MAX_TSTATES)
                        k->p->tstates[k->p->n_tstates++] = tstate;
                tstate = word_at(k, l->tstate_next);
        }
        return true;
}

/* The frame at *at, which becomes the next one's. Return: false: memory that cannot be read. */
static bool read_frame(Walk *k, uint64_t *at, struct swp_python_frame *f)
{
        const struct swp_python_layout *l = &k->p->layout;
        uint64_t type, filename, name, lines, hash;
        uint64_t address = *at;
        uint32_t first_line;

        if (!read_object(k, *at, l->frame_bytes))
                return false;
        *at = word_at(k, l->frame_previous);
        *f = (struct swp_python_frame){
                .code = word_at(k, l->frame_code) & ~7ULL,
                .instr = l->instr_bytes == 4 ? (uint32_t)word_at(k, l->frame_instr)
                                             : word_at(k, l->frame_instr),
                .owner = l->frame_owner < SWP_PYTHON_BLOCK ? k->w->block[l->frame_owner] : 0,
        };
        if (l->shim_owner && f->owner >= l->shim_owner) {
                f->code = 0;
                f->instr = address;
                return true;
        }
        if (!read_object(k, f->code, l->code_bytes))
                return false;
        type = word_at(k, SWP_PYTHON_TYPE);
        first_line = (uint32_t)word_at(k, l->code_firstlineno);
        filename = word_at(k, l->code_filename);
        name = word_at(k, l->code_name);
        lines = word_at(k, l->code_linetable);
        if (!read_at(k, name + l->text_hash, &hash, sizeof(hash)))
                return false;
        f->identity = swp_python_identity(type, first_line, filename, name, lines, hash);
        return true;
}

/* Return: enum swp_python_status. */
static uint32_t walk_state(Walk *k, uint64_t tstate)
{
        const struct swp_python_layout *l = &k->p->layout;
        uint64_t at;

        if (!read_object(k, tstate, l->tstate_bytes) || !is_own(k))
                return SWP_PYTHON_NO_THREAD;
        at = word_at(k, l->tstate_frame);
        if (l->cframe_frame != SWP_PYTHON_NONE && at &&
                !read_at(k, at + l->cframe_frame, &at, sizeof(at)))
                return SWP_PYTHON_FAULT;
        while (at) {
                if (k->p->n_frames == SWP_MAX_PYTHON)
                        return SWP_PYTHON_CUT;
                if (!read_frame(k, &at, &k->w->frames[k->p->n_frames++]))
                        return SWP_PYTHON_FAULT;
        }
        return SWP_PYTHON_OK;
}

void python_walk(ProcThread *t, uint64_t fsbase, struct swp_python *p, struct swp_python_walk *w)
{
        Walk k = {.thread = t, .fsbase = fsbase, .p = p, .w = w};

        p->n_frames = 0;
        p->status = SWP_PYTHON_FAULT;
        p->searched = p->n_tstates == 0;
        if (p->n_tstates == 0 && !find_states(&k))
                return;
        p->status = SWP_PYTHON_NO_THREAD;
        for (uint32_t i = 0; i < p->n_tstates; i++) {
                p->status = walk_state(&k, p->tstates[i]);
                if (p->status == SWP_PYTHON_NO_THREAD)
                        p->n_tstates = 0;
                if (p->status != SWP_PYTHON_OK)
                        return;
        }
}
