/* SPDX-License-Identifier: Apache-2.0 */
#include "unwind/cfi-lazy.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/cfi-elf.h"
#include "unwind/cfi-rows.h"
#include "util/error.h"
#include "util/list.h"

enum {
        HEADER_BYTES = 12,    /* version and encodings, address of .eh_frame, number of FDEs */
        KNOWN_MAX = 64 << 10, /* addresses; no thread calls from more before all is read */
        FDE_MAX = 8 << 10,    /* bytes, run for each address; longer ones wait for the full table */
        ENCODING_NUMBER = 0x03,  /* DW_EH_PE_udata4 */
        ENCODING_ADDRESS = 0x3b, /* DW_EH_PE_datarel | DW_EH_PE_sdata4 */
};

/* Both relative to the header, which begins the section. */
typedef struct TableEntry {
        int32_t start, fde;
} TableEntry;

typedef struct Known {
        HashLink by_vaddr;
        uint64_t vaddr;
        CfiRule rule;
} Known;

struct CfiLazy {
        pthread_mutex_t lock; /* of `known`: a rule is there to stay */
        HashTable known;
        uint64_t table_vaddr;
        size_t n;
        TableEntry *table;
        Elf_Data frames; /* .eh_frame */
        uint64_t frames_vaddr;
        unsigned char ident[EI_NIDENT];
};

static const CfiRule unread = {.cfa = CFI_CFA_UNREAD};

/* ---- reading it ---- */

static void *copy(const void *bytes, size_t n)
{
        void *p = malloc(n);

        if (p)
                memcpy(p, bytes, n);
        return p;
}

static int read_table(CfiLazy *l, Elf *elf)
{
        size_t n_headers;
        GElf_Phdr ph;

        if (elf_getphdrnum(elf, &n_headers) < 0)
                return CFI_LAZY_E_NONE;
        for (size_t i = 0; i < n_headers; i++) {
                const uint8_t *bytes;
                Elf_Data *data;
                uint32_t n;

                if (!gelf_getphdr(elf, (int)i, &ph) || ph.p_type != PT_GNU_EH_FRAME ||
                        ph.p_filesz <= HEADER_BYTES || ph.p_filesz > CFI_SECTION_MAX)
                        continue;
                data = elf_getdata_rawchunk(elf, (int64_t)ph.p_offset, ph.p_filesz, ELF_T_BYTE);
                if (!data || !data->d_buf)
                        return CFI_LAZY_E_NONE;
                bytes = data->d_buf;
                memcpy(&n, bytes + 8, sizeof(n));
                if (bytes[0] != 1 || bytes[2] != ENCODING_NUMBER || bytes[3] != ENCODING_ADDRESS ||
                        n == 0 || n > (ph.p_filesz - HEADER_BYTES) / sizeof(*l->table))
                        return CFI_LAZY_E_NONE;
                l->table_vaddr = ph.p_vaddr;
                l->n = n;
                l->table = copy(bytes + HEADER_BYTES, n * sizeof(*l->table));
                return l->table ? 0 : error_origin(-ENOMEM);
        }
        return CFI_LAZY_E_NONE;
}

static int read_frames(CfiLazy *l, Elf *elf)
{
        GElf_Shdr sh;
        Elf_Scn *s = cfi_elf_section(elf, ".eh_frame", &sh);
        Elf_Data *data = s ? elf_getdata(s, NULL) : NULL;
        const char *ident = elf_getident(elf, NULL);

        if (!ident || !data || !data->d_buf || data->d_size == 0)
                return CFI_LAZY_E_NONE;
        memcpy(l->ident, ident, sizeof(l->ident));
        l->frames = *data;
        l->frames_vaddr = sh.sh_addr;
        l->frames.d_buf = copy(data->d_buf, data->d_size);
        return l->frames.d_buf ? 0 : error_origin(-ENOMEM);
}

int cfi_lazy_new(CfiLazy **ret, Elf *elf)
{
        _cleanup_(cfi_lazy_freep) CfiLazy *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return error_origin(-ENOMEM);
        pthread_mutex_init(&l->lock, NULL);
        r = read_table(l, elf);
        if (r == 0)
                r = read_frames(l, elf);
        if (r)
                return error_trace(r);
        *ret = TAKE_PTR(l);
        return 0;
}

