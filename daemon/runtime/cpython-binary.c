/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpython-binary.h"
#include "util/cleanup.h"
#include "util/error.h"

#define EVAL "_PyEval_EvalFrameDefault"
/* A function that holds all instructions is larger: 30 KiB at least. */
#define LOOP_BYTES_MIN 8192
/* Jumps into the middle of one other function that are no accident. */
#define COLD_JUMPS_MIN 16

/* Of a file, what is read: a section whose bytes are looked at, the symbols and their names. */
#define SECTION_MAX (256u << 20)
#define SYMBOLS_MAX (8u << 20)
#define STRINGS_MAX (1u << 30)
/* The largest loop that was met has 100 KiB. */
#define LOOP_BYTES_MAX (4u << 20)

/* What the symbols of a file tell. */
typedef struct Found {
        CpythonBinary *binary;
        uint64_t runtime, version; /* of _PyRuntime, Py_Version; 0: not met */
        bool python;               /* any of it */
        /* Functions that a version was the first to have. */
        bool has_3_8, has_3_9, has_3_10;
} Found;

/* Return: whether there is a section with contents that covers [vaddr, vaddr + n). */
static bool find_section(Elf *elf, uint64_t vaddr, size_t n, Elf_Scn **ret, GElf_Shdr *ret_shdr)
{
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
                if (!gelf_getshdr(scn, ret_shdr) || !(ret_shdr->sh_flags & SHF_ALLOC) ||
                        ret_shdr->sh_type == SHT_NOBITS || vaddr < ret_shdr->sh_addr ||
                        vaddr - ret_shdr->sh_addr >= ret_shdr->sh_size ||
                        n > ret_shdr->sh_size - (vaddr - ret_shdr->sh_addr) ||
                        ret_shdr->sh_size > SECTION_MAX)
                        continue;
                *ret = scn;
                return true;
        }
        return false;
}

/* NULL: there are not n bytes. */
static const void *bytes_at(Elf *elf, uint64_t vaddr, size_t n)
{
        Elf_Data *data;
        GElf_Shdr shdr;
        Elf_Scn *scn;

        if (!find_section(elf, vaddr, n, &scn, &shdr))
                return NULL;
        data = elf_rawdata(scn, NULL);
        if (!data || !data->d_buf || data->d_size < shdr.sh_size)
                return NULL;
        return (const uint8_t *)data->d_buf + (vaddr - shdr.sh_addr);
}

static void add_range(CpythonBinary *b, uint64_t start, uint64_t size)
{
        if (size == 0 || start + size < start || b->n_ranges == CPYTHON_RANGES_MAX ||
                cpython_binary_is_eval(b, start))
                return;
        b->ranges[b->n_ranges].start = start;
        b->ranges[b->n_ranges++].end = start + size;
}

static void note_symbol(Found *f, const char *name, const GElf_Sym *sym)
{
        if (name[0] != 'P' && name[0] != '_')
                return;
        if (strcmp(name, "_PyRuntime") == 0)
                f->runtime = sym->st_value;
        else if (strcmp(name, "Py_Version") == 0)
                f->version = sym->st_value;
        else if (strcmp(name, "PyCode_NewWithPosOnlyArgs") == 0)
                f->has_3_8 = true;
        else if (strcmp(name, "PyObject_VectorcallMethod") == 0)
                f->has_3_9 = true;
        else if (strcmp(name, "Py_NewRef") == 0)
                f->has_3_10 = true;
        else if (strcmp(name, "PyEval_EvalFrameEx") == 0)
                f->python = true;
        else if (strncmp(name, EVAL, sizeof(EVAL) - 1) == 0 &&
                 (name[sizeof(EVAL) - 1] == '\0' || name[sizeof(EVAL) - 1] == '.'))
                add_range(f->binary, sym->st_value, sym->st_size);
}

/* libelf reads both in one piece each. */
static bool has_usable_size(Elf *elf, const GElf_Shdr *symbols)
{
        Elf_Scn *scn = elf_getscn(elf, symbols->sh_link);
        GElf_Shdr strings;

        return symbols->sh_size / sizeof(Elf64_Sym) <= SYMBOLS_MAX && scn &&
               gelf_getshdr(scn, &strings) && strings.sh_size <= STRINGS_MAX;
}

/* Of the first such section: there is one at most. */
static void read_symbols(Found *f, Elf *elf, GElf_Word type)
{
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
                GElf_Shdr shdr;
                Elf_Data *data;
                size_t n;

                if (!gelf_getshdr(scn, &shdr) || shdr.sh_type != type)
                        continue;
                data = shdr.sh_entsize != 0 && has_usable_size(elf, &shdr) ? elf_getdata(scn, NULL)
                                                                           : NULL;
                if (!data)
                        return;
                n = data->d_size / sizeof(Elf64_Sym);
                for (size_t i = 0; i < n && i <= INT32_MAX; i++) {
                        const char *name;
                        GElf_Sym sym;

                        if (!gelf_getsym(data, (int)i, &sym) || sym.st_shndx == SHN_UNDEF ||
                                sym.st_value == 0)
                                continue;
                        name = elf_strptr(elf, shdr.sh_link, sym.st_name);
                        if (name)
                                note_symbol(f, name, &sym);
                }
                return;
        }
}

