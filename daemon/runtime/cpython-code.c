/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "runtime/cpython-code.h"
#include "runtime/cpython-lines.h"
#include "runtime/cpython-text.h"
#include "util/hash.h"
#include "util/list.h"

enum {
        PAGE_BYTES = 4096,
        BYTES_SIZE = 16, /* PyBytesObject.ob_size, .ob_sval */
        BYTES_DATA = 32,
        LINES_MAX = 256 << 10,
        SET_BYTES_FULL =
                16
                << 20, /* of names and tables: time for a new set; from twice that on none is read */
};

/* proc(5), /proc/PID/pagemap */
#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)
#define PAGEMAP_FILE    (1ULL << 61) /* or shared */
#define USER_END        (1ULL << 47)

typedef struct Node {
        HashLink by_key;
        CpythonCode code;
} Node;

struct CpythonCodes {
        atomic_uint n_refs;
        pid_t pid;
        int pagemap_fd; /* the symbolizer's; of the memory that the process had when it was opened */
        CpythonLayout layout;
        HashTable by_key;
        atomic_size_t n_bytes; /* of names and tables */
};

static _Atomic uint64_t last_id;

CpythonCodes *cpython_codes_new(pid_t pid, const CpythonLayout *layout)
{
        CpythonCodes *c = calloc(1, sizeof(*c));

        if (!c)
                return NULL;
        atomic_init(&c->n_refs, 1);
        c->pid = pid;
        c->pagemap_fd = -1;
        c->layout = *layout;
        return c;
}

CpythonCodes *cpython_codes_ref(CpythonCodes *c)
{
        if (c)
                atomic_fetch_add_explicit(&c->n_refs, 1, memory_order_relaxed);
        return c;
}

static void node_free(Node *n)
{
        free(n->code.filename);
        free(n->code.name);
        free(n->code.lines);
        free(n);
}

CpythonCodes *cpython_codes_unref(CpythonCodes *c)
{
        if (!c || atomic_fetch_sub_explicit(&c->n_refs, 1, memory_order_acq_rel) != 1)
                return NULL;
        for (size_t i = 0; i < c->by_key.n_buckets; i++)
                for (HashLink *l = c->by_key.buckets[i], *next; l; l = next) {
                        next = l->next;
                        node_free(container_of(l, Node, by_key));
                }
        hash_table_deinit(&c->by_key);
        closep(&c->pagemap_fd);
        free(c);
        return NULL;
}

const CpythonLayout *cpython_codes_layout(const CpythonCodes *c)
{
        return &c->layout;
}

pid_t cpython_codes_pid(const CpythonCodes *c)
{
        return c->pid;
}

bool cpython_codes_full(const CpythonCodes *c)
{
        return c->by_key.n >= CPYTHON_CODES_MAX ||
               atomic_load_explicit(&c->n_bytes, memory_order_relaxed) >= SET_BYTES_FULL;
}

CpythonCode *cpython_codes_get(CpythonCodes *c, const struct swp_python_frame *f, bool *ret_new)
{
        uint64_t hash = hash_u64(f->code ^ f->identity);
        Node *n;

        *ret_new = false;
        for (HashLink *l = hash_table_find(&c->by_key, hash); l; l = hash_link_next(l)) {
                n = container_of(l, Node, by_key);
                if (n->code.address == f->code && n->code.identity == f->identity)
                        return &n->code;
        }
        n = calloc(1, sizeof(*n));
        if (!n)
                return NULL;
        n->code = (CpythonCode){
                .codes = c,
                .id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1,
                .address = f->code,
                .identity = f->identity,
        };
        if (hash_table_add(&c->by_key, &n->by_key, hash) < 0) {
                free(n);
                return NULL;
        }
        *ret_new = true;
        return &n->code;
}

/* ---- reading ---- */

/*
 * Whether reading [address, address + n) waits for nobody: a process can have its pages served by
 * another one, or by itself (a file system of its own, userfaultfd), and let a reader wait for ever.
 * Pages that are in memory are there, and swapped ones are the kernel's.
 */
static bool is_harmless(const CpythonCodes *c, uint64_t address, size_t n)
{
        uint64_t first = address / PAGE_BYTES, last = (address + n - 1) / PAGE_BYTES;

        if (n == 0 || address > UINT64_MAX - n || address + n > USER_END)
                return false;
        for (uint64_t at = first; at <= last;) {
                uint64_t entries[64], n_entries = last - at + 1;
                ssize_t got;

                if (n_entries > 64)
                        n_entries = 64;
                got = pread(c->pagemap_fd, entries, n_entries * sizeof(*entries),
                        (off_t)(at * sizeof(*entries)));
                if (got != (ssize_t)(n_entries * sizeof(*entries)))
                        return false;
                for (uint64_t i = 0; i < n_entries; i++)
                        if (!(entries[i] & PAGEMAP_PRESENT) &&
                                (entries[i] & (PAGEMAP_SWAPPED | PAGEMAP_FILE)) != PAGEMAP_SWAPPED)
                                return false;
                at += n_entries;
        }
        return true;
}

static bool read_memory(const CpythonCode *code, uint64_t address, void *ret, size_t n)
{
        struct iovec local = {.iov_base = ret, .iov_len = n};
        struct iovec remote = {.iov_base = (void *)address, .iov_len = n};

        return is_harmless(code->codes, address, n) &&
               process_vm_readv(code->codes->pid, &local, 1, &remote, 1, 0) == (ssize_t)n;
}