CfiLazy *cfi_lazy_free(CfiLazy *l)
{
        if (!l)
                return NULL;
        for (size_t i = 0; i < l->known.n_buckets; i++)
                for (HashLink *k = l->known.buckets[i], *next; k; k = next) {
                        next = k->next;
                        free(container_of(k, Known, by_vaddr));
                }
        hash_table_deinit(&l->known);
        pthread_mutex_destroy(&l->lock);
        free(l->frames.d_buf);
        free(l->table);
        free(l);
        return NULL;
}

/* ---- finding rules ---- */

static uint64_t table_start(const CfiLazy *l, size_t i)
{
        return l->table_vaddr + (uint64_t)(int64_t)l->table[i].start;
}

/* The entry of the section at that offset. */
static bool entry_at(CfiLazy *l, uint64_t offset, Dwarf_CFI_Entry *ret)
{
        Dwarf_Off next;

        return offset < l->frames.d_size &&
               dwarf_next_cfi(l->ident, &l->frames, true, offset, &next, ret) == 0;
}

/* The FDE that the table has for the address. */
static bool find_fde(CfiLazy *l, uint64_t vaddr, Dwarf_FDE *ret)
{
        size_t low = 0, high = l->n;
        Dwarf_CFI_Entry entry;
        uint64_t at;

        while (high - low > 1) {
                size_t mid = low + (high - low) / 2;

                if (table_start(l, mid) <= vaddr)
                        low = mid;
                else
                        high = mid;
        }
        at = l->table_vaddr + (uint64_t)(int64_t)l->table[low].fde - l->frames_vaddr;
        if (!entry_at(l, at, &entry) || dwarf_cfi_cie_p(&entry))
                return false;
        *ret = entry.fde;
        return true;
}

/* False: there is none. */
static bool find_rule(CfiLazy *l, uint64_t vaddr, CfiRule *ret)
{
        uint64_t start, size, row_start, row_end;
        Dwarf_CFI_Entry entry;
        const CfiRule *rule;
        CfiProgram program;
        CfiBytes bytes;
        Dwarf_FDE fde;
        CfiCie cie;

        if (!find_fde(l, vaddr, &fde) || !entry_at(l, fde.CIE_pointer, &entry) ||
                !dwarf_cfi_cie_p(&entry) || !cfi_elf_cie(&cie, &entry.cie) ||
                fde.end - fde.start > FDE_MAX)
                return false;
        bytes = (CfiBytes){.p = fde.start,
                .end = fde.end,
                .vaddr = l->frames_vaddr + (uint64_t)(fde.start - (uint8_t *)l->frames.d_buf)};
        if (!cfi_elf_fde(&cie, &bytes, &start, &size) || vaddr < start || vaddr - start >= size ||
                start + size < start)
                return false;
        *ret = cfi_rule_none;
        cfi_program_init(&program, &cie, bytes, start, start + size);
        while (cfi_program_next(&program, &row_start, &row_end, &rule) == 0)
                if (vaddr >= row_start && vaddr < row_end) {
                        *ret = *rule;
                        break;
                }
        cfi_rule_finish(ret);
        return true;
}

static const CfiRule *find_known(const CfiLazy *l, uint64_t vaddr)
{
        for (HashLink *k = hash_table_find(&l->known, hash_u64(vaddr)); k; k = hash_link_next(k)) {
                const Known *known = container_of(k, Known, by_vaddr);

                if (known->vaddr == vaddr)
                        return &known->rule;
        }
        return NULL;
}

/* Without memory, or beyond KNOWN_MAX, it stays to be read. */
static const CfiRule *learn(CfiLazy *l, uint64_t vaddr)
{
        Known *known = l->known.n < KNOWN_MAX ? calloc(1, sizeof(*known)) : NULL;

        if (!known || !find_rule(l, vaddr, &known->rule)) {
                free(known);
                return &unread;
        }
        known->vaddr = vaddr;
        if (hash_table_add(&l->known, &known->by_vaddr, hash_u64(vaddr)) < 0) {
                free(known);
                return &unread;
        }
        return &known->rule;
}

size_t cfi_lazy_bytes(CfiLazy *l)
{
        size_t n_known;

        pthread_mutex_lock(&l->lock);
        n_known = l->known.n;
        pthread_mutex_unlock(&l->lock);
        return sizeof(*l) + l->n * sizeof(*l->table) + l->frames.d_size + n_known * sizeof(Known);
}

const CfiRule *cfi_lazy_find(CfiLazy *l, uint64_t vaddr)
{
        const CfiRule *rule;

        pthread_mutex_lock(&l->lock);
        rule = find_known(l, vaddr);
        if (!rule)
                rule = learn(l, vaddr);
        pthread_mutex_unlock(&l->lock);
        return rule;
}
