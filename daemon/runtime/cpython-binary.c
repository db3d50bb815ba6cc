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

/* What the symbols of a file tell. */
typedef struct Found {
        CpythonBinary *binary;
        uint64_t runtime, version; /* of _PyRuntime, Py_Version; 0: not met */
        bool python;               /* any of it */
        /* Functions that a version was the first to have. */
        bool has_3_8, has_3_9, has_3_10;
} Found;

/* Addresses of the file that are in a section with contents → bytes. NULL: there are not n. */
static const void *bytes_at(Elf *elf, uint64_t vaddr, size_t n)
{
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
                GElf_Shdr shdr;
                Elf_Data *data;

                if (!gelf_getshdr(scn, &shdr) || !(shdr.sh_flags & SHF_ALLOC) ||
                        shdr.sh_type == SHT_NOBITS || vaddr < shdr.sh_addr ||
                        vaddr - shdr.sh_addr >= shdr.sh_size ||
                        n > shdr.sh_size - (vaddr - shdr.sh_addr))
                        continue;
                data = elf_rawdata(scn, NULL);
                if (!data || !data->d_buf || data->d_size < shdr.sh_size)
                        return NULL;
                return (const uint8_t *)data->d_buf + (vaddr - shdr.sh_addr);
        }
        return NULL;
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

static void read_symbols(Found *f, Elf *elf, GElf_Word type)
{
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
                GElf_Shdr shdr;
                Elf_Data *data;
                size_t n;

                if (!gelf_getshdr(scn, &shdr) || shdr.sh_type != type || shdr.sh_entsize == 0)
                        continue;
                data = elf_getdata(scn, NULL);
                if (!data)
                        continue;
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
        b->runtime_vaddr = f.runtime;
        b->tail_calls = b->layout.minor >= 14 &&
                        b->ranges[0].end - b->ranges[0].start < LOOP_BYTES_MIN;
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