/* What a frame's code object was known by. */
typedef struct Head {
        uint64_t refs, type;
        uint32_t first_line;
        uint64_t filename, name, lines, name_hash;
} Head;

static bool read_head(const CpythonCode *code, Head *ret)
{
        const struct swp_python_layout *l = &code->codes->layout.walk;
        uint8_t block[SWP_PYTHON_BLOCK];

        if (l->code_bytes > sizeof(block) ||
                !read_memory(code, code->address, block, l->code_bytes))
                return false;
        memcpy(&ret->refs, block, sizeof(ret->refs));
        memcpy(&ret->type, block + SWP_PYTHON_TYPE, sizeof(ret->type));
        memcpy(&ret->first_line, block + l->code_firstlineno, sizeof(ret->first_line));
        memcpy(&ret->filename, block + l->code_filename, sizeof(ret->filename));
        memcpy(&ret->name, block + l->code_name, sizeof(ret->name));
        memcpy(&ret->lines, block + l->code_linetable, sizeof(ret->lines));
        return read_memory(code, ret->name + l->text_hash, &ret->name_hash, sizeof(ret->name_hash));
}

/*
 * Whether it is still the one that was met, and lives: then it also kept what it refers to. One that
 * is being freed has no references; in one that was, their number is the address of the next free
 * block, or nothing, while the rest of it may last for long. (The upper 16 bits are flags since 3.14.)
 */
static bool is_same(const CpythonCode *code, const Head *h)
{
        return (uint32_t)h->refs != 0 && (h->refs >> 32 & 0xffff) == 0 &&
               swp_python_identity(h->type, h->first_line, h->filename, h->name, h->lines,
                       h->name_hash) == code->identity;
}

static char *read_text(const CpythonCode *code, uint64_t address)
{
        uint8_t head[CPYTHON_TEXT_HEAD], *bytes;
        CpythonText text;
        char *ret = NULL;

        if (!read_memory(code, address, head, sizeof(head)) ||
                cpython_text_head(&text, &code->codes->layout, head))
                return NULL;
        bytes = malloc(text.n * text.kind + 1);
        if (bytes && (text.n == 0 ||
                             read_memory(code, address + text.offset, bytes, text.n * text.kind)))
                ret = cpython_text_decode(&text, bytes);
        free(bytes);
        return ret;
}

static void add_bytes(CpythonCodes *c, size_t n)
{
        atomic_fetch_add_explicit(&c->n_bytes, n, memory_order_relaxed);
}

static bool read_lines(CpythonCode *code, uint64_t address)
{
        uint64_t n;

        if (!read_memory(code, address + BYTES_SIZE, &n, sizeof(n)) || n > LINES_MAX)
                return false;
        code->lines = malloc(n + 1);
        if (!code->lines || (n > 0 && !read_memory(code, address + BYTES_DATA, code->lines, n)))
                return false;
        code->n_lines = n;
        add_bytes(code->codes, n);
        return true;
}

/* The function that calls __init__ when a class is called (_Py_InitCleanup, since 3.12). */
static bool is_hidden(const CpythonCode *code)
{
        return code->codes->layout.minor >= 12 && strcmp(code->filename, "__init__") == 0;
}

void cpython_code_read(CpythonCode *code)
{
        CpythonCodes *c = code->codes;
        Head before, after;

        if (code->state != CPYTHON_CODE_UNREAD)
                return;
        code->state = CPYTHON_CODE_LOST;
        if (c->pagemap_fd < 0) {
                char path[64];

                snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)c->pid);
                c->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
        }
        if (atomic_load_explicit(&c->n_bytes, memory_order_relaxed) >= 2 * (size_t)SET_BYTES_FULL ||
                !read_head(code, &before) || !is_same(code, &before))
                return;
        code->first_line = (int)before.first_line;
        code->filename = read_text(code, before.filename);
        code->name = read_text(code, before.name);
        if (code->filename && code->name)
                add_bytes(c, strlen(code->filename) + strlen(code->name));
        if (!code->filename || !code->name || !read_lines(code, before.lines) ||
                !read_head(code, &after) || !is_same(code, &after))
                return;
        code->state = is_hidden(code) ? CPYTHON_CODE_HIDDEN : CPYTHON_CODE_NAMED;
}

int64_t cpython_code_unit(const CpythonLayout *layout, const struct swp_python_frame *f)
{
        if (layout->code_adaptive)
                return ((int64_t)(f->instr - f->code - layout->code_adaptive)) >> 1;
        if (layout->minor == 10)
                return (int32_t)f->instr;
        return (int32_t)f->instr < 0 ? -1 : (int32_t)f->instr / 2;
}

char *cpython_code_signature(const CpythonCode *code, int64_t unit, bool lines)
{
        char *ret;
        int r;

        if (lines)
                r = asprintf(&ret, "%s.%s: %d", code->filename, code->name,
                        cpython_line(code->codes->layout.minor, code->lines, code->n_lines,
                                code->first_line, unit));
        else
                r = asprintf(&ret, "%s.%s", code->filename, code->name);
        return r < 0 ? NULL : ret;
}
