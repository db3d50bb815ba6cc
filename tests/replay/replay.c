/* SPDX-License-Identifier: Apache-2.0 */

/*
 * replay RECORDING.xz EXPECTED: unwinds each capture of a recording (unwind/recording.h) and
 * compares with what another unwinder said of the same thread at the same time. Needs nothing of
 * this host: no kernel feature, no privilege, not even the binaries.
 *
 * EXPECTED has a line "end STATUS", and one for each frame, innermost first: how many times it
 * comes in a row, module ("-": none), address in the module's terms (of callers: lowered by 1), and
 * the function, which is for people. "#" begins a comment.
 */

#include <errno.h>
#include <gelf.h>
#include <inttypes.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/recording.h"
#include "unwind/unwind.h"

enum {
        FRAMES_MAX = 16384, /* of all captures, too */
        CAPTURES_MAX = 64,
        SEGMENTS_MAX = 64,
        SIZE_MAX_BYTES = 256 << 20, /* of a recording */
};

typedef struct ExpectedFrame {
        char module[64];
        uint64_t vaddr;
        char function[256];
} ExpectedFrame;

typedef struct Expected {
        char end[32];
        size_t first, n; /* in expected_frames */
} Expected;

static ExpectedFrame expected_frames[FRAMES_MAX];
static Expected expected[CAPTURES_MAX];
static size_t n_expected_frames, n_expected;

static Frame frames[FRAMES_MAX], cut_frames[FRAMES_MAX];

static const char *const status_names[] = {
        [UNWIND_DONE] = "done",
        [UNWIND_TRUNCATED] = "truncated",
        [UNWIND_OTHER_STACK] = "other-stack",
        [UNWIND_NO_MAPPING] = "no-mapping",
        [UNWIND_UNREAD] = "unread",
        [UNWIND_NO_CFI] = "no-cfi",
        [UNWIND_BROKEN] = "broken",
        [UNWIND_TOO_DEEP] = "too-deep",
};

static void die(const char *path, const char *reason)
{
        fprintf(stderr, "%s: %s\n", path, reason);
        exit(1);
}

/* ---- files ---- */

static uint8_t *read_xz(const char *path, size_t *ret_size)
{
        _cleanup_(fclosep) FILE *f = fopen(path, "re");
        lzma_stream stream = LZMA_STREAM_INIT;
        size_t allocated = 1 << 20;
        uint8_t in[16384], *out = malloc(allocated);
        lzma_ret r = LZMA_OK;

        if (!f || !out || lzma_stream_decoder(&stream, UINT64_MAX, 0) != LZMA_OK)
                die(path, strerror(errno));
        while (r == LZMA_OK) {
                if (stream.avail_in == 0) {
                        stream.next_in = in;
                        stream.avail_in = fread(in, 1, sizeof(in), f);
                }
                if (stream.total_out == allocated)
                        out = realloc(out, allocated *= 2);
                if (!out || allocated > SIZE_MAX_BYTES)
                        die(path, "too large");
                stream.next_out = out + stream.total_out;
                stream.avail_out = allocated - stream.total_out;
                r = lzma_code(&stream, feof(f) ? LZMA_FINISH : LZMA_RUN);
        }
        if (r != LZMA_STREAM_END)
                die(path, "not an xz file");
        *ret_size = stream.total_out;
        lzma_end(&stream);
        return out;
}

static void read_expected(const char *path)
{
        _cleanup_(fclosep) FILE *f = fopen(path, "re");
        char line[512];

        if (!f)
                die(path, strerror(errno));
        while (fgets(line, sizeof(line), f)) {
                ExpectedFrame frame = {.function = "?"};
                Expected next = {.first = n_expected_frames};
                size_t n;

                if (line[0] == '#')
                        continue;
                if (sscanf(line, "end %31s", next.end) == 1 && n_expected < CAPTURES_MAX) {
                        expected[n_expected++] = next;
                        continue;
                }
                if (sscanf(line, "%zu %63s %" SCNx64 " %255[^\n]", &n, frame.module, &frame.vaddr,
                            frame.function) < 3 ||
                        n > FRAMES_MAX - n_expected_frames || n_expected == 0)
                        die(path, line);
                expected[n_expected - 1].n += n;
                while (n-- > 0)
                        expected_frames[n_expected_frames++] = frame;
        }
}

