/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "symbol/elf-symbols.h"
#include "util/error.h"

/* The largest programs have one or two million functions. */
#define SYMBOLS_MAX (8u << 20)
/* What a name's offset can say in 30 bits. */
#define STRINGS_MAX ((1u << 30) - 1)
#define SIZE_MAX_28 ((1u << 28) - 1)
/* So many symbols inside a larger one are looked past. */
#define NESTED_MAX 16
/* A file may repeat sections, and have names of any length: work on them ends here. */
#define CODE_SECTIONS_MAX 256
#define RELA_SECTIONS_MAX 4
#define PLT_SECTIONS_MAX  4
#define PLT_NAME_MAX      4096
#define PLT_NAMES_MAX     (64u << 20)
#define COMPARE_MAX       256

enum {
        TABLE_PLT, /* names made here */
        TABLE_FIRST_FILE,
        N_TABLES = 4,
};

/* Rank among the names of one address: the lowest is the best. */
enum {
        RANK_GLOBAL,
        RANK_WEAK,
        RANK_LOCAL,
        RANK_PLT,
        RANK_NOTYPE, /* added to the above: a label, of assembler code mostly */
};

typedef struct Symbol {
        uint64_t addr;
        uint32_t size : 28, rank : 4;
        uint32_t name : 30, table : 2;
} Symbol;

_Static_assert(sizeof(Symbol) == 16, "millions of these");

typedef struct SectionEnd {
        uint64_t start, end;
} SectionEnd;

struct ElfSymbols {
        size_t n, n_allocated;
        Symbol *symbols;
        size_t n_tables;
        const char *tables[N_TABLES];
        char *plt_names;
        size_t plt_names_size, plt_names_allocated;
        size_t n_code, n_code_allocated;
        SectionEnd *code; /* executable sections, where symbols without a size end */
};

int elf_symbols_new(ElfSymbols **ret)
{
        ElfSymbols *s = calloc(1, sizeof(*s));

        if (!s)
                return error_origin(-ENOMEM);
        s->n_tables = TABLE_FIRST_FILE;
        *ret = s;
        return 0;
}

ElfSymbols *elf_symbols_free(ElfSymbols *s)
{
        if (!s)
                return NULL;
        free(s->symbols);
        free(s->plt_names);
        free(s->code);
        free(s);
        return NULL;
}

size_t elf_symbols_n(const ElfSymbols *s)
{
        return s->n;
}

/* Makes room for one more element of *array. */
static int grow(void *array, size_t n, size_t *n_allocated, size_t size)
{
        void **p = array, *larger;
        size_t n_new = *n_allocated ? *n_allocated * 2 : 64;

        if (n < *n_allocated)
                return 0;
        larger = reallocarray(*p, n_new, size);
        if (!larger)
                return error_origin(-ENOMEM);
        *p = larger;
        *n_allocated = n_new;
        return 0;
}

static int symbol_add(
        ElfSymbols *s, uint64_t addr, uint64_t size, unsigned rank, size_t table, size_t name)
{
        int r;

        if (s->n >= SYMBOLS_MAX)
                return 0;
        r = grow(&s->symbols, s->n, &s->n_allocated, sizeof(*s->symbols));
        if (r)
                return error_trace(r);
        s->symbols[s->n++] = (Symbol){
                .addr = addr,
                .size = size < SIZE_MAX_28 ? (uint32_t)size : SIZE_MAX_28,
                .rank = rank,
                .name = (uint32_t)name,
                .table = (uint32_t)table,
        };
        return 0;
}

static const char *symbol_name(const ElfSymbols *s, const Symbol *symbol)
{
        const char *table = symbol->table == TABLE_PLT ? s->plt_names : s->tables[symbol->table];

        return table + symbol->name;
}

