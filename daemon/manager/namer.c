/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/counter.h"
#include "core/stack.h"
#include "manager/namer.h"
#include "runtime/cpython-code.h"
#include "symbol/binary.h"
#include "symbol/kallsyms.h"
#include "symbol/signature.h"
#include "symbol/wait.h"
#include "unwind/module.h"
#include "util/error.h"
#include "util/hash.h"
#include "util/log.h"

/* Beyond either the memory is emptied: what is in use comes back at once. */
#define PLACES_MAX       (256u << 10)
#define PLACES_BYTES_MAX (64u << 20)

/* An address, and the functions that are there, outermost first: more than one when some are
 * inlined. */
typedef struct Place {
        HashLink by_address;
        FrameKind kind;
        bool unknown;    /* has no name */
        uint32_t module; /* id, of FRAME_CODE */
        uint64_t vaddr;
        size_t n;
        char *signatures[];
} Place;

struct Namer {
        bool lines;
        size_t max_depth;
        HashTable places;
        size_t places_bytes;
        bool kallsyms_tried;
        Kallsyms *kallsyms; /* NULL: not readable */
        char *anonymous;    /* the signature of code outside of files */
        const char **stack; /* of max_depth: the stack in work */
        uint8_t *kinds;     /* StackKind of each of it */
};

int namer_new(Namer **ret, bool lines, size_t max_depth)
{
        _cleanup_(namer_freep) Namer *n = calloc(1, sizeof(*n));

        if (!n)
                return error_origin(-ENOMEM);
        n->lines = lines;
        n->max_depth = max_depth > 0 ? max_depth : 1;
        n->stack = calloc(n->max_depth, sizeof(*n->stack));
        n->kinds = calloc(n->max_depth, sizeof(*n->kinds));
        n->anonymous = signature_native(NULL, &(SymbolFrame){0}, lines);
        if (!n->stack || !n->kinds || !n->anonymous)
                return error_origin(-ENOMEM);
        *ret = TAKE_PTR(n);
        return 0;
}

static void place_free(Place *p)
{
        for (size_t i = 0; i < p->n; i++)
                free(p->signatures[i]);
        free(p);
}

static void places_forget(Namer *n)
{
        for (size_t i = 0; i < n->places.n_buckets; i++)
                for (HashLink *l = n->places.buckets[i], *next; l; l = next) {
                        next = l->next;
                        place_free((Place *)l);
                }
        hash_table_deinit(&n->places);
        n->places_bytes = 0;
}

Namer *namer_free(Namer *n)
{
        if (!n)
                return NULL;
        places_forget(n);
        kallsyms_free(n->kallsyms);
        free(n->anonymous);
        free(n->stack);
        free(n->kinds);
        free(n);
        return NULL;
}

static size_t kernel_symbolize(Namer *n, uint64_t addr, SymbolFrame *ret)
{
        int r;

        if (!n->kallsyms_tried) {
                n->kallsyms_tried = true;
                r = kallsyms_load(&n->kallsyms);
                if (r < 0)
                        log_warning("kernel frames have no names: %s", strerror(-r));
        }
        *ret = (SymbolFrame){.function = n->kallsyms ? kallsyms_find(n->kallsyms, addr) : NULL};
        return 1;
}

static bool is_code(const Frame *frame)
{
        return frame->kind == FRAME_CODE || frame->kind == FRAME_LEAF;
}

/* The file is shown without its line, too: DWARF is asked either way. */
static size_t frame_symbolize(Namer *n, const Frame *frame, SymbolFrame *ret, size_t max)
{
        if (frame->kind == FRAME_KERNEL)
                return kernel_symbolize(n, frame->vaddr, ret);
        if (is_code(frame) && frame->module->symbols)
                return binary_symbolize(frame->module->symbols, frame->vaddr, true, ret, max);
        *ret = (SymbolFrame){0};
        return 1;
}

static char *signature_python(const CpythonCode *code, int64_t unit, bool lines)
{
        char *ret = cpython_code_signature(code, unit, lines);

        if (ret)
                signature_sanitize(ret);
        return ret;
}

/* Appends the signatures of the functions at the frame, outermost first. Return: 0, -ENOMEM. */
static int place_name(
        Namer *n, Place *p, const Frame *frame, const SymbolFrame *functions, size_t n_functions)
{
        const char *module = is_code(frame) ? frame->module->name : "[kernel]";

        if (frame->kind == FRAME_PYTHON) {
                if (frame->python->state == CPYTHON_CODE_HIDDEN)
                        return 0;
                p->signatures[0] = signature_python(frame->python, (int64_t)frame->vaddr, n->lines);
                p->n = p->signatures[0] ? 1 : 0;
                return p->signatures[0] ? 0 : error_origin(-ENOMEM);
        }
        for (size_t i = n_functions; i-- > 0; p->n++) {
                p->signatures[p->n] = frame->kind == FRAME_WAIT
                                              ? wait_signature(frame->vaddr)
                                              : signature_native(module, &functions[i], n->lines);
                if (!p->signatures[p->n])
                        return error_origin(-ENOMEM);
        }
        return 0;
}

