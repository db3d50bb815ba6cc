/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "pprof.pb-c.h"
#include "report/export.h"
#include "util/error.h"

/*
 * A frame of ours is a function and a location of theirs. Everything is in few arrays: `Book` holds
 * them while the message, which points into them, is written.
 */

enum {
        VALUE_SAMPLES,
        VALUE_WALL,
        VALUE_CPU, /* then the other states, in their order */
        N_VALUES = VALUE_CPU + PROFILE_N_STATES,
        N_FIXED = 1 + N_VALUES + 2, /* strings that do not come from frames */
};

static const char *const fixed_strings[N_FIXED] = {
        "", "samples", "wall", "cpu", "runqueue", "blocked", "count", "nanoseconds"};

#define STRING_COUNT       (1 + N_VALUES)
#define STRING_NANOSECONDS (2 + N_VALUES)

typedef Swprof__Pprof__Profile Message;
typedef Swprof__Pprof__Function Function;
typedef Swprof__Pprof__Location Location;
typedef Swprof__Pprof__Line Line;
typedef Swprof__Pprof__Sample Sample;
typedef Swprof__Pprof__ValueType ValueType;

typedef struct Book {
        char **strings;
        Function *functions, **function_list;
        Location *locations, **location_list;
        Line *lines, **line_list;
        Sample *samples, **sample_list;
        int64_t *values;
        uint64_t *stacks; /* of all samples, one after another */
        size_t n_samples;
} Book;

static void book_deinit(Book *b)
{
        free(b->strings);
        free(b->functions);
        free(b->function_list);
        free(b->locations);
        free(b->location_list);
        free(b->lines);
        free(b->line_list);
        free(b->samples);
        free(b->sample_list);
        free(b->values);
        free(b->stacks);
}

static void measure(const Analysis *a, size_t *ret_n_samples, size_t *ret_n_frames)
{
        size_t n_samples = 0, n_frames = 0;

        for (size_t i = 1; i < a->profile->n_places; i++)
                if (a->places[i].own_count > 0) {
                        n_samples++;
                        n_frames += a->profile->places[i].depth;
                }
        *ret_n_samples = n_samples;
        *ret_n_frames = n_frames;
}

static int book_init(Book *b, const Analysis *a)
{
        size_t n = a->profile->n_frames + 1, n_samples, n_stacks;

        measure(a, &n_samples, &n_stacks);
        b->strings = calloc(N_FIXED + 2 * n, sizeof(*b->strings));
        b->functions = calloc(n, sizeof(*b->functions));
        b->function_list = calloc(n, sizeof(*b->function_list));
        b->locations = calloc(n, sizeof(*b->locations));
        b->location_list = calloc(n, sizeof(*b->location_list));
        b->lines = calloc(n, sizeof(*b->lines));
        b->line_list = calloc(n, sizeof(*b->line_list));
        b->samples = calloc(n_samples + 1, sizeof(*b->samples));
        b->sample_list = calloc(n_samples + 1, sizeof(*b->sample_list));
        b->values = calloc(n_samples + 1, N_VALUES * sizeof(*b->values));
        b->stacks = calloc(n_stacks + 1, sizeof(*b->stacks));
        if (!b->strings || !b->functions || !b->function_list || !b->locations ||
                !b->location_list || !b->lines || !b->line_list || !b->samples || !b->sample_list ||
                !b->values || !b->stacks)
                return error_origin(-ENOMEM);
        return 0;
}

static void fill_frames(Book *b, const Profile *p, Message *m)
{
        for (size_t i = 0; i < N_FIXED; i++)
                b->strings[i] = (char *)fixed_strings[i];
        m->string_table = b->strings;
        m->n_string_table = N_FIXED;
        for (size_t i = 0; i < p->n_frames; i++) {
                swprof__pprof__function__init(&b->functions[i]);
                b->functions[i].id = i + 1;
                b->functions[i].name = (int64_t)m->n_string_table;
                b->functions[i].system_name = (int64_t)m->n_string_table;
                b->strings[m->n_string_table++] = (char *)p->frames[i].signature;
                if (p->frames[i].file[0]) {
                        b->functions[i].filename = (int64_t)m->n_string_table;
                        b->strings[m->n_string_table++] = (char *)p->frames[i].file;
                }
                swprof__pprof__line__init(&b->lines[i]);
                b->lines[i].function_id = i + 1;
                b->lines[i].line = p->frames[i].line;
                swprof__pprof__location__init(&b->locations[i]);
                b->locations[i].id = i + 1;
                b->locations[i].n_line = 1;
                b->locations[i].line = &b->line_list[i];
                b->line_list[i] = &b->lines[i];
                b->function_list[i] = &b->functions[i];
                b->location_list[i] = &b->locations[i];
        }
        m->function = b->function_list;
        m->location = b->location_list;
        m->n_function = m->n_location = p->n_frames;
}