static Elf_Scn *section_of_type(Elf *elf, GElf_Word type, GElf_Shdr *ret_shdr)
{
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));)
                if (gelf_getshdr(scn, ret_shdr) && ret_shdr->sh_type == type)
                        return scn;
        return NULL;
}

static bool section_is_code(Elf *elf, size_t index)
{
        GElf_Shdr shdr;
        Elf_Scn *scn = elf_getscn(elf, index);

        return scn && gelf_getshdr(scn, &shdr) && (shdr.sh_flags & SHF_EXECINSTR);
}

/* The string table's bytes, which end in a NUL; NULL: not usable. */
static const char *section_strings(Elf *elf, size_t index, size_t *ret_size)
{
        GElf_Shdr shdr;
        Elf_Scn *scn = elf_getscn(elf, index);
        Elf_Data *data;

        if (!scn || !gelf_getshdr(scn, &shdr) || shdr.sh_type != SHT_STRTAB ||
                (shdr.sh_flags & SHF_COMPRESSED) || shdr.sh_size > STRINGS_MAX)
                return NULL;
        data = elf_getdata(scn, NULL);
        if (!data || !data->d_buf || data->d_size == 0 ||
                ((const char *)data->d_buf)[data->d_size - 1] != '\0')
                return NULL;
        *ret_size = data->d_size;
        return data->d_buf;
}

/* Labels of the compiler and of the assembler, which are no functions. */
static bool name_is_local_label(const char *name)
{
        return name[0] == '$' || (name[0] == '.' && name[1] == 'L');
}

static bool symbol_rank(Elf *elf, const GElf_Sym *sym, const char *name, unsigned *ret_rank)
{
        unsigned rank;

        if (sym->st_shndx == SHN_UNDEF || sym->st_shndx == SHN_ABS || name[0] == '\0')
                return false;
        switch (GELF_ST_BIND(sym->st_info)) {
        case STB_GLOBAL:
        case STB_GNU_UNIQUE:
                rank = RANK_GLOBAL;
                break;
        case STB_WEAK:
                rank = RANK_WEAK;
                break;
        default:
                rank = RANK_LOCAL;
        }
        switch (GELF_ST_TYPE(sym->st_info)) {
        case STT_FUNC:
        case STT_GNU_IFUNC:
                break;
        case STT_NOTYPE:
                if (name_is_local_label(name) || !section_is_code(elf, sym->st_shndx))
                        return false;
                rank += RANK_NOTYPE;
                break;
        default:
                return false;
        }
        *ret_rank = rank;
        return true;
}

static int code_sections_add(ElfSymbols *s, Elf *elf)
{
        GElf_Shdr shdr;
        int r;

        if (s->n_code > 0)
                return 0;
        for (Elf_Scn *scn = NULL; s->n_code < CODE_SECTIONS_MAX && (scn = elf_nextscn(elf, scn));) {
                if (!gelf_getshdr(scn, &shdr) || !(shdr.sh_flags & SHF_EXECINSTR) ||
                        shdr.sh_addr > UINT64_MAX - shdr.sh_size)
                        continue;
                r = grow(&s->code, s->n_code, &s->n_code_allocated, sizeof(*s->code));
                if (r)
                        return error_trace(r);
                s->code[s->n_code++] = (SectionEnd){shdr.sh_addr, shdr.sh_addr + shdr.sh_size};
        }
        return 0;
}

