/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/cfi-rows.h"
#include "unwind/recording.h"
#include "util/error.h"

/* The reading half: nothing in a recording is believed. */

typedef struct Cursor {
        const uint8_t *p, *end;
} Cursor;

typedef struct Reader {
        Recording *recording;
        size_t images_size, modules_size, captures_size;
} Reader;

static size_t left(const Cursor *c)
{
        return c->end - c->p;
}

static bool take(Cursor *c, void *ret, size_t n)
{
        if (left(c) < n)
                return false;
        memcpy(ret, c->p, n);
        c->p += n;
        return true;
}

static bool take_bytes(Cursor *c, uint64_t n, const uint8_t **ret)
{
        if (left(c) < n)
                return false;
        *ret = c->p;
        c->p += n;
        return true;
}

static int read_image(Reader *r, Cursor c)
{
        Recording *rec = r->recording;
        uint64_t at = 0, image_size;
        RecordingImage *image;
        size_t size = 0;
        int e;

        e = cfi_reserve(&rec->images, rec->n_images, &r->images_size, sizeof(*rec->images));
        if (e)
                return error_trace(e);
        image = &rec->images[rec->n_images++];
        *image = (RecordingImage){0};
        if (!take(&c, &image_size, 8) || image_size > RECORDING_IMAGE_MAX)
                return RECORDING_E_BAD;
        image->size = image_size;
        while (left(&c) > 0) {
                RecordingRange range;

                if (!take(&c, &range.offset, 8) || !take(&c, &range.size, 8) || range.size == 0 ||
                        (image->n_ranges > 0 && range.offset <= at) || range.offset > image->size ||
                        range.size > image->size - range.offset ||
                        !take_bytes(&c, range.size, &range.bytes))
                        return RECORDING_E_BAD;
                at = range.offset + range.size;
                e = cfi_reserve(&image->ranges, image->n_ranges, &size, sizeof(range));
                if (e)
                        return error_trace(e);
                image->ranges[image->n_ranges++] = range;
        }
        return 0;
}

static bool image_exists(const Recording *rec, uint32_t image)
{
        return image == RECORDING_NONE || image < rec->n_images;
}

static int read_module(Reader *r, Cursor c)
{
        Recording *rec = r->recording;
        const uint8_t *name;
        RecordingModule *m;
        uint32_t n_name;
        int e;

        e = cfi_reserve(&rec->modules, rec->n_modules, &r->modules_size, sizeof(*rec->modules));
        if (e)
                return error_trace(e);
        m = &rec->modules[rec->n_modules++];
        *m = (RecordingModule){0};
        if (!take(&c, &m->image, 4) || !take(&c, &m->debug_image, 4) ||
                !image_exists(rec, m->image) || !image_exists(rec, m->debug_image) ||
                !take(&c, &n_name, 4) || !take_bytes(&c, n_name, &name))
                return RECORDING_E_BAD;
        m->name = strndup((const char *)name, n_name);
        m->build_id = strndup((const char *)c.p, left(&c));
        return m->name && m->build_id ? 0 : error_origin(-ENOMEM);
}

static int read_map(Reader *r, Cursor c)
{
        Recording *rec = r->recording;
        uint32_t n, mapping, module;
        const uint8_t *refs;
        int e;

        if (rec->map || !take(&c, &n, 4) || !take_bytes(&c, 8 * (uint64_t)n, &refs))
                return RECORDING_E_BAD;
        e = procmap_parse(&rec->map, (const char *)c.p, left(&c));
        if (e)
                return e < 0 ? error_trace(e) : RECORDING_E_BAD;
        rec->map_modules = malloc((rec->map->n + 1) * sizeof(*rec->map_modules));
        if (!rec->map_modules)
                return error_origin(-ENOMEM);
        memset(rec->map_modules, 0xff, rec->map->n * sizeof(*rec->map_modules));
        for (uint32_t i = 0; i < n; i++, refs += 8) {
                memcpy(&mapping, refs, 4);
                memcpy(&module, refs + 4, 4);
                if (mapping >= rec->map->n || module >= rec->n_modules)
                        return RECORDING_E_BAD;
                rec->map_modules[mapping] = module;
        }
        return 0;
}

