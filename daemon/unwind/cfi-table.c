/* SPDX-License-Identifier: Apache-2.0 */
#include <dwarf.h>
#include <errno.h>
#include <string.h>

#include "unwind/cfi-code.h"
#include "unwind/cfi-elf.h"
#include "unwind/cfi-gap.h"
#include "unwind/cfi-go-code.h"
#include "unwind/cfi-lazy.h"
#include "unwind/cfi-program.h"
#include "unwind/cfi-rows.h"
#include "unwind/cfi-table.h"
#include "util/error.h"

/*
 * Every CIE and FDE of .eh_frame and .debug_frame is listed first, the FDEs are sorted by address,
 * and then run one after the other, so that rows come in order. Where two FDEs claim an address the
 * first one has it, and .eh_frame comes before .debug_frame. Go's functions are between them: its
 * .debug_frame says less, and is mostly stripped.
 */

enum {
        FDES_MAX = 4 << 20,
        CIES_MAX = 256 << 10, /* one a compilation unit in .debug_frame */
        TEXT_MAX = 512 << 20, /* bytes of code, in all, in which what has no CFI is looked for */
        GAPS_MAX = 16 << 20,  /* bytes without CFI that are read; node has 2 MiB */
        TEXT_SEGMENTS_MAX = 16,
        PLTS_MAX = 4,
        GAP_MIN = 9,   /* bytes; shorter ones are the padding between functions */
        CODE_MIN = 16, /* bytes; the padding of aligned functions is shorter */
};

typedef struct Text {
        uint64_t vaddr, size, offset, filesz;
} Text;

typedef struct Cie {
        uint64_t offset; /* in its section */
        CfiCie cie;
} Cie;

typedef enum Section {
        SECTION_EH_FRAME,
        SECTION_GO,
        SECTION_DEBUG_FRAME,
} Section;

typedef struct Fde {
        uint64_t start, end;
        CfiBytes bytes;
        uint32_t cie; /* SECTION_GO: number of the function */
        Section section;
} Fde;

typedef struct Builder {
        Elf *elf;
        Text texts[TEXT_SEGMENTS_MAX];
        Text plts[PLTS_MAX];
        size_t n_texts, n_plts;
        Cie *cies;
        size_t n_cies, cies_size;
        Fde *fdes;
        size_t n_fdes, fdes_size;
        GoTable go;
        CfiRows rows;
        bool as_entered; /* the last FDE ended with the stack as at its function's entry */
} Builder;

static void builder_deinit(Builder *b)
{
        free(b->cies);
        free(b->fdes);
        cfi_rows_deinit(&b->rows);
}

static int builder_texts(Builder *b)
{
        uint64_t left = TEXT_MAX;
        size_t n;

        b->rows.base = UINT64_MAX;
        if (elf_getphdrnum(b->elf, &n) < 0)
                return error_origin(-EBADMSG);
        for (size_t i = 0; i < n && b->n_texts < TEXT_SEGMENTS_MAX; i++) {
                GElf_Phdr ph;

                if (!gelf_getphdr(b->elf, (int)i, &ph))
                        return error_origin(-EBADMSG);
                if (ph.p_type != PT_LOAD || !(ph.p_flags & PF_X) || ph.p_memsz == 0 ||
                        ph.p_vaddr + ph.p_memsz < ph.p_vaddr)
                        continue;
                b->texts[b->n_texts++] = (Text){.vaddr = ph.p_vaddr,
                        .size = ph.p_memsz,
                        .offset = ph.p_offset,
                        .filesz = ph.p_filesz <= left ? ph.p_filesz : 0};
                left -= b->texts[b->n_texts - 1].filesz;
                if (ph.p_vaddr < b->rows.base)
                        b->rows.base = ph.p_vaddr;
        }
        return 0;
}

/* Code that lies in a text segment, at offsets that rows can express. Linkers leave FDEs of dropped
 * functions behind, at address 0 or with no size. */
static bool builder_is_code(const Builder *b, uint64_t start, uint64_t size)
{
        if (size == 0 || start - b->rows.base > UINT32_MAX ||
                size > UINT32_MAX - (start - b->rows.base))
                return false;
        for (size_t i = 0; i < b->n_texts; i++) {
                uint64_t at = start - b->texts[i].vaddr;

                if (at < b->texts[i].size && size <= b->texts[i].size - at)
                        return true;
        }
        return false;
}

