/* SPDX-License-Identifier: Apache-2.0 */
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <errno.h>
#include <gelf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "symbol/dwarf-lines.h"
#include "util/error.h"

/*
 * Bounds for files that are made to waste our time and memory. A browser with all its debug
 * information has 50000 units and 2 GiB of DWARF.
 */
#define DWARF_BYTES_MAX  (3ULL << 30)
#define LINE_BYTES_MAX   (512ULL << 20)
#define ZDEBUG_BYTES_MAX (64ULL << 20)
/* A byte of a line program can be a row, of some 100 bytes in libdw. */
#define UNIT_LINE_BYTES_MAX  (8u << 20)
#define LINE_BYTES_BUDGET    (32u << 20)
#define UNITS_MAX            (1u << 20)
#define UNIT_RANGES_MAX      (1u << 20)
#define RANGES_MAX           (8u << 20)
#define INDEX_ENTRIES_BUDGET (256u << 20)
#define LOOKUP_BUDGET        (1u << 20)
#define SCOPE_DEPTH_MAX      32
#define INLINE_DEPTH_MAX     64
#define ORIGINS_MAX          16
/* So many ranges inside a larger one are looked past. */
#define NESTED_MAX 16

/* An address range of a unit, or of a function of a unit. */
typedef struct Range {
        uint64_t start, end;
        uint64_t what; /* the unit's number; the offset of the function's entry (DIE) */
} Range;

typedef struct Ranges {
        size_t n, n_allocated;
        Range *ranges;
} Ranges;

typedef struct Unit {
        Dwarf_Off offset; /* of its entry */
        bool indexed;
        bool lines_asked, has_lines;
        Ranges functions;
} Unit;

struct DwarfLines {
        Dwarf *dwarf, *alt;
        size_t n_units, n_units_allocated;
        Unit *units;
        Ranges ranges;
        size_t n_ranges;     /* of units and functions */
        size_t index_budget; /* entries that may still be visited to find functions */
        size_t line_budget;  /* bytes of line programs that may still be run */
        Elf_Data *line_data; /* .debug_line; NULL: none of use */
};

static int range_add(DwarfLines *d, Ranges *r, uint64_t start, uint64_t end, uint64_t what)
{
        /* Linkers leave 0 (or the highest addresses) in the ranges of what they dropped. */
        if (start == 0 || start >= end || d->n_ranges >= RANGES_MAX)
                return 0;
        if (r->n == r->n_allocated) {
                size_t n = r->n_allocated ? r->n_allocated * 2 : 16;
                Range *larger = reallocarray(r->ranges, n, sizeof(*larger));

                if (!larger)
                        return error_origin(-ENOMEM);
                r->ranges = larger;
                r->n_allocated = n;
        }
        r->ranges[r->n++] = (Range){start, end, what};
        d->n_ranges++;
        return 0;
}

static int range_compare(const void *a, const void *b)
{
        const Range *x = a, *y = b;

        if (x->start != y->start)
                return x->start < y->start ? -1 : 1;
        /* The shorter one last: a search from behind finds the narrowest. */
        return x->end > y->end ? -1 : x->end < y->end;
}

static void ranges_sort(Ranges *r)
{
        if (r->n > 0)
                qsort(r->ranges, r->n, sizeof(*r->ranges), range_compare);
}

static const Range *ranges_find(const Ranges *r, uint64_t addr)
{
        size_t low = 0, high = r->n;

        /* After this, ranges before `low` start at or before the address. */
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (r->ranges[middle].start <= addr)
                        low = middle + 1;
                else
                        high = middle;
        }
        for (size_t i = low; i > 0 && low - i < NESTED_MAX; i--)
                if (addr < r->ranges[i - 1].end)
                        return &r->ranges[i - 1];
        return NULL;
}

static int die_ranges_add(DwarfLines *d, Ranges *r, Dwarf_Die *die, uint64_t what)
{
        Dwarf_Addr base, start, end;
        ptrdiff_t at = 0;
        int ret;

        for (size_t n = 0; n < UNIT_RANGES_MAX; n++) {
                at = dwarf_ranges(die, at, &base, &start, &end);
                if (at <= 0)
                        return 0;
                ret = range_add(d, r, start, end, what);
                if (ret)
                        return error_trace(ret);
        }
        return 0;
}

