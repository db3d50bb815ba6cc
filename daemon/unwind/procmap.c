/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/procmap.h"
#include "util/error.h"

/*
 * A line is "START-END PERMS OFFSET MAJOR:MINOR INODE", numbers hexadecimal but for the inode, then
 * blanks and the name up to the end of the line. Only the name is the process's to choose, and the
 * kernel writes a newline in it as "\012"; so whatever else does not fit was not written by the
 * kernel.
 */

enum {
        MAPPINGS_MAX = 65530, /* vm.max_map_count's default */
};

typedef struct Cursor {
        char *p, *end; /* end: the line's newline */
} Cursor;

static bool take_char(Cursor *c, char wanted)
{
        if (c->p == c->end || *c->p != wanted)
                return false;
        c->p++;
        return true;
}

/* Whether one of two characters comes next; *ret tells if it was `yes`. */
static bool take_flag(Cursor *c, char yes, char no, bool *ret)
{
        if (c->p == c->end || (*c->p != yes && *c->p != no))
                return false;
        *ret = *c->p++ == yes;
        return true;
}

static bool take_number(Cursor *c, unsigned base, uint64_t max, uint64_t *ret)
{
        const char *begin = c->p;
        uint64_t value = 0;

        for (; c->p < c->end; c->p++) {
                unsigned digit;

                if (*c->p >= '0' && *c->p <= '9')
                        digit = *c->p - '0';
                else if (base == 16 && *c->p >= 'a' && *c->p <= 'f')
                        digit = *c->p - 'a' + 10;
                else
                        break;
                if (value > (max - digit) / base)
                        return false;
                value = value * base + digit;
        }
        if (c->p == begin)
                return false;
        *ret = value;
        return true;
}

static void take_name(Cursor *c, Mapping *m)
{
        static const char suffix[] = " (deleted)";
        size_t n, n_suffix = sizeof(suffix) - 1;

        while (take_char(c, ' '))
                ;
        m->name = c->p;
        *c->end = '\0';
        n = c->end - c->p;
        if (n > n_suffix && memcmp(c->end - n_suffix, suffix, n_suffix) == 0) {
                m->deleted = true;
                c->end[-(ptrdiff_t)n_suffix] = '\0';
        }
        /* A name that the process gave by prctl(PR_SET_VMA_ANON_NAME) does not make it special. */
        m->special = m->inode == 0 && m->name[0] == '[' && strncmp(m->name, "[anon", 5) != 0;
}

static bool take_line(Cursor *c, Mapping *m)
{
        uint64_t major = 0, minor = 0;
        bool shared;

        if (!take_number(c, 16, UINT64_MAX, &m->start) || !take_char(c, '-') ||
                !take_number(c, 16, UINT64_MAX, &m->end) || !take_char(c, ' ') ||
                !take_flag(c, 'r', '-', &m->read) || !take_flag(c, 'w', '-', &m->write) ||
                !take_flag(c, 'x', '-', &m->exec) || !take_flag(c, 's', 'p', &shared) ||
                !take_char(c, ' ') || !take_number(c, 16, UINT64_MAX, &m->offset) ||
                !take_char(c, ' ') || !take_number(c, 16, UINT32_MAX, &major) ||
                !take_char(c, ':') || !take_number(c, 16, UINT32_MAX, &minor) ||
                !take_char(c, ' ') || !take_number(c, 10, UINT64_MAX, &m->inode))
                return false;
        if (c->p != c->end && *c->p != ' ')
                return false;
        m->dev_major = (uint32_t)major;
        m->dev_minor = (uint32_t)minor;
        take_name(c, m);
        return m->start < m->end;
}

static size_t count_lines(const char *text, size_t size)
{
        size_t n = 0;

        for (const char *p = text, *end = text + size; n < MAPPINGS_MAX; n++) {
                p = memchr(p, '\n', end - p);
                if (!p)
                        break;
                p++;
        }
        return n;
}

int procmap_parse(ProcMap **ret, const char *text, size_t size)
{
        _cleanup_(procmap_unrefp) ProcMap *map = calloc(1, sizeof(*map));
        size_t n_lines = count_lines(text, size);
        uint64_t last_end = 0;
        char *p;

        if (!map)
                return error_origin(-ENOMEM);
        atomic_init(&map->n_refs, 1);
        map->text = malloc(size + 1);
        map->mappings = calloc(n_lines + 1, sizeof(*map->mappings));
        if (!map->text || !map->mappings)
                return error_origin(-ENOMEM);
        memcpy(map->text, text, size);

        p = map->text;
        for (size_t i = 0; i < n_lines; i++) {
                Cursor c = {.p = p, .end = memchr(p, '\n', map->text + size - p)};
                Mapping *m = &map->mappings[i];

                if (!take_line(&c, m) || m->start < last_end)
                        return PROCMAP_E_MALFORMED;
                last_end = m->end;
                p = c.end + 1;
                map->n++;
                map->generates_code |= m->exec && m->inode == 0 && !m->special;
        }
        if (n_lines < MAPPINGS_MAX && p != map->text + size)
                return PROCMAP_E_MALFORMED; /* cut off within a line */

        *ret = TAKE_PTR(map);
        return 0;
}

ProcMap *procmap_ref(ProcMap *p)
{
        if (p)
                atomic_fetch_add_explicit(&p->n_refs, 1, memory_order_relaxed);
        return p;
}

ProcMap *procmap_unref(ProcMap *p)
{
        if (!p || atomic_fetch_sub_explicit(&p->n_refs, 1, memory_order_acq_rel) != 1)
                return NULL;
        for (size_t i = 0; i < p->n; i++)
                module_unref(p->mappings[i].module);
        free(p->mappings);
        free(p->text);
        free(p);
        return NULL;
}

static const Mapping *next_code(const ProcMap *p, size_t *i)
{
        while (*i < p->n && !p->mappings[*i].exec)
                (*i)++;
        return *i < p->n ? &p->mappings[(*i)++] : NULL;
}

static bool mapping_equal(const Mapping *a, const Mapping *b)
{
        return a->start == b->start && a->end == b->end && a->offset == b->offset &&
               a->inode == b->inode && a->dev_major == b->dev_major &&
               a->dev_minor == b->dev_minor && a->module == b->module;
}

bool procmap_same_code(const ProcMap *a, const ProcMap *b)
{
        size_t i = 0, k = 0;

        if (a->go != b->go)
                return false;
        for (;;) {
                const Mapping *m = next_code(a, &i), *n = next_code(b, &k);

                if (!m || !n)
                        return m == n;
                if (!mapping_equal(m, n))
                        return false;
        }
}

const Mapping *procmap_find(const ProcMap *p, uint64_t addr)
{
        const Mapping *m = p->mappings;
        size_t n = p->n;

        if (n == 0)
                return NULL;
        while (n > 1) { /* m->start <= addr, or m is the first one */
                size_t half = n / 2;

                m = m[half].start <= addr ? m + half : m;
                n -= half;
        }
        return addr >= m->start && addr < m->end ? m : NULL;
}