static int builder_cie(Builder *b, uint64_t offset, const Dwarf_CIE *raw)
{
        int r;

        if (b->n_cies == CIES_MAX)
                return 0;
        r = cfi_reserve(&b->cies, b->n_cies, &b->cies_size, sizeof(*b->cies));
        if (r)
                return error_trace(r);
        b->cies[b->n_cies].offset = offset;
        if (cfi_elf_cie(&b->cies[b->n_cies].cie, raw))
                b->n_cies++;
        return 0;
}

/* CIEs are listed by offset, those of this section from `first` on. */
static bool builder_find_cie(const Builder *b, size_t first, uint64_t offset, uint32_t *ret)
{
        size_t low = first, high = b->n_cies;

        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (b->cies[mid].offset == offset) {
                        *ret = (uint32_t)mid;
                        return true;
                }
                if (b->cies[mid].offset < offset)
                        low = mid + 1;
                else
                        high = mid;
        }
        return false;
}

static int builder_add(Builder *b, const Fde *fde)
{
        int r = cfi_reserve(&b->fdes, b->n_fdes, &b->fdes_size, sizeof(*b->fdes));

        if (r == 0)
                b->fdes[b->n_fdes++] = *fde;
        return error_trace(r);
}

static int builder_fde(Builder *b, size_t first_cie, const Dwarf_FDE *raw, CfiBytes bytes, bool eh)
{
        uint64_t start, size;
        uint32_t i;

        if (b->n_fdes == FDES_MAX || !builder_find_cie(b, first_cie, raw->CIE_pointer, &i))
                return 0;
        if (!cfi_elf_fde(&b->cies[i].cie, &bytes, &start, &size) ||
                !builder_is_code(b, start, size))
                return 0;
        return builder_add(b, &(Fde){.start = start,
                                      .end = start + size,
                                      .bytes = bytes,
                                      .cie = i,
                                      .section = eh ? SECTION_EH_FRAME : SECTION_DEBUG_FRAME});
}

/* Lists the entries of a section; broken ones are passed over. */
static int builder_section(Builder *b, Elf *elf, Elf_Data *data, uint64_t vaddr, bool eh)
{
        const unsigned char *ident = (const unsigned char *)elf_getident(elf, NULL);
        size_t first_cie = b->n_cies;
        Dwarf_Off offset = 0, next;

        if (!ident || !data || !data->d_buf || data->d_size > CFI_SECTION_MAX)
                return 0;
        for (;; offset = next) {
                Dwarf_CFI_Entry entry;
                int r;

                next = offset;
                r = dwarf_next_cfi(ident, data, eh, offset, &next, &entry);
                if (r > 0 || next <= offset || next > data->d_size)
                        return 0;
                if (r < 0)
                        continue;
                if (dwarf_cfi_cie_p(&entry)) {
                        r = builder_cie(b, offset, &entry.cie);
                } else {
                        uint64_t at = entry.fde.start - (const uint8_t *)data->d_buf;

                        r = builder_fde(b, first_cie, &entry.fde,
                                (CfiBytes){.p = entry.fde.start,
                                        .end = entry.fde.end,
                                        .vaddr = vaddr + at},
                                eh);
                }
                if (r)
                        return error_trace(r);
        }
}

/* Without section headers .eh_frame is found as at run time: .eh_frame_hdr says where it begins; it
 * ends at its terminator, or with the segment. */