static int read_capture(Reader *r, Cursor c)
{
        Recording *rec = r->recording;
        RecordingCapture capture = {0};
        int e;

        if (!take(&c, &capture.mono_ns, 8) || !take(&c, &capture.syscall, 8) ||
                !take(&c, &capture.copy.regs, sizeof(capture.copy.regs)) ||
                !take(&c, &capture.copy.addr, 8) || left(&c) > UINT64_MAX - capture.copy.addr)
                return RECORDING_E_BAD;
        capture.copy.n = left(&c);
        capture.copy.bytes = c.p;
        e = cfi_reserve(&rec->captures, rec->n_captures, &r->captures_size, sizeof(capture));
        if (e)
                return error_trace(e);
        rec->captures[rec->n_captures++] = capture;
        return 0;
}

/* What belongs to the last capture. */
static int read_part(Reader *r, uint32_t type, Cursor c)
{
        Recording *rec = r->recording;
        StackCopy *copy = rec->n_captures > 0 ? &rec->captures[rec->n_captures - 1].copy : NULL;

        if (!copy)
                return RECORDING_E_BAD;
        if (type == RECORDING_GO)
                return take(&c, &copy->go_sp, 8) && take(&c, &copy->go_pc, 8) ? 0 : RECORDING_E_BAD;
        if (type == RECORDING_CODE) {
                copy->code = c.p;
                copy->n_code = left(&c);
                return 0;
        }
        if (copy->other_bytes || !take(&c, &copy->other_addr, 8) ||
                left(&c) > UINT64_MAX - copy->other_addr)
                return RECORDING_E_BAD;
        copy->other_n = left(&c);
        copy->other_bytes = c.p;
        return 0;
}

static int read_record(Reader *r, uint32_t type, Cursor body)
{
        switch (type) {
        case RECORDING_IMAGE:
                return read_image(r, body);
        case RECORDING_MODULE:
                return read_module(r, body);
        case RECORDING_MAP:
                return read_map(r, body);
        case RECORDING_CAPTURE:
                return read_capture(r, body);
        case RECORDING_OTHER:
        case RECORDING_GO:
        case RECORDING_CODE:
                return read_part(r, type, body);
        default:
                return 0;
        }
}

int recording_read(Recording **ret, const uint8_t *bytes, size_t size)
{
        _cleanup_(recording_freep) Recording *rec = calloc(1, sizeof(*rec));
        Cursor c = {.p = bytes, .end = bytes + size};
        Reader r = {.recording = rec};
        const uint8_t *magic;
        uint32_t version;

        if (!rec)
                return error_origin(-ENOMEM);
        if (!take_bytes(&c, sizeof(RECORDING_MAGIC) - 1, &magic) ||
                memcmp(magic, RECORDING_MAGIC, sizeof(RECORDING_MAGIC) - 1) != 0 ||
                !take(&c, &version, 4) || version != RECORDING_VERSION)
                return RECORDING_E_BAD;
        while (left(&c) > 0) {
                uint64_t n;
                uint32_t type;
                Cursor body;
                int e;

                if (!take(&c, &type, 4) || !take(&c, &n, 8) || !take_bytes(&c, n, &body.p))
                        return RECORDING_E_BAD;
                body.end = c.p;
                e = read_record(&r, type, body);
                if (e)
                        return error_trace(e);
        }
        if (!rec->map)
                return RECORDING_E_BAD;
        *ret = TAKE_PTR(rec);
        return 0;
}

Recording *recording_free(Recording *r)
{
        if (!r)
                return NULL;
        for (size_t i = 0; i < r->n_images; i++)
                free(r->images[i].ranges);
        for (size_t i = 0; i < r->n_modules; i++) {
                free(r->modules[i].name);
                free(r->modules[i].build_id);
        }
        free(r->images);
        free(r->modules);
        free(r->captures);
        free(r->map_modules);
        procmap_unref(r->map);
        free(r);
        return NULL;
}

uint8_t *recording_image_expand(const RecordingImage *image)
{
        uint8_t *bytes = calloc(1, image->size ?: 1);

        for (size_t i = 0; bytes && i < image->n_ranges; i++)
                memcpy(bytes + image->ranges[i].offset, image->ranges[i].bytes,
                        image->ranges[i].size);
        return bytes;
}