int elf_symbols_add(ElfSymbols *s, Elf *elf, GElf_Word type)
{
        GElf_Shdr shdr;
        Elf_Scn *scn = section_of_type(elf, type, &shdr);
        Elf_Data *data;
        const char *strings;
        size_t strings_size, n;
        int r;

        if (!scn || s->n_tables == N_TABLES || (shdr.sh_flags & SHF_COMPRESSED) ||
                shdr.sh_entsize != sizeof(Elf64_Sym) ||
                shdr.sh_size / sizeof(Elf64_Sym) > SYMBOLS_MAX)
                return 0;
        strings = section_strings(elf, shdr.sh_link, &strings_size);
        data = strings ? elf_getdata(scn, NULL) : NULL;
        if (!data || !data->d_buf)
                return 0;
        r = code_sections_add(s, elf);
        if (r)
                return error_trace(r);
        s->tables[s->n_tables] = strings;
        n = data->d_size / sizeof(Elf64_Sym);
        for (size_t i = 0; i < n; i++) {
                GElf_Sym sym;
                unsigned rank;

                if (!gelf_getsym(data, (int)i, &sym) || sym.st_name >= strings_size ||
                        !symbol_rank(elf, &sym, strings + sym.st_name, &rank))
                        continue;
                r = symbol_add(s, sym.st_value, sym.st_size, rank, s->n_tables, sym.st_name);
                if (r)
                        return error_trace(r);
        }
        s->n_tables++;
        return 0;
}

/* A GOT slot and the dynamic symbol whose address the loader puts there. */
typedef struct Slot {
        uint64_t addr;
        const char *name;
} Slot;

typedef struct Slots {
        size_t n, n_allocated;
        Slot *slots;
} Slots;

static void slots_deinit(Slots *s)
{
        free(s->slots);
}