static int builder_eh_frame_by_segment(Builder *b)
{
        CfiBytes hdr = {0};
        uint64_t vaddr;
        size_t n;

        if (elf_getphdrnum(b->elf, &n) < 0)
                return 0;
        for (size_t i = 0; i < n && !hdr.p; i++) {
                GElf_Phdr ph;
                Elf_Data *data;

                if (!gelf_getphdr(b->elf, (int)i, &ph) || ph.p_type != PT_GNU_EH_FRAME ||
                        ph.p_filesz < 4 || ph.p_filesz > CFI_SECTION_MAX)
                        continue;
                data = elf_getdata_rawchunk(b->elf, (int64_t)ph.p_offset, ph.p_filesz, ELF_T_BYTE);
                if (data && data->d_buf)
                        hdr = (CfiBytes){.p = data->d_buf,
                                .end = (uint8_t *)data->d_buf + data->d_size,
                                .vaddr = ph.p_vaddr};
        }
        if (!hdr.p || hdr.p[0] != 1)
                return 0;
        hdr.p += 4; /* version and the three encodings */
        hdr.vaddr += 4;
        if (!cfi_bytes_address(&hdr, hdr.p[-3], &vaddr))
                return 0;
        for (size_t i = 0; i < n; i++) {
                GElf_Phdr ph;
                uint64_t at;

                if (!gelf_getphdr(b->elf, (int)i, &ph) || ph.p_type != PT_LOAD)
                        continue;
                at = vaddr - ph.p_vaddr;
                if (at >= ph.p_filesz || ph.p_filesz - at > CFI_SECTION_MAX)
                        continue;
                return builder_section(b, b->elf,
                        elf_getdata_rawchunk(
                                b->elf, (int64_t)(ph.p_offset + at), ph.p_filesz - at, ELF_T_BYTE),
                        vaddr, true);
        }
        return 0;
}

/* *ret_found: whether the file has that section, usable or not. */
static int builder_debug_frame(Builder *b, Elf *elf, bool *ret_found)
{
        GElf_Shdr sh;
        Elf_Scn *s = cfi_elf_section(elf, ".debug_frame", &sh);

        *ret_found = s;
        if (!s)
                return 0;
        if (sh.sh_flags & SHF_COMPRESSED) {
                GElf_Chdr ch;

                if (!gelf_getchdr(s, &ch) || ch.ch_size > CFI_SECTION_MAX ||
                        elf_compress(s, 0, 0) < 0)
                        return 0;
        }
        return builder_section(b, elf, elf_getdata(s, NULL), sh.sh_addr, false);
}

/* The file's bytes of [start, end), as far as text segment `i` has them. */
static CfiBytes text_bytes(const Builder *b, size_t i, uint64_t start, uint64_t end)
{
        const Text *t = &b->texts[i];
        uint64_t from = start > t->vaddr ? start : t->vaddr, at = from - t->vaddr;
        Elf_Data *data;

        if (from >= end || at >= t->filesz)
                return (CfiBytes){0};
        data = elf_getdata_rawchunk(b->elf, (int64_t)t->offset, t->filesz, ELF_T_BYTE);
        if (!data || !data->d_buf)
                return (CfiBytes){0};
        return (CfiBytes){.p = (const uint8_t *)data->d_buf + at,
                .end = (const uint8_t *)data->d_buf + at +
                       (end - from < t->filesz - at ? end - from : t->filesz - at),
                .vaddr = from};
}

/* The same of code without CFI; none beyond what may be read of it. */
static CfiBytes gap_bytes(Builder *b, size_t i, uint64_t start, uint64_t end)
{
        CfiBytes gap = text_bytes(b, i, start, end);
        size_t size = (size_t)(gap.end - gap.p);

        if (size > GAPS_MAX - b->rows.n_gap_bytes)
                return (CfiBytes){0};
        b->rows.n_gap_bytes += size;
        return gap;
}

/* A function's code, as far as the file has it. */
static CfiBytes function_bytes(const Builder *b, uint64_t start, uint64_t end)
{
        CfiBytes code = {0};

        for (size_t i = 0; i < b->n_texts && code.p == code.end; i++)
                code = text_bytes(b, i, start, end);
        return code;
}

/* Where the table does not tell where Go's code begins (since 1.26), it is to be seen. */
static bool builder_go_text(Builder *b)
{
        GoFunction f;
        GElf_Shdr sh;

        if (b->go.text)
                return true;
        if (!cfi_elf_section(b->elf, ".text", &sh))
                return false;
        b->go.text = sh.sh_addr;
        return go_table_goexit(&b->go, &f) &&
               go_function_is_goexit(&f, function_bytes(b, f.start, f.end));
}