/* Return: the minor version of 3.minor; 0: another one. */
static unsigned version_of(const Found *f, Elf *elf)
{
        const void *bytes = f->version ? bytes_at(elf, f->version, sizeof(uint64_t)) : NULL;

        if (bytes) {
                uint64_t version; /* PY_VERSION_HEX */

                memcpy(&version, bytes, sizeof(version));
                return version >> 24 == 3 ? version >> 16 & 0xff : 0;
        }
        return f->has_3_10 ? 10 : f->has_3_9 ? 9 : f->has_3_8 ? 8 : 0;
}

/* Return: 0, CPYTHON_BINARY_E_…. */
static int find_layout(CpythonBinary *b, const Found *f, Elf *elf)
{
        enum { DEBUG_OFFSETS_BYTES = 49 * 8 };
        const void *runtime = bytes_at(elf, f->runtime, DEBUG_OFFSETS_BYTES);
        unsigned minor = version_of(f, elf);

        if (minor < CPYTHON_MINOR_MIN || minor > CPYTHON_MINOR_MAX)
                return CPYTHON_BINARY_E_VERSION;
        if (minor < 13)
                return cpython_layout_known(&b->layout, minor) ? CPYTHON_BINARY_E_VERSION : 0;
        if (!runtime)
                return CPYTHON_BINARY_E_BAD;
        switch (cpython_layout_parse(&b->layout, runtime, DEBUG_OFFSETS_BYTES)) {
        case 0:
                return 0;
        case CPYTHON_LAYOUT_E_VERSION:
                return CPYTHON_BINARY_E_VERSION;
        case CPYTHON_LAYOUT_E_THREADS:
                return CPYTHON_BINARY_E_THREADS;
        default:
                return CPYTHON_BINARY_E_BAD;
        }
}

/* ---- the part of the loop that the compiler moved away, without a symbol ---- */

/* The table of .eh_frame_hdr: where functions, and parts of such, begin, in order. */
typedef struct Parts {
        uint64_t base;
        size_t n;
        const uint8_t *table; /* of pairs of int32_t, the first of which counts from base */
} Parts;

static uint64_t part_start(const Parts *p, size_t i)
{
        int32_t offset;

        memcpy(&offset, p->table + 8 * i, sizeof(offset));
        return p->base + (uint64_t)(int64_t)offset;
}

static bool read_parts(Elf *elf, Parts *ret)
{
        size_t names, head = 12;

        if (elf_getshdrstrndx(elf, &names) < 0)
                return false;
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
                const uint8_t *bytes;
                GElf_Shdr shdr;
                Elf_Data *data;
                const char *name;
                uint32_t n;

                if (!gelf_getshdr(scn, &shdr) || shdr.sh_type == SHT_NOBITS ||
                        shdr.sh_size > SECTION_MAX)
                        continue;
                name = elf_strptr(elf, names, shdr.sh_name);
                if (!name || strcmp(name, ".eh_frame_hdr") != 0)
                        continue;
                data = elf_rawdata(scn, NULL);
                if (!data || !data->d_buf || data->d_size < head)
                        return false;
                bytes = data->d_buf;
                /* Version 1; a pointer and a number of four bytes; the table's are signed, and count from here. */
                if (bytes[0] != 1 || (bytes[1] & 15) != 11 || bytes[2] != 3 || bytes[3] != 0x3b)
                        return false;
                memcpy(&n, bytes + 8, sizeof(n));
                if (n > (data->d_size - head) / 8)
                        return false;
                *ret = (Parts){.base = shdr.sh_addr, .n = n, .table = bytes + head};
                return n > 1;
        }
        return false;
}

/* The part that covers the address, or 0; the first one and the last one are not asked for. */
static size_t find_part(const Parts *p, uint64_t vaddr)
{
        size_t low = 0, high = p->n - 1;

        while (high - low > 1) {
                size_t middle = low + (high - low) / 2;

                if (part_start(p, middle) <= vaddr)
                        low = middle;
                else
                        high = middle;
        }
        return part_start(p, low) < vaddr ? low : 0;
}

/* Bytes that read as a jump: "e9", or "0f 80" to "0f 8f", and a distance. Return: where it leads; 0: none. */
static uint64_t jump_target(const uint8_t *bytes, size_t n, uint64_t vaddr)
{
        size_t size = bytes[0] == 0xe9                                  ? 1
                      : n > 1 && bytes[0] == 0x0f && bytes[1] >> 4 == 8 ? 2
                                                                        : 0;
        int32_t distance;

        if (size == 0 || n < size + sizeof(distance))
                return 0;
        memcpy(&distance, bytes + size, sizeof(distance));
        return vaddr + size + sizeof(distance) + (uint64_t)(int64_t)distance;
}