static int slot_compare(const void *a, const void *b)
{
        const Slot *x = a, *y = b;

        return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static int slots_read(Slots *slots, Elf *elf, Elf_Scn *scn, const GElf_Shdr *rela)
{
        GElf_Shdr shdr;
        Elf_Scn *symbols_scn = elf_getscn(elf, rela->sh_link);
        Elf_Data *data, *symbols;
        const char *strings;
        size_t strings_size, n;
        int r;

        if (!symbols_scn || !gelf_getshdr(symbols_scn, &shdr) || shdr.sh_type != SHT_DYNSYM ||
                shdr.sh_entsize != sizeof(Elf64_Sym) || rela->sh_entsize != sizeof(Elf64_Rela) ||
                shdr.sh_size / sizeof(Elf64_Sym) > SYMBOLS_MAX ||
                rela->sh_size / sizeof(Elf64_Rela) > SYMBOLS_MAX)
                return 0;
        strings = section_strings(elf, shdr.sh_link, &strings_size);
        symbols = strings ? elf_getdata(symbols_scn, NULL) : NULL;
        data = symbols && symbols->d_buf ? elf_getdata(scn, NULL) : NULL;
        if (!data || !data->d_buf)
                return 0;
        n = data->d_size / sizeof(Elf64_Rela);
        for (size_t i = 0; i < n && slots->n < SYMBOLS_MAX; i++) {
                GElf_Rela rel;
                GElf_Sym sym;

                if (!gelf_getrela(data, (int)i, &rel) ||
                        (GELF_R_TYPE(rel.r_info) != R_X86_64_JUMP_SLOT &&
                                GELF_R_TYPE(rel.r_info) != R_X86_64_GLOB_DAT) ||
                        GELF_R_SYM(rel.r_info) >= symbols->d_size / sizeof(Elf64_Sym) ||
                        !gelf_getsym(symbols, (int)GELF_R_SYM(rel.r_info), &sym) ||
                        sym.st_name >= strings_size || strings[sym.st_name] == '\0')
                        continue;
                r = grow(&slots->slots, slots->n, &slots->n_allocated, sizeof(*slots->slots));
                if (r)
                        return error_trace(r);
                slots->slots[slots->n++] = (Slot){rel.r_offset, strings + sym.st_name};
        }
        return 0;
}

/* *ret stays as it is when the name is too long or the pool is full. */
static int plt_name_add(ElfSymbols *s, const char *name, const char *suffix, size_t *ret)
{
        size_t n = strnlen(name, PLT_NAME_MAX), n_suffix = strlen(suffix) + 1, size = n + n_suffix;
        int r;

        if (n == PLT_NAME_MAX || size > PLT_NAMES_MAX - s->plt_names_size)
                return 0;
        while (s->plt_names_allocated - s->plt_names_size < size) {
                r = grow(&s->plt_names, s->plt_names_allocated, &s->plt_names_allocated, 1);
                if (r)
                        return error_trace(r);
        }
        memcpy(s->plt_names + s->plt_names_size, name, n);
        memcpy(s->plt_names + s->plt_names_size + n, suffix, n_suffix);
        *ret = s->plt_names_size;
        s->plt_names_size += size;
        return 0;
}

/* The GOT slot that a stub jumps through: "jmp *disp(%rip)" (ff 25), perhaps behind endbr64 and a
 * bnd prefix. 0: not a stub. */
static uint64_t stub_slot(const uint8_t *code, size_t n, uint64_t addr)
{
        int32_t disp;

        for (size_t i = 0; i + 6 <= n; i++)
                if (code[i] == 0xff && code[i + 1] == 0x25) {
                        memcpy(&disp, code + i + 2, sizeof(disp));
                        return addr + i + 6 + (uint64_t)(int64_t)disp;
                }
        return 0;
}

/* Stubs that nothing is known of share the first name of the pool, "[plt]". */
static int plt_section_add(ElfSymbols *s, const Slots *slots, Elf_Scn *scn, const GElf_Shdr *shdr)
{
        Elf_Data *data = elf_getdata(scn, NULL);
        size_t step = shdr->sh_entsize == 8 ? 8 : 16;
        int r;

        if (!data || !data->d_buf)
                return 0;
        for (size_t i = 0; i < data->d_size; i += step) {
                size_t size = data->d_size - i < step ? data->d_size - i : step, name = 0;
                uint64_t slot =
                        stub_slot((const uint8_t *)data->d_buf + i, size, shdr->sh_addr + i);
                Slot key = {.addr = slot};
                const Slot *found = slot && slots->n > 0 ? bsearch(&key, slots->slots, slots->n,
                                                                   sizeof(key), slot_compare)
                                                         : NULL;

                if (found) {
                        r = plt_name_add(s, found->name, "@plt", &name);
                        if (r)
                                return error_trace(r);
                }
                r = symbol_add(s, shdr->sh_addr + i, size, RANK_PLT, TABLE_PLT, name);
                if (r)
                        return error_trace(r);
        }
        return 0;
}

static bool name_is_plt(const char *name)
{
        return strcmp(name, ".plt") == 0 || strcmp(name, ".plt.sec") == 0 ||
               strcmp(name, ".plt.got") == 0;
}

int elf_symbols_add_plt(ElfSymbols *s, Elf *elf)
{
        _cleanup_(slots_deinit) Slots slots = {0};
        GElf_Shdr shdr;
        size_t names, n = 0, first = 0;
        int r;

        if (elf_getshdrstrndx(elf, &names) != 0)
                return 0;
        for (Elf_Scn *scn = NULL; n < RELA_SECTIONS_MAX && (scn = elf_nextscn(elf, scn));) {
                if (!gelf_getshdr(scn, &shdr) || shdr.sh_type != SHT_RELA)
                        continue;
                n++;
                r = slots_read(&slots, elf, scn, &shdr);
                if (r)
                        return error_trace(r);
        }
        if (slots.n > 0)
                qsort(slots.slots, slots.n, sizeof(*slots.slots), slot_compare);
        r = plt_name_add(s, "[plt]", "", &first);
        if (r)
                return error_trace(r);
        n = 0;
        for (Elf_Scn *scn = NULL; n < PLT_SECTIONS_MAX && (scn = elf_nextscn(elf, scn));) {
                const char *name;

                if (!gelf_getshdr(scn, &shdr) || shdr.sh_type != SHT_PROGBITS ||
                        !(shdr.sh_flags & SHF_EXECINSTR) || shdr.sh_size > 16 * SYMBOLS_MAX)
                        continue;
                name = elf_strptr(elf, names, shdr.sh_name);
                if (!name || !name_is_plt(name))
                        continue;
                n++;
                r = plt_section_add(s, &slots, scn, &shdr);
                if (r)
                        return error_trace(r);
        }
        return 0;
}

static size_t leading_underscores(const char *name)
{
        size_t n = 0;

        while (n < 8 && name[n] == '_')
                n++;
        return n;
}

/* By address; of one address the best name first: with a size, by rank, fewer underscores in front,
 * shorter. The alphabet decides the rest, so that every run agrees. */
static int symbol_compare(const void *a, const void *b, void *userdata)
{
        const ElfSymbols *s = userdata;
        const Symbol *x = a, *y = b;
        const char *name_x, *name_y;
        size_t n_x, n_y;

        if (x->addr != y->addr)
                return x->addr < y->addr ? -1 : 1;
        if (!x->size != !y->size)
                return x->size ? -1 : 1;
        if (x->rank != y->rank)
                return x->rank < y->rank ? -1 : 1;
        name_x = symbol_name(s, x);
        name_y = symbol_name(s, y);
        n_x = leading_underscores(name_x);
        n_y = leading_underscores(name_y);
        if (n_x != n_y)
                return n_x < n_y ? -1 : 1;
        n_x = strnlen(name_x, COMPARE_MAX);
        n_y = strnlen(name_y, COMPARE_MAX);
        if (n_x != n_y)
                return n_x < n_y ? -1 : 1;
        return strncmp(name_x, name_y, COMPARE_MAX);
}

/* Where code that starts at addr must end: its section's end, or nothing known. */
static uint64_t code_end(const ElfSymbols *s, uint64_t addr)
{
        for (size_t i = 0; i < s->n_code; i++)
                if (addr >= s->code[i].start && addr < s->code[i].end)
                        return s->code[i].end;
        return addr;
}

void elf_symbols_finish(ElfSymbols *s)
{
        Symbol *symbols = s->symbols;
        uint64_t covered = 0;
        size_t n = 0;

        if (s->n == 0)
                return;
        qsort_r(symbols, s->n, sizeof(*symbols), symbol_compare, s);
        for (size_t i = 0; i < s->n; i++) {
                Symbol symbol = symbols[i];

                if (n > 0 && symbols[n - 1].addr == symbol.addr) {
                        /* An alias: its longer size counts, its name does not. */
                        if (symbol.size > symbols[n - 1].size)
                                symbols[n - 1].size = symbol.size;
                        continue;
                }
                /* A label inside of a function. */
                if (symbol.size == 0 && symbol.addr < covered)
                        continue;
                if (symbol.size > 0 && symbol.addr + symbol.size > covered)
                        covered = symbol.addr + symbol.size;
                symbols[n++] = symbol;
        }
        s->n = n;
        /* Assembler code without sizes reaches to the next symbol. */
        for (size_t i = 0; i < n; i++) {
                uint64_t end;

                if (symbols[i].size > 0)
                        continue;
                end = code_end(s, symbols[i].addr);
                if (i + 1 < n && symbols[i + 1].addr < end)
                        end = symbols[i + 1].addr;
                end -= symbols[i].addr;
                symbols[i].size = end < SIZE_MAX_28 ? (uint32_t)end : SIZE_MAX_28;
        }
}

const char *elf_symbols_find(const ElfSymbols *s, uint64_t addr)
{
        size_t low = 0, high = s->n;

        /* After this, symbols before `low` start at or before the address. */
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (s->symbols[middle].addr <= addr)
                        low = middle + 1;
                else
                        high = middle;
        }
        for (size_t i = low; i > 0 && low - i < NESTED_MAX; i--) {
                const Symbol *symbol = &s->symbols[i - 1];

                if (addr - symbol->addr < symbol->size)
                        return symbol_name(s, symbol);
        }
        return NULL;
}
