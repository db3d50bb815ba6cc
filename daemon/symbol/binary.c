/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "symbol/binary.h"
#include "symbol/debug-file.h"
#include "symbol/dwarf-lines.h"
#include "symbol/elf-file.h"
#include "symbol/elf-symbols.h"
#include "util/error.h"
#include "util/hash.h"

/* Demangled names of one binary. Beyond that names are shown as they are in the file. */
#define NAMES_BYTES_MAX (64u << 20)

/* A symbol that was met, and how it reads. */
typedef struct Name {
        HashLink by_symbol;
        const char *symbol;
        char *text;
} Name;

struct Binary {
        char *name;
        ElfFile *file;
        ElfFile *debug; /* separate debug file, or NULL */
        ElfFile *alt;   /* what the DWARF refers to, or NULL */
        ElfFile *mini;  /* unpacked .gnu_debugdata, or NULL */
        /* Both are large, and read only when they are asked for. */
        bool symbols_tried, lines_tried;
        ElfSymbols *symbols;
        DwarfLines *lines;
        HashTable names;
        size_t names_bytes;
};

static bool file_has_section(ElfFile *f, const char *name)
{
        GElf_Shdr shdr;

        return elf_file_section(f, name, &shdr) != NULL;
}

static bool file_has_dwarf(ElfFile *f)
{
        return file_has_section(f, ".debug_info") || file_has_section(f, ".zdebug_info");
}

static ElfFile *file_with_dwarf(Binary *b)
{
        return file_has_dwarf(b->file)                ? b->file
               : b->debug && file_has_dwarf(b->debug) ? b->debug
                                                      : NULL;
}

static int debug_files_open(Binary *b, int root_fd)
{
        _cleanup_(freep) char *path = NULL;
        ElfFile *dwarf;
        int r;

        if (!file_has_section(b->file, ".symtab") || !file_has_dwarf(b->file)) {
                r = debug_file_find(&b->debug, &path, b->file, root_fd);
                if (r)
                        return error_trace(r);
        }
        dwarf = file_with_dwarf(b);
        if (!dwarf)
                return 0;
        return error_trace(
                debug_file_find_alt(&b->alt, dwarf, dwarf == b->debug ? path : NULL, root_fd));
}

static int symbols_read(Binary *b)
{
        ElfFile *with_symtab = b->file;
        int r;

        b->symbols_tried = true;
        if (!file_has_section(b->file, ".symtab")) {
                with_symtab = b->debug;
                if (!b->debug || !file_has_section(b->debug, ".symtab")) {
                        r = debug_file_unpack(&b->mini, b->file);
                        if (r)
                                return error_trace(r);
                        with_symtab = b->mini;
                }
        }
        r = elf_symbols_new(&b->symbols);
        if (r == 0 && with_symtab)
                r = elf_symbols_add(b->symbols, with_symtab->elf, SHT_SYMTAB);
        if (r == 0)
                r = elf_symbols_add(b->symbols, b->file->elf, SHT_DYNSYM);
        if (r == 0)
                r = elf_symbols_add_plt(b->symbols, b->file->elf);
        if (r)
                return error_trace(r);
        elf_symbols_finish(b->symbols);
        return 0;
}

/* Takes the file over. */
static int binary_new_file(Binary **ret, ElfFile *file, const char *name, int root_fd)
{
        _cleanup_(binary_freep) Binary *b = calloc(1, sizeof(*b));
        int r;

        if (!b) {
                elf_file_free(file);
                return error_origin(-ENOMEM);
        }
        b->file = file;
        b->name = strdup(name);
        if (!b->name)
                return error_origin(-ENOMEM);
        r = debug_files_open(b, root_fd);
        if (r)
                return error_trace(r);
        *ret = TAKE_PTR(b);
        return 0;
}

int binary_new(Binary **ret, int fd, const char *name, int root_fd)
{
        ElfFile *file;
        int r = elf_file_new(&file, fd);

        if (r < 0)
                return error_trace(r);
        if (r > 0)
                return BINARY_E_BAD;
        return error_trace(binary_new_file(ret, file, name, root_fd));
}

int binary_new_memory(Binary **ret, const void *bytes, size_t size, const char *name)
{
        ElfFile *file;
        void *copy = malloc(size > 0 ? size : 1);
        int r;

        if (!copy)
                return error_origin(-ENOMEM);
        memcpy(copy, bytes, size);
        r = elf_file_new_memory(&file, copy, size);
        if (r < 0)
                return error_trace(r);
        if (r > 0)
                return BINARY_E_BAD;
        return error_trace(binary_new_file(ret, file, name, -1));
}

