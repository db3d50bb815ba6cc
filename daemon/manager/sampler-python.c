/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/counter.h"
#include "manager/sampler-private.h"
#include "runtime/cpython-binary.h"
#include "runtime/cpython-merge.h"
#include "unwind/unwind.h"

/* A pc that no other frame has: the code's number and the instruction's. */
#define PC_PYTHON    (1ULL << 63)
#define PC_UNIT_BITS 24
#define PC_UNIT_MAX  ((1LL << PC_UNIT_BITS) - 2)

/* Of one stack, so that others' requests find room. */
#define READS_MAX 64

/* ---- where the interpreter is ---- */

/* Return: NULL: the process runs none. */
static const CpythonBinary *find_interpreter(const ProcMap *map, uint64_t *ret_bias)
{
        for (size_t i = 0; i < map->n; i++) {
                const Mapping *m = &map->mappings[i];
                uint64_t vaddr;

                if (!m->module || !m->module->python)
                        continue;
                vaddr = module_vaddr(m->module, m->offset);
                if (vaddr == UINT64_MAX)
                        continue;
                *ret_bias = m->start - vaddr;
                return m->module->python;
        }
        return NULL;
}

void target_set_python(Target *t)
{
        const Process *p = t->process;

        if (!t->thread)
                return;
        if (p->python)
                capture_thread_set_python(
                        t->thread, &p->python->layout.walk, p->python_interpreters);
        else if (p->early_python.interpreters)
                capture_thread_set_python(
                        t->thread, &p->early_python.layout, p->early_python.interpreters);
        else
                capture_thread_set_python(t->thread, NULL, 0);
}

void process_expect_python(Process *p, const ModulePython *python)
{
        Target *t;

        p->early_python = *python;
        list_for_each (t, &p->targets, process_link)
                target_set_python(t);
}

void process_find_python(Process *p)
{
        const CpythonBinary *b;
        uint64_t bias = 0;
        Target *t;

        b = p->map ? find_interpreter(p->map, &bias) : NULL;
        if (b && p->python &&
                memcmp(&b->layout, cpython_codes_layout(p->codes), sizeof(b->layout)) == 0 &&
                p->python_interpreters ==
                        bias + b->runtime_vaddr + b->layout.runtime_interpreters &&
                p->codes_space.mm == p->map_space.mm &&
                p->codes_space.process_start_boottime == p->map_space.process_start_boottime) {
                p->python = b;
                return;
        }
        p->codes = cpython_codes_unref(p->codes);
        p->python = NULL;
        p->early_python.interpreters = 0;
        if (b) {
                p->codes = cpython_codes_new(p->pid, &b->layout);
                p->codes_space = p->map_space;
        }
        if (p->codes) {
                p->python = b;
                p->python_interpreters = bias + b->runtime_vaddr + b->layout.runtime_interpreters;
        }
        list_for_each (t, &p->targets, process_link)
                target_set_python(t);
}

/* ---- their frames ---- */

static bool fill_frame(Process *p, const struct swp_python_frame *f, unsigned *n_reads, Frame *ret)
{
        const CpythonLayout *layout = cpython_codes_layout(p->codes);
        int64_t unit = cpython_code_unit(layout, f);
        CpythonCode *code;
        bool added;

        if (unit < 0)
                unit = -1;
        if (unit > PC_UNIT_MAX)
                return false;
        code = cpython_codes_get(p->codes, f, &added);
        if (!code)
                return false;
        /* The sooner its name is read, the less has it changed; if this fails, it is read later. */
        if (added && *n_reads > 0) {
                (*n_reads)--;
                worker_read_python(p->sampler->worker, p->codes, code);
        }
        *ret = (Frame){
                .kind = FRAME_PYTHON,
                .python = code,
                .vaddr = (uint64_t)unit,
                .pc = PC_PYTHON | code->id << PC_UNIT_BITS | (uint64_t)(unit + 1),
        };
        return true;
}

static bool has_eval(const Frame *frames, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (cpython_is_eval(&frames[i]))
                        return true;
        return false;
}

/* More of the stack is not to be had. */
static bool is_largest(const Sampler *s, const CaptureResult *c)
{
        return c->copy.n >= s->max_stack_bytes;
}

/* A greenlet's stack need not be read further than to where that begins. */
static bool is_partial(const UnwindResult *u)
{
        return u->status == UNWIND_TRUNCATED || u->status == UNWIND_NO_MAPPING ||
               u->status == UNWIND_NO_CFI || u->status == UNWIND_BROKEN;
}

/* Stacks that refer to the old set keep it. */
static void renew_codes(Process *p)
{
        CpythonCodes *codes = cpython_codes_new(p->pid, cpython_codes_layout(p->codes));

        if (!codes)
                return;
        cpython_codes_unref(p->codes);
        p->codes = codes;
}

/* Return: UNWIND_DONE, or why there are no frames; *ret_n 0: nothing to be changed. *ret_entered false:
 * a native frame of the loop has no functions. */
static UnwindStatus merge(Process *p, const CaptureResult *c, CpythonMerge *m, size_t max,
        size_t *ret_n, bool *ret_entered)
{
        Frame *merged = p->sampler->merged;
        unsigned n_reads = READS_MAX;
        int r;

        *ret_n = 0;
        *ret_entered = true;
        if (!p->codes)
                return UNWIND_DONE;
        /* A thread of C may be none of the interpreter's. */
        if (c->has_python && c->python_status == SWP_PYTHON_NO_THREAD &&
                !has_eval(m->native, m->n_native))
                return UNWIND_DONE;
        if (!c->has_python || c->python_status != SWP_PYTHON_OK)
                return UNWIND_NO_PYTHON;
        if (cpython_codes_full(p->codes))
                renew_codes(p);
        m->layout = cpython_codes_layout(p->codes);
        m->n_python = c->n_python;
        m->python = c->python;
        r = cpython_merge(m, merged, max, ret_n);
        if (r != 0 && r != CPYTHON_MERGE_E_NO_ENTRY)
                return UNWIND_PYTHON_MISMATCH;
        *ret_entered = r == 0;
        for (size_t i = 0; i < *ret_n; i++)
                if (merged[i].kind == FRAME_PYTHON &&
                        !fill_frame(p, &c->python[merged[i].vaddr], &n_reads, &merged[i]))
                        return UNWIND_PYTHON_MISMATCH;
        return UNWIND_DONE;
}

void process_add_python(Process *p, const CaptureResult *c, size_t n_inner, UnwindResult *u)
{
        Sampler *s = p->sampler;
        Frame *frames = s->frames + n_inner;
        CpythonMerge m = {
                .mixed = s->python_mixed,
                .partial = u->status != UNWIND_DONE,
                .truncated = u->status == UNWIND_TRUNCATED && (c->shot || is_largest(s, c)),
                .n_native = u->n_frames - n_inner,
                .native = frames,
        };
        UnwindStatus status;
        bool entered;
        size_t n = 0;

        if (u->status != UNWIND_DONE && !is_partial(u))
                return;
        status = merge(p, c, &m, SAMPLER_MAX_FRAMES - n_inner, &n, &entered);
        if (u->status != UNWIND_DONE && (status != UNWIND_DONE || n == 0))
                return;
        u->status = status;
        /* It may be in an interpreter that it was not in when its states were looked for. */
        u->python_doubtful = !entered && !c->python_searched;
        if (status != UNWIND_DONE || n == 0)
                return;
        memcpy(frames, s->merged, n * sizeof(*frames));
        u->n_frames = n_inner + n;
}
