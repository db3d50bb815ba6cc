/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>

#include "report/export.h"
#include "report/json-text.h"
#include "util/error.h"
#include "version.h"

#define SCHEMA "https://www.speedscope.app/file-format-schema.json"

static void put_frames(const Profile *p, FILE *f)
{
        for (size_t i = 0; i < p->n_frames; i++) {
                const ProfileFrame *frame = &p->frames[i];

                fputs(i ? ",\n{\"name\":" : "\n{\"name\":", f);
                json_text_write(frame->signature, f);
                if (frame->file[0]) {
                        fputs(",\"file\":", f);
                        json_text_write(frame->file, f);
                }
                if (frame->line > 0)
                        fprintf(f, ",\"line\":%" PRIu32, frame->line);
                putc('}', f);
        }
}

static void put_stack(const Profile *p, uint32_t leaf, uint32_t *path, FILE *f)
{
        uint32_t depth = profile_stack(p, leaf, path);

        putc_unlocked('[', f);
        for (uint32_t i = 0; i < depth; i++)
                fprintf(f, i ? ",%" PRIu32 : "%" PRIu32, path[i]);
        putc_unlocked(']', f);
}

/* Stacks that follow each other unchanged are one. */
static void put_samples(const Profile *p, const ProfileSegment *s, uint32_t *path, FILE *f)
{
        const char *separator = "";

        for (size_t i = 0; i < s->n_samples; i++) {
                if (s->samples[i].place == 0 ||
                        (i > 0 && s->samples[i - 1].place == s->samples[i].place))
                        continue;
                fputs(separator, f);
                put_stack(p, s->samples[i].place, path, f);
                separator = ",\n";
        }
}

/* Of the same stacks. Return: their sum. */
static uint64_t put_weights(const ProfileSegment *s, FILE *f)
{
        uint64_t sum_us = 0, weight_us = 0;
        const char *separator = "";

        for (size_t i = 0; i < s->n_samples; i++) {
                uint32_t place = s->samples[i].place;

                if (place == 0)
                        continue;
                weight_us += profile_sample_weight_us(s, i);
                if (i + 1 < s->n_samples && s->samples[i + 1].place == place)
                        continue;
                fprintf(f, "%s%" PRIu64, separator, weight_us);
                sum_us += weight_us;
                weight_us = 0;
                separator = ",";
        }
        return sum_us;
}

static void put_segment(const Profile *p, const ProfileSegment *s, uint32_t *path, FILE *f)
{
        fputs("{\"type\":\"sampled\",\"name\":", f);
        json_text_write(s->message->segment, f);
        fputs(",\"unit\":\"microseconds\",\"startValue\":0,\"samples\":[\n", f);
        put_samples(p, s, path, f);
        fputs("],\"weights\":[", f);
        fprintf(f, "],\"endValue\":%" PRIu64 "}", put_weights(s, f));
}

int export_speedscope(const Analysis *a, FILE *f)
{
        _cleanup_(freep) uint32_t *path = NULL;

        path = malloc(PROFILE_DEPTH_MAX * sizeof(*path));
        if (!path)
                return error_origin(-ENOMEM);
        fputs("{\"$schema\":\"" SCHEMA "\",\"exporter\":\"swprofctl " SWPROFD_VERSION
              "\",\"shared\":{\"frames\":[",
                f);
        put_frames(a->profile, f);
        fputs("]},\"profiles\":[\n", f);
        for (size_t i = 0; i < a->n_segments; i++) {
                if (i > 0)
                        fputs(",\n", f);
                put_segment(a->profile, a->segments[i], path, f);
        }
        fputs("]}\n", f);
        return 0;
}