Binary *binary_free(Binary *b)
{
        if (!b)
                return NULL;
        for (size_t i = 0; i < b->names.n_buckets; i++)
                while (b->names.buckets[i]) {
                        Name *n = (Name *)b->names.buckets[i];

                        b->names.buckets[i] = n->by_symbol.next;
                        free(n->text);
                        free(n);
                }
        hash_table_deinit(&b->names);
        dwarf_lines_free(b->lines);
        elf_symbols_free(b->symbols);
        elf_file_free(b->mini);
        elf_file_free(b->alt);
        elf_file_free(b->debug);
        elf_file_free(b->file);
        free(b->name);
        free(b);
        return NULL;
}

size_t binary_segments(Binary *b, BinarySegment *ret, size_t max)
{
        size_t n_headers, n = 0;
        GElf_Phdr phdr;

        if (elf_getphdrnum(b->file->elf, &n_headers) != 0)
                return 0;
        for (size_t i = 0; i < n_headers && n < max; i++)
                if (gelf_getphdr(b->file->elf, (int)i, &phdr) && phdr.p_type == PT_LOAD)
                        ret[n++] = (BinarySegment){phdr.p_offset, phdr.p_vaddr, phdr.p_filesz};
        return n;
}

Elf *binary_elf(Binary *b)
{
        return b->file->elf;
}

Elf *binary_debug_elf(Binary *b)
{
        return b->debug ? b->debug->elf : NULL;
}

const char *binary_name(const Binary *b)
{
        return b->name;
}

const char *binary_build_id(const Binary *b)
{
        return b->file->build_id;
}

/* Borrowed from the binary. Without memory, or room for it: the symbol as it is. */
static const char *symbol_text(Binary *b, const char *symbol)
{
        /* Symbols stay where they are in the file's tables: the pointer tells them apart. */
        uint64_t hash = hash_u64((uintptr_t)symbol);
        _cleanup_(freep) char *text = NULL;
        size_t size;
        Name *n;

        for (HashLink *l = hash_table_find(&b->names, hash); l; l = hash_link_next(l)) {
                n = (Name *)l;
                if (n->symbol == symbol)
                        return n->text;
        }
        text = symbol_demangle(symbol);
        size = text ? sizeof(*n) + strlen(text) + 1 : 0;
        if (!text || size > NAMES_BYTES_MAX - b->names_bytes)
                return symbol;
        n = calloc(1, sizeof(*n));
        if (!n)
                return symbol;
        n->symbol = symbol;
        if (hash_table_add(&b->names, &n->by_symbol, hash) < 0) {
                free(n);
                return symbol;
        }
        b->names_bytes += size;
        return n->text = TAKE_PTR(text);
}

/* DWARF that refers to a file which is not there says half of the names, or wrong ones. */
static void lines_open(Binary *b)
{
        ElfFile *f = file_with_dwarf(b);

        b->lines_tried = true;
        if (!f || (file_has_section(f, ".gnu_debugaltlink") && !b->alt))
                return;
        /* No memory: no lines. */
        if (dwarf_lines_new(&b->lines, f->elf, b->alt ? b->alt->elf : NULL) < 0)
                b->lines = NULL;
}

void binary_prepare(Binary *b)
{
        /* No memory: no names. */
        if (!b->symbols_tried && symbols_read(b) < 0)
                b->symbols = elf_symbols_free(b->symbols);
}

size_t binary_symbolize(Binary *b, uint64_t vaddr, bool lines, SymbolFrame *ret, size_t max)
{
        DwarfFrame frames[SYMBOL_MAX_INLINE];
        const char *symbol = NULL;
        size_t n = 0;

        assert(max > 0);
        binary_prepare(b);
        if (b->symbols)
                symbol = elf_symbols_find(b->symbols, vaddr);
        if (lines && !b->lines_tried)
                lines_open(b);
        if (lines && b->lines)
                n = dwarf_lines_find(
                        b->lines, vaddr, frames, max < SYMBOL_MAX_INLINE ? max : SYMBOL_MAX_INLINE);
        if (n == 0) {
                *ret = (SymbolFrame){.function = symbol ? symbol_text(b, symbol) : NULL};
                return 1;
        }
        for (size_t i = 0; i < n; i++) {
                const DwarfFrame *f = &frames[i];
                const char *function = i == n - 1 && symbol ? symbol
                                       : f->linkage_name    ? f->linkage_name
                                                            : f->name;

                ret[i] = (SymbolFrame){
                        .function = function ? symbol_text(b, function) : NULL,
                        .file = f->file,
                        .line = f->line,
                };
        }
        return n;
}
