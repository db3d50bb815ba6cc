/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "runtime/cpython-binary.h"
#include "runtime/cpython-merge.h"
#include "unwind/module.h"

bool cpython_is_eval(const Frame *frame)
{
        return frame->kind == FRAME_CODE && frame->module && frame->module->python &&
               cpython_binary_is_eval(frame->module->python, frame->vaddr);
}

/* The frame is the first one that an entry from C led to, or stands for the entry itself. */
static bool is_entry(const CpythonLayout *layout, const struct swp_python_frame *f)
{
        if (layout->walk.shim_owner)
                return f->code == 0;
        return layout->walk.frame_owner == SWP_PYTHON_NONE || f->owner == 1;
}

/* A greenlet's stack begins where its first switch was called: what is further out is another's. */
static bool is_greenlet(const Frame *frame)
{
        return frame->kind == FRAME_CODE && frame->module &&
               strstr(frame->module->name, "greenlet");
}

/* Return: entries; *ret_complete: the outermost function is of one. */
static size_t count_entries(const CpythonMerge *m, bool *ret_complete)
{
        size_t n = 0;

        *ret_complete = true;
        for (size_t i = 0; i < m->n_python; i++) {
                *ret_complete = is_entry(m->layout, &m->python[i]);
                n += *ret_complete;
        }
        return n;
}

/* Return: frames of the loop among the native ones; *ret_inner: of them, those further in than the
 * frame *ret_end, where a greenlet begins. */
static size_t count_evals(const CpythonMerge *m, size_t *ret_inner, size_t *ret_end)
{
        size_t n = 0;

        *ret_end = m->n_native;
        for (size_t i = 0; i < m->n_native; i++) {
                if (n > 0 && *ret_end == m->n_native && is_greenlet(&m->native[i])) {
                        *ret_end = i;
                        *ret_inner = n;
                }
                n += cpython_is_eval(&m->native[i]);
        }
        if (*ret_end == m->n_native)
                *ret_inner = n;
        return n;
}

typedef struct Output {
        Frame *frames;
        size_t n, max;
} Output;

static void put(Output *o, const Frame *frame)
{
        if (o->n < o->max)
                o->frames[o->n] = *frame;
        o->n++;
}

/* The functions of one entry. Return: the index behind. */
static size_t put_entry(const CpythonMerge *m, size_t i, Output *o)
{
        bool last;

        do {
                last = is_entry(m->layout, &m->python[i]);
                if (m->python[i].code)
                        put(o, &(Frame){.kind = FRAME_PYTHON, .vaddr = i});
                i++;
        } while (!last && i < m->n_python);
        return i;
}

int cpython_merge(const CpythonMerge *m, Frame *ret, size_t max, size_t *ret_n)
{
        Output o = {.frames = ret, .max = max};
        size_t n_evals, n_inner = 0, n_entries, n_native = m->n_native, at = 0, n_without;
        bool complete;

        n_entries = count_entries(m, &complete);
        n_evals = count_evals(m, &n_inner, &n_native);
        if (n_entries == n_evals || n_entries + 1 == n_evals) {
                n_native = m->n_native;
                n_inner = n_evals;
        }
        if (!complete || n_entries > n_inner || n_inner - n_entries > 1)
                return CPYTHON_MERGE_E_MISMATCH;
        n_without = n_inner - n_entries;
        for (size_t i = 0; i < n_native; i++) {
                if (!cpython_is_eval(&m->native[i])) {
                        /* No Python at all, or not any more. */
                        if (m->mixed || n_entries == 0 || i == 0)
                                put(&o, &m->native[i]);
                } else if (n_without > 0) {
                        n_without--;
                } else {
                        at = put_entry(m, at, &o);
                }
        }
        *ret_n = o.n < max ? o.n : max;
        return o.n > max ? CPYTHON_MERGE_E_TOO_DEEP : 0;
}
