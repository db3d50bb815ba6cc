/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <gelf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/cfi-rows.h"
#include "unwind/recording.h"
#include "util/error.h"

/* The writing half. */

enum {
        CODE_SEGMENTS_MAX = 16, /* as many as tables are made of */
        CODE_AROUND = 160,      /* bytes on either side: what is told by its bytes is shorter */
};

typedef struct Range {
        uint64_t offset, end;
} Range;

typedef struct Ranges {
        Range *ranges;
        size_t n, size;
} Ranges;

static void ranges_deinit(Ranges *r)
{
        free(r->ranges);
}

static void put(FILE *f, const void *bytes, size_t n)
{
        fwrite(bytes, 1, n, f);
}

static void put_u32(FILE *f, uint32_t value)
{
        put(f, &value, sizeof(value));
}

static void put_u64(FILE *f, uint64_t value)
{
        put(f, &value, sizeof(value));
}

static void put_record(FILE *f, uint32_t type, uint64_t size)
{
        put_u32(f, type);
        put_u64(f, size);
}

void recording_write_head(FILE *f)
{
        put(f, RECORDING_MAGIC, sizeof(RECORDING_MAGIC) - 1);
        put_u32(f, RECORDING_VERSION);
}

void recording_write_module(
        FILE *f, uint32_t image, uint32_t debug_image, const char *name, const char *build_id)
{
        size_t n_name = strlen(name), n_build_id = strlen(build_id);

        put_record(f, RECORDING_MODULE, 12 + n_name + n_build_id);
        put_u32(f, image);
        put_u32(f, debug_image);
        put_u32(f, (uint32_t)n_name);
        put(f, name, n_name);
        put(f, build_id, n_build_id);
}

static void put_mapping(FILE *text, const Mapping *m)
{
        fprintf(text, "%" PRIx64 "-%" PRIx64 " %c%c%cp %08" PRIx64 " %02x:%02x %" PRIu64 " %s%s\n",
                m->start, m->end, m->read ? 'r' : '-', m->write ? 'w' : '-', m->exec ? 'x' : '-',
                m->offset, m->dev_major, m->dev_minor, m->inode, m->name,
                m->deleted ? " (deleted)" : "");
}

int recording_write_map(FILE *f, const ProcMap *map, const uint32_t *modules)
{
        _cleanup_(freep) char *text = NULL;
        uint32_t n_refs = 0;
        size_t n_text;
        FILE *stream;

        stream = open_memstream(&text, &n_text);
        if (!stream)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < map->n; i++) {
                put_mapping(stream, &map->mappings[i]);
                n_refs += modules[i] != RECORDING_NONE;
        }
        if (fclose(stream) != 0)
                return error_origin(-ENOMEM);
        put_record(f, RECORDING_MAP, 4 + 8 * (uint64_t)n_refs + n_text);
        put_u32(f, n_refs);
        for (size_t i = 0; i < map->n; i++) {
                if (modules[i] == RECORDING_NONE)
                        continue;
                put_u32(f, (uint32_t)i);
                put_u32(f, modules[i]);
        }
        put(f, text, n_text);
        return 0;
}

void recording_write_capture(FILE *f, const RecordingCapture *c)
{
        put_record(f, RECORDING_CAPTURE, 24 + sizeof(c->copy.regs) + c->copy.n);
        put_u64(f, c->mono_ns);
        put_u64(f, (uint64_t)c->syscall);
        put(f, &c->copy.regs, sizeof(c->copy.regs));
        put_u64(f, c->copy.addr);
        put(f, c->copy.bytes, c->copy.n);
        if (c->copy.other_n > 0) {
                put_record(f, RECORDING_OTHER, 8 + c->copy.other_n);
                put_u64(f, c->copy.other_addr);
                put(f, c->copy.other_bytes, c->copy.other_n);
        }
        if (c->copy.go_sp) {
                put_record(f, RECORDING_GO, 16);
                put_u64(f, c->copy.go_sp);
                put_u64(f, c->copy.go_pc);
        }
        if (c->copy.n_code > 0) {
                put_record(f, RECORDING_CODE, c->copy.n_code);
                put(f, c->copy.code, c->copy.n_code);
        }
}

