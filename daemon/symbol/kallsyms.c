/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "symbol/kallsyms.h"
#include "util/error.h"

/* A kernel with all its modules has some 200000 symbols in 10 MiB of text. */
#define TEXT_MAX (64u << 20)
/* No function is as long: behind the last symbol of a range nothing is known. */
#define FUNCTION_MAX (1u << 20)

typedef struct KernelSymbol {
        uint64_t addr;
        uint32_t name; /* offset in the names */
        uint32_t rank; /* of one address the lowest is the best: global, weak, local */
} KernelSymbol;

struct Kallsyms {
        size_t n;
        KernelSymbol *symbols;
        char *names;
};

Kallsyms *kallsyms_free(Kallsyms *k)
{
        if (!k)
                return NULL;
        free(k->symbols);
        free(k->names);
        free(k);
        return NULL;
}

static int symbol_compare(const void *a, const void *b)
{
        const KernelSymbol *x = a, *y = b;

        if (x->addr != y->addr)
                return x->addr < y->addr ? -1 : 1;
        if (x->rank != y->rank)
                return x->rank < y->rank ? -1 : 1;
        return x->name < y->name ? -1 : x->name > y->name;
}

/* "ffffffff81000000 T _stext", or with "\t[module]" behind. Data, and addresses that are hidden
 * (0), are no functions. */
static bool line_parse(const char *line, const char *end, uint64_t *ret_addr, uint32_t *ret_rank,
        const char **ret_name, size_t *ret_n_name)
{
        static const char types[] = "TWtw";
        const char *p = line, *name, *type;
        uint64_t addr = 0;

        for (; p < end && p - line < 16; p++) {
                int digit = *p >= '0' && *p <= '9'   ? *p - '0'
                            : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
                                                     : -1;

                if (digit < 0)
                        break;
                addr = addr << 4 | (uint64_t)digit;
        }
        if (addr == 0 || end - p < 4 || p[0] != ' ' || p[1] == '\0' || p[2] != ' ')
                return false;
        type = strchr(types, p[1]);
        if (!type)
                return false;
        for (p = name = p + 3; p < end && *p != '\t' && *p != ' ' && *p != '\0'; p++)
                ;
        /* The compiler's parts of a function (".cold", ".isra.0") are the function. */
        *ret_name = name;
        *ret_n_name = (size_t)(p - name);
        for (p = name + 1; p < name + *ret_n_name; p++)
                if (*p == '.')
                        *ret_n_name = (size_t)(p - name);
        *ret_addr = addr;
        *ret_rank = (uint32_t)(type - types);
        return *ret_n_name > 0;
}

int kallsyms_parse(Kallsyms **ret, const char *text, size_t size)
{
        _cleanup_(kallsyms_freep) Kallsyms *k = NULL;
        size_t n_lines = 1, n_names = 0, n = 0;

        if (size > TEXT_MAX)
                size = TEXT_MAX;
        for (size_t i = 0; i < size; i++)
                n_lines += text[i] == '\n';
        k = calloc(1, sizeof(*k));
        if (!k)
                return error_origin(-ENOMEM);
        /* A name and its NUL take no more than their line does. */
        k->names = malloc(size + 1);
        k->symbols = reallocarray(NULL, n_lines, sizeof(*k->symbols));
        if (!k->names || !k->symbols)
                return error_origin(-ENOMEM);
        for (const char *line = text, *end = text + size; line < end;) {
                const char *line_end = memchr(line, '\n', (size_t)(end - line)), *name;
                KernelSymbol *symbol = &k->symbols[k->n];
                size_t n_name;

                if (!line_end)
                        line_end = end;
                if (line_parse(line, line_end, &symbol->addr, &symbol->rank, &name, &n_name)) {
                        symbol->name = (uint32_t)n_names;
                        memcpy(k->names + n_names, name, n_name);
                        k->names[n_names + n_name] = '\0';
                        n_names += n_name + 1;
                        k->n++;
                }
                line = line_end + 1;
        }
        if (k->n > 0)
                qsort(k->symbols, k->n, sizeof(*k->symbols), symbol_compare);
        for (size_t i = 0; i < k->n; i++)
                if (n == 0 || k->symbols[n - 1].addr != k->symbols[i].addr)
                        k->symbols[n++] = k->symbols[i];
        k->n = n;
        *ret = TAKE_PTR(k);
        return 0;
}

int kallsyms_load(Kallsyms **ret)
{
        _cleanup_(closep) int fd = -1;
        _cleanup_(freep) char *text = NULL;
        size_t n = 0, n_allocated = 1u << 20;

        fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return error_origin(-errno);
        for (;;) {
                char *larger = n == 0 || n == n_allocated ? realloc(text, n_allocated *= 2) : text;
                ssize_t got;

                if (!larger)
                        return error_origin(-ENOMEM);
                text = larger;
                got = read(fd, text + n, n_allocated - n);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return error_origin(-errno);
                n += (size_t)got;
                if (got == 0 || n >= TEXT_MAX)
                        return error_trace(kallsyms_parse(ret, text, n));
        }
}

const char *kallsyms_find(const Kallsyms *k, uint64_t addr)
{
        size_t low = 0, high = k->n;

        /* After this, symbols before `low` start at or before the address. */
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (k->symbols[middle].addr <= addr)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (low == 0 || addr - k->symbols[low - 1].addr >= FUNCTION_MAX)
                return NULL;
        return k->names + k->symbols[low - 1].name;
}