/* Whether an entry's ranges hold the address; each range that is looked at costs of the budget. */
static bool die_has_address(Dwarf_Die *die, uint64_t addr, size_t *budget)
{
        Dwarf_Addr base, start, end;
        ptrdiff_t at = 0;

        while (*budget > 0 && (at = dwarf_ranges(die, at, &base, &start, &end)) > 0) {
                --*budget;
                if (addr >= start && addr < end)
                        return true;
        }
        return false;
}

static int units_index(DwarfLines *d)
{
        Dwarf_CU *cu = NULL;
        uint8_t type;
        Dwarf_Die die;
        int r;

        while (d->n_units < UNITS_MAX &&
                dwarf_get_units(d->dwarf, cu, &cu, NULL, &type, &die, NULL) == 0) {
                if (type != DW_UT_compile && type != DW_UT_skeleton)
                        continue;
                if (d->n_units == d->n_units_allocated) {
                        size_t n = d->n_units_allocated ? d->n_units_allocated * 2 : 64;
                        Unit *larger = reallocarray(d->units, n, sizeof(*larger));

                        if (!larger)
                                return error_origin(-ENOMEM);
                        d->units = larger;
                        d->n_units_allocated = n;
                }
                d->units[d->n_units] = (Unit){.offset = dwarf_dieoffset(&die)};
                r = die_ranges_add(d, &d->ranges, &die, d->n_units++);
                if (r)
                        return error_trace(r);
        }
        ranges_sort(&d->ranges);
        return 0;
}

/* Functions stand in their unit, and in its namespaces and types. */
static int functions_index(DwarfLines *d, Unit *u, Dwarf_Die *scope, unsigned depth)
{
        Dwarf_Die die;
        int r = 0;

        if (depth == SCOPE_DEPTH_MAX || dwarf_child(scope, &die) != 0)
                return 0;
        do {
                if (d->index_budget == 0)
                        return 0;
                d->index_budget--;
                switch (dwarf_tag(&die)) {
                case DW_TAG_subprogram:
                        r = die_ranges_add(d, &u->functions, &die, dwarf_dieoffset(&die));
                        break;
                case DW_TAG_namespace:
                case DW_TAG_module:
                case DW_TAG_class_type:
                case DW_TAG_structure_type:
                case DW_TAG_union_type:
                        r = functions_index(d, u, &die, depth + 1);
                        break;
                }
                if (r)
                        return error_trace(r);
        } while (dwarf_siblingof(&die, &die) == 0);
        return 0;
}

static int unit_index(DwarfLines *d, Unit *u, Dwarf_Die *die)
{
        int r;

        if (u->indexed)
                return 0;
        u->indexed = true;
        r = functions_index(d, u, die, 0);
        if (r)
                return error_trace(r);
        ranges_sort(&u->functions);
        return 0;
}

/* The chain of inlined functions at the address, outermost first. */
static size_t inlines_find(Dwarf_Die *function, uint64_t addr, Dwarf_Die *ret, size_t max)
{
        Dwarf_Die scope = *function, die;
        size_t n = 0, budget = LOOKUP_BUDGET;

        while (n < max && dwarf_child(&scope, &die) == 0) {
                int tag;

                for (;;) {
                        if (budget == 0)
                                return n;
                        budget--;
                        tag = dwarf_tag(&die);
                        if ((tag == DW_TAG_inlined_subroutine || tag == DW_TAG_lexical_block ||
                                    tag == DW_TAG_try_block || tag == DW_TAG_catch_block) &&
                                die_has_address(&die, addr, &budget))
                                break;
                        if (dwarf_siblingof(&die, &die) != 0)
                                return n;
                }
                if (tag == DW_TAG_inlined_subroutine)
                        ret[n++] = die;
                scope = die;
        }
        return n;
}

/* What the unit's line program says of its own size; UINT64_MAX: nothing. */
static uint64_t line_program_size(DwarfLines *d, Dwarf_Die *unit)
{
        Dwarf_Attribute attribute;
        Dwarf_Word at;
        uint32_t size;

        if (!d->line_data ||
                dwarf_formudata(dwarf_attr(unit, DW_AT_stmt_list, &attribute), &at) != 0 ||
                at > d->line_data->d_size || d->line_data->d_size - at < sizeof(size))
                return UINT64_MAX;
        memcpy(&size, (const char *)d->line_data->d_buf + at, sizeof(size));
        /* The mark of 64-bit DWARF is a size out of all bounds, too: no unit needs that. */
        return size;
}