/* ---- images ---- */

static int ranges_add(Ranges *r, uint64_t offset, uint64_t size)
{
        int e;

        if (size == 0 || size > RECORDING_IMAGE_MAX || offset > RECORDING_IMAGE_MAX - size)
                return 0;
        e = cfi_reserve(&r->ranges, r->n, &r->size, sizeof(*r->ranges));
        if (e)
                return error_trace(e);
        r->ranges[r->n++] = (Range){offset, offset + size};
        return 0;
}

static int range_compare(const void *a, const void *b)
{
        const Range *x = a, *y = b;

        return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* In order, none touching the next. */
static void ranges_merge(Ranges *r)
{
        size_t n = 0;

        if (r->n == 0)
                return;
        qsort(r->ranges, r->n, sizeof(*r->ranges), range_compare);
        for (size_t i = 1; i < r->n; i++) {
                if (r->ranges[i].offset > r->ranges[n].end)
                        r->ranges[++n] = r->ranges[i];
                else if (r->ranges[i].end > r->ranges[n].end)
                        r->ranges[n].end = r->ranges[i].end;
        }
        r->n = n + 1;
}

static bool section_is_needed(const char *name)
{
        return strcmp(name, ".eh_frame") == 0 || strcmp(name, ".debug_frame") == 0 ||
               strncmp(name, ".plt", 4) == 0 || strncmp(name, ".iplt", 5) == 0 ||
               strcmp(name, ".gopclntab") == 0 || strcmp(name, ".data.rel.ro.gopclntab") == 0;
}

static int add_sections(Ranges *r, Elf *elf, bool *ret_eh_frame)
{
        size_t names;
        int e = 0;

        *ret_eh_frame = false;
        if (elf_getshdrstrndx(elf, &names) < 0)
                return 0;
        for (Elf_Scn *s = elf_nextscn(elf, NULL); s && e == 0; s = elf_nextscn(elf, s)) {
                GElf_Shdr sh;
                const char *name;

                if (!gelf_getshdr(s, &sh) || sh.sh_type == SHT_NOBITS)
                        continue;
                name = elf_strptr(elf, names, sh.sh_name);
                if (elf_ndxscn(s) != names && (!name || !section_is_needed(name)))
                        continue;
                *ret_eh_frame = *ret_eh_frame || (name && strcmp(name, ".eh_frame") == 0);
                e = ranges_add(r, sh.sh_offset, sh.sh_size);
        }
        return error_trace(e);
}

/* Without sections .eh_frame is found by .eh_frame_hdr, behind which linkers put it. */
static int add_eh_frame_segment(Ranges *r, Elf *elf, size_t n)
{
        uint64_t offset = UINT64_MAX;
        int e = 0;

        for (size_t i = 0; i < n; i++) {
                GElf_Phdr ph;

                if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_GNU_EH_FRAME)
                        offset = ph.p_offset;
        }
        for (size_t i = 0; i < n && e == 0; i++) {
                GElf_Phdr ph;

                if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_LOAD &&
                        offset >= ph.p_offset && offset - ph.p_offset < ph.p_filesz)
                        e = ranges_add(r, offset, ph.p_filesz - (offset - ph.p_offset));
        }
        return error_trace(e);
}