static int builder_go(Builder *b)
{
        GElf_Shdr sh;
        Elf_Scn *s = cfi_elf_section(b->elf, ".gopclntab", &sh);
        Elf_Data *data;

        if (!s)
                s = cfi_elf_section(b->elf, ".data.rel.ro.gopclntab", &sh);
        data = s ? elf_getdata(s, NULL) : NULL;
        if (!data || !data->d_buf || !go_table_init(&b->go, data->d_buf, data->d_size) ||
                !builder_go_text(b))
                return 0;
        for (size_t i = 0; i < b->go.n_functions && b->n_fdes < FDES_MAX; i++) {
                Fde fde = {.cie = (uint32_t)i, .section = SECTION_GO};
                GoFunction f;
                int r;

                if (!go_table_function(&b->go, i, &f) ||
                        !builder_is_code(b, f.start, f.end - f.start))
                        continue;
                fde.start = f.start;
                fde.end = f.end;
                r = builder_add(b, &fde);
                if (r)
                        return error_trace(r);
        }
        return 0;
}

/* Sections of PLT stubs, where section headers tell. */
static void builder_plts(Builder *b)
{
        size_t names;

        if (elf_getshdrstrndx(b->elf, &names) < 0)
                return;
        for (Elf_Scn *s = elf_nextscn(b->elf, NULL); s && b->n_plts < PLTS_MAX;
                s = elf_nextscn(b->elf, s)) {
                GElf_Shdr sh;
                const char *n;

                if (!gelf_getshdr(s, &sh) || !(sh.sh_flags & SHF_EXECINSTR) ||
                        sh.sh_addr + sh.sh_size < sh.sh_addr)
                        continue;
                n = elf_strptr(b->elf, names, sh.sh_name);
                if (n && (strncmp(n, ".plt", 4) == 0 || strncmp(n, ".iplt", 5) == 0))
                        b->plts[b->n_plts++] = (Text){.vaddr = sh.sh_addr, .size = sh.sh_size};
        }
}

static int builder_list(Builder *b, Elf *debug_elf)
{
        bool found;
        GElf_Shdr sh;
        Elf_Scn *s = cfi_elf_section(b->elf, ".eh_frame", &sh);
        int r;

        if (s)
                r = builder_section(b, b->elf, elf_getdata(s, NULL), sh.sh_addr, true);
        else
                r = builder_eh_frame_by_segment(b);
        if (r)
                return error_trace(r);
        r = builder_go(b);
        if (r == 0)
                r = builder_debug_frame(b, b->elf, &found);
        if (r == 0 && !found && debug_elf)
                r = builder_debug_frame(b, debug_elf, &found);
        return error_trace(r);
}

static int fde_compare(const void *a, const void *b)
{
        const Fde *x = a, *y = b;

        if (x->start != y->start)
                return x->start < y->start ? -1 : 1;
        return (int)x->section - (int)y->section;
}

static void builder_sort(Builder *b)
{
        for (size_t i = 1; i < b->n_fdes; i++)
                if (fde_compare(&b->fdes[i - 1], &b->fdes[i]) > 0) {
                        qsort(b->fdes, b->n_fdes, sizeof(*b->fdes), fde_compare);
                        return;
                }
}

static int fde_next(const Fde *fde, CfiProgram *p, GoProgram *go, uint64_t *ret_start,
        uint64_t *ret_end, const CfiRule **ret_rule)
{
        return fde->section == SECTION_GO ? go_program_next(go, ret_start, ret_end, ret_rule)
                                          : cfi_program_next(p, ret_start, ret_end, ret_rule);
}

/* Rows of one FDE from `start` on, and the end of what it covers. */
static int builder_run(Builder *b, const Fde *fde, uint64_t start)
{
        uint64_t row_start, row_end;
        const CfiRule *rule;
        CfiProgram p;
        GoProgram go = {0};
        GoFunction f;
        int r;

        b->as_entered = false;
        if (fde->section != SECTION_GO)
                cfi_program_init(&p, &b->cies[fde->cie].cie, fde->bytes, fde->start, fde->end);
        else if (go_table_function(&b->go, fde->cie, &f)) /* it makes sense, as before */
                go_program_init(&go, &b->go, &f,
                        go_function_sets_rsp(&f) ? function_bytes(b, f.start, f.end)
                                                 : (CfiBytes){0});
        while (fde_next(fde, &p, &go, &row_start, &row_end, &rule) == 0) {
                if (row_end <= start)
                        continue;
                if (cfi_rows_full(&b->rows))
                        break;
                r = cfi_rows_add(&b->rows, row_start > start ? row_start : start, rule);
                if (r)
                        return error_trace(r);
                start = row_end;
                b->as_entered = rule->cfa == CFI_CFA_REG && rule->cfa_reg == X86_RSP &&
                                rule->cfa_offset == 8;
        }
        /* The gap behind it, or what a broken program left over. */
        return error_trace(cfi_rows_add(&b->rows, start, &cfi_rule_none));
}