/* ---- modules ---- */

static Elf *open_image(const Recording *r, uint32_t i, uint8_t **ret_bytes)
{
        if (i == RECORDING_NONE)
                return NULL;
        *ret_bytes = recording_image_expand(&r->images[i]);
        return *ret_bytes ? elf_memory((char *)*ret_bytes, r->images[i].size) : NULL;
}

static Module *load_module(const Recording *r, const RecordingModule *m)
{
        _cleanup_(freep) uint8_t *bytes = NULL, *debug_bytes = NULL;
        Elf *elf = open_image(r, m->image, &bytes),
            *debug = open_image(r, m->debug_image, &debug_bytes);
        ModuleSegment segments[SEGMENTS_MAX];
        size_t n_headers = 0, n = 0;
        CfiTable *cfi = NULL;
        Module *module;

        if (elf && cfi_table_new(&cfi, elf, debug) != 0)
                die(m->name, "cannot be read");
        if (elf)
                elf_getphdrnum(elf, &n_headers);
        for (size_t i = 0; i < n_headers && n < SEGMENTS_MAX; i++) {
                GElf_Phdr ph;

                if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_LOAD)
                        segments[n++] = (ModuleSegment){ph.p_offset, ph.p_vaddr, ph.p_filesz};
        }
        module = module_new(m->name, cfi, n, segments);
        elf_end(debug);
        elf_end(elf);
        return module;
}

static void load_modules(Recording *r)
{
        Module **modules = calloc(r->n_modules + 1, sizeof(*modules));

        elf_version(EV_CURRENT);
        for (size_t i = 0; modules && i < r->n_modules; i++) {
                modules[i] = load_module(r, &r->modules[i]);
                if (!modules[i])
                        die(r->modules[i].name, "no memory");
        }
        for (size_t i = 0; modules && i < r->map->n; i++)
                if (r->map_modules[i] != RECORDING_NONE)
                        r->map->mappings[i].module = module_ref(modules[r->map_modules[i]]);
        for (size_t i = 0; modules && i < r->n_modules; i++)
                module_unref(modules[i]);
        free(modules);
}

/* ---- comparing ---- */

static void print_frame(
        char sign, size_t i, const char *module, uint64_t vaddr, const char *function)
{
        printf("%c %3zu %s %#" PRIx64 " %s\n", sign, i, module, vaddr, function);
}

static const char *module_name(const Frame *f)
{
        return f->module ? f->module->name : "-";
}

static bool same_frame(const Frame *f, const ExpectedFrame *e)
{
        return f->vaddr == e->vaddr && strcmp(module_name(f), e->module) == 0;
}

static bool check(const UnwindResult *r, const Expected *e)
{
        const ExpectedFrame *wanted = expected_frames + e->first;
        size_t i = 0;

        while (i < e->n && i < r->n_frames && same_frame(&frames[i], &wanted[i]))
                i++;
        if (i == e->n && i == r->n_frames && strcmp(status_names[r->status], e->end) == 0)
                return true;
        printf("%zu frames, %s; expected: %zu, %s\n", r->n_frames, status_names[r->status], e->n,
                e->end);
        for (size_t k = i > 2 ? i - 2 : 0; k < i; k++)
                print_frame(' ', k, wanted[k].module, wanted[k].vaddr, wanted[k].function);
        for (size_t k = i; k < e->n && k < i + 5; k++)
                print_frame('-', k, wanted[k].module, wanted[k].vaddr, wanted[k].function);
        for (size_t k = i; k < r->n_frames && k < i + 5; k++)
                print_frame('+', k, module_name(&frames[k]), frames[k].vaddr, "");
        return false;
}

