/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "runtime/cpython-binary.h"
#include "runtime/cpython-merge.h"
#include "unwind/module.h"

/* System calls of a C library are some functions deep, of which the innermost have no names. */
#define LEAVES_MAX 4

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

static bool is_code(const Frame *frame)
{
        return frame->kind == FRAME_CODE && frame->module;
}

/* A greenlet's stack begins where it was first switched to: what is further out is another's. */
static bool is_greenlet(const Frame *frame)
{
        const char *name = is_code(frame) ? frame->module->name : "";

        return strncmp(name, "_greenlet.", 10) == 0 || strncmp(name, "greenlet.", 9) == 0;
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

/* What there is to be matched. */
typedef struct Match {
        const CpythonMerge *m;
        bool by_address;
        size_t n_native;  /* that are this stack's */
        size_t n_without; /* innermost frames of the loop that have no functions */
        size_t n_entries;
        size_t at; /* record that comes next */
} Match;

/* The outermost ones are not known: as many as there are fit. */
static bool match_innermost(const Match *k)
{
        size_t n = 0;

        for (size_t i = 0; i < k->m->n_native; i++)
                n += cpython_is_eval(&k->m->native[i]);
        /* Which of them has no functions, if any, is not to be told then. */
        return !k->m->mixed && n <= k->n_entries;
}

/* By number. Return: whether they fit. */
static bool match_numbers(Match *k)
{
        const CpythonMerge *m = k->m;
        size_t n = 0, n_inner = 0, end = m->n_native;

        if (m->truncated && match_innermost(k))
                return true;
        for (size_t i = 0; i < m->n_native; i++) {
                if (n > 0 && end == m->n_native && is_greenlet(&m->native[i])) {
                        end = i;
                        n_inner = n;
                }
                n += cpython_is_eval(&m->native[i]);
        }
        if (m->partial || (n != k->n_entries && n != k->n_entries + 1)) {
                if (end == m->n_native)
                        return false;
                k->n_native = end;
                n = n_inner;
        }
        if (n != k->n_entries && n != k->n_entries + 1)
                return false;
        k->n_without = n - k->n_entries;
        return true;
}

/* Whether the next entry was made by the native frame. */
static bool is_entered(const Match *k, size_t i)
{
        const CpythonMerge *m = k->m;
        size_t entry = k->at;

        while (entry < m->n_python && !is_entry(m->layout, &m->python[entry]))
                entry++;
        return entry < m->n_python && i + 1 < m->n_native &&
               m->python[entry].instr >= m->native[i].sp &&
               m->python[entry].instr < m->native[i + 1].sp;
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

/* The functions of the next entry. */
static void put_entry(Match *k, Output *o)
{
        const CpythonMerge *m = k->m;
        bool last = k->at == m->n_python;

        while (!last && k->at < m->n_python) {
                last = is_entry(m->layout, &m->python[k->at]);
                if (m->python[k->at].code)
                        put(o, &(Frame){.kind = FRAME_PYTHON, .vaddr = k->at});
                k->at++;
        }
}

/* Where instructions are functions that call each other last, the loop has another native frame
 * above its own: the instruction's. */
static bool is_instruction(const Match *k, size_t i)
{
        const Frame *f = &k->m->native[i];

        return k->by_address && is_code(f) && f->module->python &&
               ((const CpythonBinary *)f->module->python)->tail_calls && i + 1 < k->m->n_native &&
               is_entered(k, i + 1);
}

/* Functions below the innermost one of Python, unless they are the interpreter's own. */
static size_t count_leaves(const CpythonMerge *m)
{
        size_t n = 0;

        while (n < m->n_native && n < LEAVES_MAX &&
                !(is_code(&m->native[n]) && m->native[n].module->python))
                n++;
        return n;
}

static void put_native(const Match *k, size_t i, size_t n_leaves, Output *o)
{
        Frame frame = k->m->native[i];

        if (k->n_entries > 0 && !k->m->mixed) {
                if (i >= n_leaves)
                        return;
                if (is_code(&frame))
                        frame.kind = FRAME_LEAF;
        }
        put(o, &frame);
}

int cpython_merge(const CpythonMerge *m, Frame *ret, size_t max, size_t *ret_n)
{
        Match k = {.m = m, .n_native = m->n_native};
        Output o = {.frames = ret, .max = max};
        size_t n_leaves = count_leaves(m);
        bool complete, entered = true, ended = !m->partial;

        k.n_entries = count_entries(m, &complete);
        k.by_address = m->layout->walk.shim_owner && m->n_native > 0 && m->native[0].sp;
        if (!complete || (!k.by_address && !match_numbers(&k)))
                return CPYTHON_MERGE_E_MISMATCH;
        for (size_t i = 0; i < k.n_native; i++) {
                bool eval = cpython_is_eval(&m->native[i]);

                if (k.by_address ? is_entered(&k, i) : eval && k.n_without == 0)
                        put_entry(&k, &o);
                else if (k.by_address && k.at > 0 && k.at == m->n_python &&
                         is_greenlet(&m->native[i]))
                        k.n_native = i;
                else if (eval) {
                        k.n_without -= k.n_without > 0;
                        entered = false;
                } else if (!is_instruction(&k, i))
                        put_native(&k, i, n_leaves, &o);
        }
        while (m->truncated && k.at < m->n_python)
                put_entry(&k, &o);
        ended = ended || m->truncated || k.n_native < m->n_native;
        if (k.at < m->n_python || !ended)
                return CPYTHON_MERGE_E_MISMATCH;
        *ret_n = o.n < max ? o.n : max;
        if (o.n > max)
                return CPYTHON_MERGE_E_TOO_DEEP;
        return entered ? 0 : CPYTHON_MERGE_E_NO_ENTRY;
}