/*
 * Into a moved part there are hundreds of jumps, to anywhere in it; to other functions they lead to
 * where these begin. Return: 0, -ENOMEM.
 */
static int find_cold(CpythonBinary *b, Elf *elf)
{
        _cleanup_(freep) uint16_t *hits = NULL;
        uint64_t start = b->ranges[0].start, end = b->ranges[0].end;
        const uint8_t *bytes =
                end - start <= LOOP_BYTES_MAX ? bytes_at(elf, start, end - start) : NULL;
        size_t best = 0;
        GElf_Shdr text;
        Elf_Scn *scn;
        Parts parts;

        if (!bytes || !find_section(elf, start, end - start, &scn, &text) ||
                !read_parts(elf, &parts))
                return 0;
        hits = calloc(parts.n, sizeof(*hits));
        if (!hits)
                return error_origin(-ENOMEM);
        for (uint64_t at = start; at < end; at++) {
                uint64_t target = jump_target(bytes + (at - start), end - at, at);
                size_t part;

                /* Stubs of other libraries' functions are elsewhere. */
                if (target < text.sh_addr || target - text.sh_addr >= text.sh_size ||
                        (target >= start && target < end))
                        continue;
                part = find_part(&parts, target);
                if (part == 0)
                        continue;
                hits[part] += hits[part] < UINT16_MAX;
                if (hits[part] > hits[best])
                        best = part;
        }
        if (best > 0 && hits[best] >= COLD_JUMPS_MIN)
                add_range(b, part_start(&parts, best),
                        part_start(&parts, best + 1) - part_start(&parts, best));
        return 0;
}

/* Return: whether a segment of code covers the offset. */
static bool find_bias(Elf *elf, uint64_t start, uint64_t offset, uint64_t *ret)
{
        size_t n;

        if (elf_getphdrnum(elf, &n) < 0)
                return false;
        for (size_t i = 0; i < n && i < INT32_MAX; i++) {
                GElf_Phdr p;

                if (!gelf_getphdr(elf, (int)i, &p) || p.p_type != PT_LOAD || !(p.p_flags & PF_X) ||
                        offset >= p.p_offset + p.p_filesz)
                        continue;
                /* Mappings begin with the segment's page. */
                *ret = start - (p.p_vaddr - p.p_offset + offset);
                return true;
        }
        return false;
}

int cpython_binary_peek(
        CpythonBinary **ret, Elf *elf, uint64_t start, uint64_t offset, uint64_t *ret_bias)
{
        _cleanup_(freep) CpythonBinary *b = calloc(1, sizeof(*b));
        Found f = {.binary = b};
        int r;

        if (!b)
                return error_origin(-ENOMEM);
        read_symbols(&f, elf, SHT_DYNSYM);
        r = f.runtime ? find_layout(b, &f, elf) : CPYTHON_BINARY_E_NONE;
        if (r == 0 && !find_bias(elf, start, offset, ret_bias))
                r = CPYTHON_BINARY_E_BAD;
        if (r)
                return r;
        b->runtime_vaddr = f.runtime;
        *ret = b;
        b = NULL;
        return 0;
}

int cpython_binary_new(CpythonBinary **ret, Elf *elf, Elf *debug)
{
        _cleanup_(freep) CpythonBinary *b = calloc(1, sizeof(*b));
        Found f = {.binary = b};
        int r;

        if (!b)
                return error_origin(-ENOMEM);
        read_symbols(&f, elf, SHT_DYNSYM);
        if (!f.runtime && !f.python)
                return CPYTHON_BINARY_E_NONE;
        read_symbols(&f, elf, SHT_SYMTAB);
        if (debug)
                read_symbols(&f, debug, SHT_SYMTAB);
        r = find_layout(b, &f, elf);
        if (r)
                return r;
        if (!f.runtime || b->n_ranges == 0)
                return CPYTHON_BINARY_E_BAD;
        if (b->n_ranges == 1) {
                r = find_cold(b, elf);
                if (r)
                        return error_trace(r);
        }
        b->runtime_vaddr = f.runtime;
        b->tail_calls =
                b->layout.minor >= 14 && b->ranges[0].end - b->ranges[0].start < LOOP_BYTES_MIN;
        *ret = b;
        b = NULL;
        return 0;
}

bool cpython_binary_is_eval(const CpythonBinary *b, uint64_t vaddr)
{
        for (size_t i = 0; i < b->n_ranges; i++)
                if (vaddr >= b->ranges[i].start && vaddr < b->ranges[i].end)
                        return true;
        return false;
}