static int add_code(Ranges *r, Elf *elf, size_t n, const uint64_t *vaddrs, size_t n_vaddrs)
{
        size_t n_segments = 0;
        int e = 0;

        for (size_t i = 0; i < n && n_segments < CODE_SEGMENTS_MAX; i++) {
                GElf_Phdr ph;

                if (!gelf_getphdr(elf, (int)i, &ph) || ph.p_type != PT_LOAD || !(ph.p_flags & PF_X))
                        continue;
                n_segments++;
                for (size_t k = 0; k < n_vaddrs && e == 0; k++) {
                        uint64_t at = vaddrs[k] - ph.p_vaddr, begin, end;

                        if (at >= ph.p_filesz)
                                continue;
                        begin = at > CODE_AROUND ? at - CODE_AROUND : 0;
                        end = ph.p_filesz - at > CODE_AROUND ? at + CODE_AROUND : ph.p_filesz;
                        e = ranges_add(r, ph.p_offset + begin, end - begin);
                }
        }
        return error_trace(e);
}

/* As long as what is in it, and as its segments, without which no code in them is looked at. */
static uint64_t image_size(Elf *elf, size_t n, uint64_t end)
{
        for (size_t i = 0; i < n; i++) {
                GElf_Phdr ph;

                if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_LOAD &&
                        ph.p_filesz <= RECORDING_IMAGE_MAX &&
                        ph.p_offset <= RECORDING_IMAGE_MAX - ph.p_filesz &&
                        ph.p_offset + ph.p_filesz > end)
                        end = ph.p_offset + ph.p_filesz;
        }
        return end;
}

static void ranges_write(const Ranges *r, FILE *f, Elf *elf, size_t n_segments)
{
        uint64_t size = 8;

        for (size_t i = 0; i < r->n; i++)
                size += 16 + r->ranges[i].end - r->ranges[i].offset;
        put_record(f, RECORDING_IMAGE, size);
        put_u64(f, image_size(elf, n_segments, r->ranges[r->n - 1].end));
        for (size_t i = 0; i < r->n; i++) {
                const Range *range = &r->ranges[i];
                Elf_Data *data = elf_getdata_rawchunk(
                        elf, (int64_t)range->offset, range->end - range->offset, ELF_T_BYTE);

                put_u64(f, range->offset);
                put_u64(f, range->end - range->offset);
                put(f, data->d_buf, data->d_size);
        }
}

/* Drops the ranges that the file does not have, whatever its headers say. */
static void ranges_filter(Ranges *r, Elf *elf)
{
        size_t n = 0;

        for (size_t i = 0; i < r->n; i++) {
                const Range *range = &r->ranges[i];
                Elf_Data *data = elf_getdata_rawchunk(
                        elf, (int64_t)range->offset, range->end - range->offset, ELF_T_BYTE);

                if (data && data->d_buf && data->d_size == range->end - range->offset)
                        r->ranges[n++] = *range;
        }
        r->n = n;
}

int recording_write_image(FILE *f, Elf *elf, const uint64_t *vaddrs, size_t n_vaddrs)
{
        _cleanup_(ranges_deinit) Ranges r = {0};
        GElf_Ehdr eh;
        size_t n, n_sections;
        bool eh_frame;
        int e;

        if (!gelf_getehdr(elf, &eh) || elf_getphdrnum(elf, &n) < 0 ||
                elf_getshdrnum(elf, &n_sections) < 0)
                return RECORDING_E_BAD;
        e = ranges_add(&r, 0, eh.e_ehsize);
        if (e == 0)
                e = ranges_add(&r, eh.e_phoff, n * eh.e_phentsize);
        if (e == 0)
                e = ranges_add(&r, eh.e_shoff, n_sections * eh.e_shentsize);
        if (e == 0)
                e = add_sections(&r, elf, &eh_frame);
        if (e == 0 && !eh_frame)
                e = add_eh_frame_segment(&r, elf, n);
        if (e == 0)
                e = add_code(&r, elf, n, vaddrs, n_vaddrs);
        if (e)
                return error_trace(e);
        ranges_merge(&r);
        ranges_filter(&r, elf);
        if (r.n == 0)
                return RECORDING_E_BAD;
        ranges_write(&r, f, elf, n);
        return 0;
}
