/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "unwind/module.h"

static atomic_uint last_id;

Module *module_new(
        const char *name, CfiTable *cfi, size_t n_segments, const ModuleSegment *segments)
{
        Module *m = calloc(1, sizeof(*m));

        if (!m)
                return NULL;
        m->name = strdup(name);
        m->segments = n_segments > 0 ? calloc(n_segments, sizeof(*segments)) : NULL;
        if (!m->name || (n_segments > 0 && !m->segments)) {
                free(m->segments);
                free(m->name);
                free(m);
                return NULL;
        }
        if (n_segments > 0)
                memcpy(m->segments, segments, n_segments * sizeof(*segments));
        m->n_segments = n_segments;
        m->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
        atomic_init(&m->cfi, cfi);
        atomic_init(&m->n_refs, 1);
        return m;
}

void module_set_full(Module *m, CfiTable *cfi)
{
        m->lazy = m->cfi;
        atomic_store_explicit(&m->cfi, cfi, memory_order_release);
}

Module *module_ref(Module *m)
{
        if (m)
                atomic_fetch_add_explicit(&m->n_refs, 1, memory_order_relaxed);
        return m;
}

Module *module_unref(Module *m)
{
        if (!m || atomic_fetch_sub_explicit(&m->n_refs, 1, memory_order_acq_rel) != 1)
                return NULL;
        cfi_table_free(m->cfi);
        cfi_table_free(m->lazy);
        free(m->python);
        free(m->segments);
        free(m->name);
        free(m);
        return NULL;
}

const ModuleSegment *module_segment(
        const Module *m, uint64_t file_offset, uint64_t *ret_begin, uint64_t *ret_end)
{
        uint64_t begin = 0, end = UINT64_MAX;

        for (size_t i = 0; i < m->n_segments; i++) {
                const ModuleSegment *s = &m->segments[i];
                uint64_t s_end;

                if (__builtin_add_overflow(s->offset, s->filesz, &s_end))
                        s_end = UINT64_MAX;
                if (file_offset >= s->offset && file_offset < s_end) {
                        *ret_begin = begin > s->offset ? begin : s->offset;
                        *ret_end = end < s_end ? end : s_end;
                        return s;
                }
                /* An earlier one comes first where both cover an offset. */
                if (s->offset > file_offset && s->offset < end)
                        end = s->offset;
                if (s_end <= file_offset && s_end > begin)
                        begin = s_end;
        }
        return NULL;
}

uint64_t module_vaddr(const Module *m, uint64_t file_offset)
{
        uint64_t begin, end;
        const ModuleSegment *s = module_segment(m, file_offset, &begin, &end);

        return s ? s->vaddr + (file_offset - s->offset) : UINT64_MAX;
}