static void fill_samples(Book *b, const Analysis *a, Message *m)
{
        const ProfilePlace *places = a->profile->places;
        uint64_t *stack = b->stacks;
        int64_t *values = b->values;

        for (uint32_t i = analysis_next(a, 0, false); i; i = analysis_next(a, i, false)) {
                Sample *s = &b->samples[b->n_samples];

                if (a->places[i].own_count == 0)
                        continue;
                swprof__pprof__sample__init(s);
                s->location_id = stack;
                s->n_location_id = places[i].depth;
                for (uint32_t k = i; k; k = places[k].parent)
                        *stack++ = places[k].frame + 1;
                values[VALUE_SAMPLES] = (int64_t)a->places[i].own_count;
                values[VALUE_WALL] = (int64_t)analysis_own_us(&a->places[i]) * 1000;
                for (size_t k = 0; k < PROFILE_N_STATES; k++)
                        values[VALUE_CPU + k] = (int64_t)a->places[i].own_us[k] * 1000;
                s->value = values;
                s->n_value = N_VALUES;
                values += N_VALUES;
                b->sample_list[b->n_samples++] = s;
        }
        m->sample = b->sample_list;
        m->n_sample = b->n_samples;
}

/* Return: 0, -ENOMEM; errors of f stay with it. */
static int write_compressed(const uint8_t *bytes, size_t n, FILE *f)
{
        z_stream z = {.next_in = (uint8_t *)bytes};
        uint8_t out[1 << 14];
        int r;

        if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16 /* gzip */, 8,
                    Z_DEFAULT_STRATEGY) != Z_OK)
                return error_origin(-ENOMEM);
        do {
                uInt part = n < (1U << 30) ? (uInt)n : 1U << 30;

                if (z.avail_in == 0) {
                        z.avail_in = part;
                        n -= part;
                }
                z.next_out = out;
                z.avail_out = sizeof(out);
                r = deflate(&z, n > 0 ? Z_NO_FLUSH : Z_FINISH);
                fwrite(out, 1, sizeof(out) - z.avail_out, f);
        } while (r != Z_STREAM_END);
        deflateEnd(&z);
        return 0;
}

int export_pprof(const Analysis *a, FILE *f)
{
        _cleanup_(book_deinit) Book b = {0};
        _cleanup_(freep) uint8_t *bytes = NULL;
        Message m = SWPROF__PPROF__PROFILE__INIT;
        ValueType types[N_VALUES], *type_list[N_VALUES], period = SWPROF__PPROF__VALUE_TYPE__INIT;
        size_t n;
        int r;

        r = book_init(&b, a);
        if (r)
                return error_trace(r);
        fill_frames(&b, a->profile, &m);
        fill_samples(&b, a, &m);
        for (size_t i = 0; i < N_VALUES; i++) {
                swprof__pprof__value_type__init(&types[i]);
                types[i].type = (int64_t)(1 + i);
                types[i].unit = i == VALUE_SAMPLES ? STRING_COUNT : STRING_NANOSECONDS;
                type_list[i] = &types[i];
        }
        m.sample_type = type_list;
        m.n_sample_type = N_VALUES;
        m.default_sample_type = 1 + VALUE_WALL;
        period.type = 1 + VALUE_WALL;
        period.unit = STRING_NANOSECONDS;
        m.period_type = &period;
        m.duration_nanos = (int64_t)a->sampled_us * 1000;
        if (a->n_segments > 0) {
                m.time_nanos = a->segments[0]->message->start_wall_ms * 1000000;
                m.period = a->segments[0]->message->period_us * 1000LL;
        }
        n = swprof__pprof__profile__get_packed_size(&m);
        bytes = malloc(n);
        if (!bytes)
                return error_origin(-ENOMEM);
        swprof__pprof__profile__pack(&m, bytes);
        return error_trace(write_compressed(bytes, n, f));
}