/* Code that is neither a PLT nor covered. */
static int builder_code(Builder *b, CfiBytes code)
{
        bool found = false;
        int r = cfi_gap_trampoline(&b->rows, code, &found);

        if (r == 0 && !found && code.end - code.p >= CODE_MIN && !cfi_rows_full(&b->rows))
                r = cfi_code_rows(&b->rows, code);
        return error_trace(r);
}

/* Code without CFI: some kinds of it can be told by their bytes. */
static int builder_gap(Builder *b, uint64_t start, uint64_t end)
{
        int r = 0;

        if (end - start < GAP_MIN)
                return 0;
        for (size_t i = 0; r == 0 && b->as_entered && i < b->n_texts; i++)
                r = cfi_gap_clone(&b->rows, text_bytes(b, i, start, end));
        for (size_t i = 0; r == 0 && i < b->n_texts; i++) {
                uint64_t at = start;

                for (size_t k = 0; r == 0 && k < b->n_plts; k++) {
                        const Text *plt = &b->plts[k];
                        uint64_t plt_end = plt->vaddr + plt->size;

                        if (plt->vaddr >= end || plt_end <= at)
                                continue;
                        r = builder_code(b, gap_bytes(b, i, at, plt->vaddr));
                        at = plt->vaddr > at ? plt->vaddr : at;
                        if (r == 0)
                                r = cfi_gap_stubs(&b->rows,
                                        gap_bytes(b, i, at, plt_end < end ? plt_end : end));
                        at = plt_end;
                }
                if (r == 0)
                        r = builder_code(b, gap_bytes(b, i, at, end));
        }
        return error_trace(r);
}

static int builder_rows(Builder *b)
{
        uint64_t at = b->rows.base;
        int r;

        r = cfi_rows_add(&b->rows, at, &cfi_rule_none);
        for (size_t i = 0; r == 0 && i < b->n_fdes && !cfi_rows_full(&b->rows); i++) {
                const Fde *fde = &b->fdes[i];

                if (fde->end <= at)
                        continue;
                if (fde->start > at)
                        r = builder_gap(b, at, fde->start);
                if (r == 0)
                        r = builder_run(b, fde, fde->start > at ? fde->start : at);
                at = fde->end;
        }
        if (r == 0 && !cfi_rows_full(&b->rows))
                r = builder_gap(b, at, b->rows.base + UINT32_MAX);
        return error_trace(r);
}

int cfi_table_new(CfiTable **ret, Elf *elf, Elf *debug_elf)
{
        _cleanup_(builder_deinit) Builder b = {.elf = elf};
        int r;

        if (!cfi_elf_is_usable(elf))
                return error_origin(-EBADMSG);
        if (debug_elf && !cfi_elf_is_usable(debug_elf))
                debug_elf = NULL;
        r = builder_texts(&b);
        if (r == 0)
                r = builder_list(&b, debug_elf);
        if (r)
                return error_trace(r);
        builder_plts(&b);
        builder_sort(&b);
        r = builder_rows(&b);
        b.rows.go = b.go.places;
        if (r == 0)
                r = cfi_rows_finish(&b.rows, ret);
        return error_trace(r);
}

int cfi_table_new_lazy(CfiTable **ret, Elf *elf)
{
        CfiLazy *lazy = NULL;
        int r;

        if (!cfi_elf_is_usable(elf))
                return CFI_TABLE_E_NOT_LAZY;
        r = cfi_lazy_new(&lazy, elf);
        if (r < 0)
                return error_trace(r);
        return r > 0 ? CFI_TABLE_E_NOT_LAZY : error_trace(cfi_table_of_lazy(ret, lazy));
}