/* Whether the unit's line program may be run: libdw does that at once and as a whole. */
static bool unit_has_lines(DwarfLines *d, Unit *u, Dwarf_Die *die)
{
        uint64_t size;

        if (u->lines_asked)
                return u->has_lines;
        u->lines_asked = true;
        size = line_program_size(d, die);
        u->has_lines = size <= UNIT_LINE_BYTES_MAX && size <= d->line_budget;
        if (u->has_lines)
                d->line_budget -= size;
        return u->has_lines;
}

/*
 * An attribute of an entry, or of those that it was made from. Not dwarf_attr_integrate(): led to a
 * skeleton unit, that opens whatever file the unit names.
 */
static const char *die_string(Dwarf_Die die, unsigned name)
{
        Dwarf_Attribute attribute;

        for (unsigned i = 0; i < ORIGINS_MAX; i++) {
                if (dwarf_attr(&die, name, &attribute))
                        return dwarf_formstring(&attribute);
                if (!dwarf_attr(&die, DW_AT_abstract_origin, &attribute) &&
                        !dwarf_attr(&die, DW_AT_specification, &attribute))
                        return NULL;
                if (!dwarf_formref_die(&attribute, &die))
                        return NULL;
        }
        return NULL;
}

static void frame_set_name(DwarfFrame *f, Dwarf_Die *die)
{
        f->linkage_name = die_string(*die, DW_AT_linkage_name);
        if (!f->linkage_name)
                f->linkage_name = die_string(*die, DW_AT_MIPS_linkage_name);
        f->name = die_string(*die, DW_AT_name);
}

static const char *base_name(const char *path)
{
        const char *slash = path ? strrchr(path, '/') : NULL;

        return slash ? slash + 1 : path;
}

static void frame_set_place(DwarfFrame *f, const char *path, Dwarf_Word line)
{
        const char *file = base_name(path);

        if (!file || file[0] == '\0')
                return;
        f->file = file;
        f->line = line <= INT32_MAX ? (int)line : 0;
}

/* Where the inlined function was called. */
static void frame_set_call(DwarfFrame *f, Dwarf_Die *unit, Dwarf_Die *inlined)
{
        Dwarf_Attribute attribute;
        Dwarf_Word file, line;
        Dwarf_Files *files;
        size_t n_files;

        if (dwarf_formudata(dwarf_attr(inlined, DW_AT_call_file, &attribute), &file) == 0 &&
                dwarf_formudata(dwarf_attr(inlined, DW_AT_call_line, &attribute), &line) == 0 &&
                dwarf_getsrcfiles(unit, &files, &n_files) == 0 && file < n_files)
                frame_set_place(f, dwarf_filesrc(files, file, NULL, NULL), line);
}

/* The row of the line table. Not dwarf_getsrc_die(), which takes it that a table has rows. */
static void frame_set_line(DwarfFrame *f, Dwarf_Die *unit, uint64_t addr)
{
        Dwarf_Lines *lines;
        Dwarf_Line *row;
        Dwarf_Addr row_addr;
        size_t n, low = 0;
        bool is_end;
        int line;

        if (dwarf_getsrclines(unit, &lines, &n) != 0)
                return;
        for (size_t high = n; low < high;) {
                size_t middle = low + (high - low) / 2;

                if (dwarf_lineaddr(dwarf_onesrcline(lines, middle), &row_addr) == 0 &&
                        row_addr <= addr)
                        low = middle + 1;
                else
                        high = middle;
        }
        row = low > 0 ? dwarf_onesrcline(lines, low - 1) : NULL;
        if (row && dwarf_lineendsequence(row, &is_end) == 0 && !is_end &&
                dwarf_lineno(row, &line) == 0)
                frame_set_place(f, dwarf_linesrc(row, NULL, NULL), line > 0 ? (Dwarf_Word)line : 0);
}

size_t dwarf_lines_find(DwarfLines *d, uint64_t addr, DwarfFrame *ret, size_t max)
{
        const Range *range = ranges_find(&d->ranges, addr), *function = NULL;
        Dwarf_Die unit_die, function_die, inlines[INLINE_DEPTH_MAX];
        size_t n = 0, n_frames = 0;
        bool has_lines;
        Unit *unit;

        if (!range || max == 0)
                return 0;
        unit = &d->units[range->what];
        if (!dwarf_offdie(d->dwarf, unit->offset, &unit_die))
                return 0;
        /* No memory for the index: lines are better than nothing. */
        if (unit_index(d, unit, &unit_die) == 0) {
                function = ranges_find(&unit->functions, addr);
                if (function && !dwarf_offdie(d->dwarf, function->what, &function_die))
                        function = NULL;
                if (function)
                        n = inlines_find(&function_die, addr, inlines, INLINE_DEPTH_MAX);
        }
        has_lines = unit_has_lines(d, unit, &unit_die);
        /* Frame 0 is the innermost, frame n the real function. Without room for all of them the
         * innermost ones go. */
        for (size_t i = n + 1 > max ? n + 1 - max : 0; i <= n; i++) {
                DwarfFrame *f = &ret[n_frames++];

                *f = (DwarfFrame){0};
                if (i < n)
                        frame_set_name(f, &inlines[n - 1 - i]);
                else if (function)
                        frame_set_name(f, &function_die);
                if (!has_lines)
                        continue;
                if (i == 0)
                        frame_set_line(f, &unit_die, addr);
                else
                        frame_set_call(f, &unit_die, &inlines[n - i]);
        }
        return n_frames;
}