/* A shorter copy gives the same frames, as far as it goes, and says that it is too short. */
static bool check_cut(
        const StackCopy *copy, const ProcMap *map, const UnwindResult *whole, size_t n)
{
        StackCopy cut = *copy;
        UnwindResult r;

        cut.n = n;
        r = unwind_cfi(&cut, map, cut_frames, FRAMES_MAX);
        if (r.status == UNWIND_TRUNCATED
                        ? r.need_end <= cut.addr + n || r.n_frames > whole->n_frames
                        : r.status != whole->status || r.n_frames != whole->n_frames) {
                printf("cut to %zu bytes: %zu frames, %s\n", n, r.n_frames, status_names[r.status]);
                return false;
        }
        for (size_t i = 0; i < r.n_frames; i++)
                if (cut_frames[i].pc != frames[i].pc || cut_frames[i].vaddr != frames[i].vaddr) {
                        printf("cut to %zu bytes: another frame %zu\n", n, i);
                        return false;
                }
        return true;
}

/* It says how much of the copy it needs. */
static bool check_enough(const StackCopy *copy, const ProcMap *map, const UnwindResult *whole)
{
        StackCopy cut = *copy;
        UnwindResult r;

        if (whole->status != UNWIND_DONE || whole->moved)
                return true;
        cut.n = whole->need_end - copy->addr;
        r = unwind_cfi(&cut, map, cut_frames, FRAMES_MAX);
        if (whole->need_end > copy->addr && cut.n <= copy->n && r.status == UNWIND_DONE &&
                r.n_frames == whole->n_frames)
                return true;
        printf("%zu of %zu bytes are not enough: %zu frames, %s\n", cut.n, copy->n, r.n_frames,
                status_names[r.status]);
        return false;
}

/* Without the copy of the other stack it says where that is. */
static bool check_without_other(const StackCopy *copy, const ProcMap *map)
{
        StackCopy alone = *copy;
        UnwindResult r;

        if (copy->other_n == 0)
                return true;
        alone.other_n = 0;
        r = unwind_cfi(&alone, map, cut_frames, FRAMES_MAX);
        if (r.status == UNWIND_OTHER_STACK && r.other &&
                r.need_addr - copy->other_addr < copy->other_n)
                return true;
        printf("without the other stack: %zu frames, %s\n", r.n_frames, status_names[r.status]);
        return false;
}

int main(int argc, char **argv)
{
        Recording *r = NULL;
        uint8_t *bytes;
        size_t size;
        bool right = true;

        if (argc != 3)
                die(argv[0], "RECORDING.xz EXPECTED");
        read_expected(argv[2]);
        bytes = read_xz(argv[1], &size);
        if (recording_read(&r, bytes, size) != 0)
                die(argv[1], "not a recording");
        load_modules(r);
        if (r->n_captures == 0 || (n_expected != 1 && n_expected != r->n_captures))
                die(argv[2], "not as many expectations as captures");
        for (size_t i = 0; i < r->n_captures; i++) {
                const StackCopy *copy = &r->captures[i].copy;
                const Expected *e = &expected[n_expected == 1 ? 0 : i];
                UnwindResult u = unwind_cfi(copy, r->map, frames, FRAMES_MAX);

                printf("capture %zu: %zu bytes, %zu frames\n", i, copy->n, u.n_frames);
                right = check(&u, e) && right;
                right = check_without_other(copy, r->map) && right;
                right = check_enough(copy, r->map, &u) && right;
                for (size_t n = copy->n; n > 0; n = n / 16 * 15 / 8 * 8)
                        right = check_cut(copy, r->map, &u, n) && right;
        }
        recording_free(r);
        free(bytes);
        return right ? 0 : 1;
}