/* Return: 0, -ENOMEM. */
static int place_new(Namer *n, Place **ret, const Frame *frame, uint32_t module, uint64_t hash)
{
        SymbolFrame functions[SYMBOL_MAX_INLINE];
        size_t n_functions = frame_symbolize(n, frame, functions, SYMBOL_MAX_INLINE);
        size_t size = sizeof(Place) + n_functions * sizeof(char *);
        Place *p = calloc(1, size);

        if (!p)
                return error_origin(-ENOMEM);
        p->kind = frame->kind;
        p->unknown = !functions[0].function;
        p->module = module;
        p->vaddr = frame->kind == FRAME_PYTHON ? frame->pc : frame->vaddr;
        if (place_name(n, p, frame, functions, n_functions) < 0 ||
                hash_table_add(&n->places, &p->by_address, hash) < 0) {
                place_free(p);
                return error_origin(-ENOMEM);
        }
        for (size_t i = 0; i < p->n; i++)
                size += strlen(p->signatures[i]) + 1;
        n->places_bytes += size;
        *ret = p;
        return 0;
}

static int place_find(Namer *n, const Frame *frame, const Place **ret)
{
        uint64_t vaddr = frame->kind == FRAME_PYTHON ? frame->pc : frame->vaddr;
        uint32_t module = is_code(frame) ? frame->module->id : 0;
        uint64_t hash = hash_u64(vaddr ^ (uint64_t)module << 48);
        Place *p;
        int r;

        for (HashLink *l = hash_table_find(&n->places, hash); l; l = hash_link_next(l)) {
                p = (Place *)l;
                if (p->kind == frame->kind && p->module == module && p->vaddr == vaddr) {
                        *ret = p;
                        return 0;
                }
        }
        r = place_new(n, &p, frame, module, hash);
        if (r)
                return error_trace(r);
        *ret = p;
        return 0;
}

/* Return: whether there was room for it. */
static bool stack_append(Namer *n, size_t *at, const char *signature, StackKind kind)
{
        if (*at == n->max_depth) {
                n->stack[n->max_depth - 1] = "[cut]";
                n->kinds[n->max_depth - 1] = STACK_KIND_UNKNOWN;
                return false;
        }
        n->stack[*at] = signature;
        n->kinds[(*at)++] = kind;
        return true;
}

/* Fills n->stack and n->kinds. Return: 0, NAMER_E_TORN, -ENOMEM. */
static int stack_name(Namer *n, const Frame *frames, size_t n_frames, size_t *ret_n, bool *ret_cut)
{
        static const StackKind kinds[] = {
                [FRAME_CODE] = STACK_KIND_NATIVE,
                [FRAME_LEAF] = STACK_KIND_NATIVE,
                [FRAME_KERNEL] = STACK_KIND_KERNEL,
                [FRAME_WAIT] = STACK_KIND_WAITING,
                [FRAME_PYTHON] = STACK_KIND_PYTHON,
        };
        bool cut = false;
        size_t at = 0, leaf_at = SIZE_MAX;

        for (size_t i = n_frames; i-- > 0 && !cut;) {
                const Place *p = NULL;
                int r;

                if (frames[i].kind == FRAME_CODE && !frames[i].module) {
                        cut = !stack_append(n, &at, n->anonymous, STACK_KIND_ANONYMOUS);
                        continue;
                }
                if (frames[i].kind == FRAME_PYTHON) {
                        cpython_code_read(frames[i].python);
                        if (frames[i].python->state == CPYTHON_CODE_LOST)
                                return NAMER_E_TORN;
                }
                r = place_find(n, &frames[i], &p);
                if (r)
                        return error_trace(r);
                if (frames[i].kind == FRAME_LEAF) {
                        if (leaf_at != SIZE_MAX && p->unknown)
                                continue;
                        if (leaf_at != SIZE_MAX)
                                at = leaf_at;
                        leaf_at = at;
                }
                for (size_t k = 0; k < p->n && !cut; k++)
                        cut = !stack_append(n, &at, p->signatures[k], kinds[p->kind]);
        }
        *ret_n = at;
        *ret_cut = cut;
        return 0;
}

int namer_stack(Namer *n, const Frame *frames, size_t n_frames, char ***ret, uint8_t **ret_kinds,
        size_t *ret_n, bool *ret_cut)
{
        size_t n_signatures = 0, size;
        char **signatures = NULL, *strings;
        uint8_t *kinds = NULL;
        bool cut = false;
        int r;

        /* Not while a stack is in work, which points to them. */
        if (n->places.n > PLACES_MAX || n->places_bytes > PLACES_BYTES_MAX)
                places_forget(n);
        r = stack_name(n, frames, n_frames, &n_signatures, &cut);
        if (r == NAMER_E_TORN)
                counter_add(COUNTER_STACKS_PYTHON_TORN, 1);
        if (r)
                return error_trace(r);
        size = n_signatures * sizeof(*signatures);
        for (size_t i = 0; i < n_signatures; i++)
                size += strlen(n->stack[i]) + 1;
        if (n_signatures > 0) {
                signatures = malloc(size);
                kinds = malloc(n_signatures);
                if (!signatures || !kinds) {
                        free(signatures);
                        free(kinds);
                        return error_origin(-ENOMEM);
                }
                memcpy(kinds, n->kinds, n_signatures);
                strings = (char *)(signatures + n_signatures);
                for (size_t i = 0; i < n_signatures; i++) {
                        signatures[i] = strings;
                        strings = stpcpy(strings, n->stack[i]) + 1;
                }
        }
        if (cut)
                counter_add(COUNTER_STACKS_CUT, 1);
        *ret = signatures;
        *ret_kinds = kinds;
        *ret_n = n_signatures;
        *ret_cut = cut;
        return 0;
}