/* The section that libdw takes the line programs from, unpacked by it; NULL also when there are
 * several, of which it may take another one. */
static Elf_Data *line_section(Elf *elf)
{
        Elf_Scn *found = NULL;
        Elf_Data *data;
        size_t names;

        if (elf_getshdrstrndx(elf, &names) != 0)
                return NULL;
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
                GElf_Shdr shdr;
                const char *name =
                        gelf_getshdr(scn, &shdr) ? elf_strptr(elf, names, shdr.sh_name) : NULL;

                if (!name ||
                        (strcmp(name, ".debug_line") != 0 && strcmp(name, ".zdebug_line") != 0))
                        continue;
                if (found)
                        return NULL;
                found = scn;
        }
        data = found ? elf_rawdata(found, NULL) : NULL;
        return data && data->d_buf ? data : NULL;
}

/* libdw reads the debug sections as they are, and unpacks them to the size that they state. */
static bool sections_are_bounded(Elf *elf)
{
        uint64_t total = 0;
        size_t names;

        if (elf_getshdrstrndx(elf, &names) != 0)
                return false;
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
                GElf_Shdr shdr;
                GElf_Chdr chdr;
                const char *name;
                uint64_t size;

                if (!gelf_getshdr(scn, &shdr) || shdr.sh_type == SHT_NOBITS)
                        continue;
                name = elf_strptr(elf, names, shdr.sh_name);
                if (!name ||
                        (strncmp(name, ".debug_", 7) != 0 && strncmp(name, ".zdebug_", 8) != 0))
                        continue;
                size = shdr.sh_size;
                if (size > DWARF_BYTES_MAX || (name[1] == 'z' && size > ZDEBUG_BYTES_MAX))
                        return false;
                if (shdr.sh_flags & SHF_COMPRESSED) {
                        if (!gelf_getchdr(scn, &chdr))
                                return false;
                        size = chdr.ch_size;
                }
                if (size > DWARF_BYTES_MAX - total ||
                        (strstr(name, "debug_line") && size > LINE_BYTES_MAX))
                        return false;
                total += size;
        }
        return total > 0;
}

int dwarf_lines_new(DwarfLines **ret, Elf *elf, Elf *alt)
{
        _cleanup_(dwarf_lines_freep) DwarfLines *d = NULL;
        int r;

        if (!sections_are_bounded(elf) || (alt && !sections_are_bounded(alt))) {
                *ret = NULL;
                return 0;
        }
        d = calloc(1, sizeof(*d));
        if (!d)
                return error_origin(-ENOMEM);
        d->index_budget = INDEX_ENTRIES_BUDGET;
        d->line_budget = LINE_BYTES_BUDGET;
        d->dwarf = dwarf_begin_elf(elf, DWARF_C_READ, NULL);
        if (d->dwarf && alt) {
                d->alt = dwarf_begin_elf(alt, DWARF_C_READ, NULL);
                if (d->alt)
                        dwarf_setalt(d->dwarf, d->alt);
        }
        if (!d->dwarf || (alt && !d->alt)) {
                *ret = NULL;
                return 0;
        }
        d->line_data = line_section(elf);
        r = units_index(d);
        if (r)
                return error_trace(r);
        *ret = TAKE_PTR(d);
        return 0;
}

DwarfLines *dwarf_lines_free(DwarfLines *d)
{
        if (!d)
                return NULL;
        for (size_t i = 0; i < d->n_units; i++)
                free(d->units[i].functions.ranges);
        free(d->units);
        free(d->ranges.ranges);
        if (d->dwarf)
                dwarf_end(d->dwarf);
        if (d->alt)
                dwarf_end(d->alt);
        free(d);
        return NULL;
}
