/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "report/export.h"
#include "report/json-text.h"
#include "report/page.h"
#include "util/error.h"
#include "version.h"

/*
 * The page is page/page.html with its style and script within; its data is JSON in a <script> that
 * is no script: texts cannot end it, see json_text_write. Lists of numbers are parallel.
 */

static void put_text(const char *key, const char *value, FILE *f)
{
        fprintf(f, "\"%s\":", key);
        json_text_write(value, f);
        putc(',', f);
}

static void put_frames(const Profile *p, FILE *f)
{
        fputs("\"frames\":[", f);
        for (size_t i = 0; i < p->n_frames; i++) {
                const ProfileFrame *frame = &p->frames[i];

                fputs(i ? ",\n[" : "\n[", f);
                json_text_write(frame->signature, f);
                fprintf(f, ",%d", (int)frame->kind);
                if (frame->function[0] || frame->file[0]) {
                        putc(',', f);
                        json_text_write(frame->function, f);
                        putc(',', f);
                        json_text_write(frame->file, f);
                        fprintf(f, ",%" PRIu32, frame->line);
                }
                putc(']', f);
        }
        fputs("],\n", f);
}

static void put_places(const Profile *p, FILE *f)
{
        /* Differences are small numbers: a parent is seldom far. */
        fputs("\"parents\":[0", f);
        for (uint32_t i = 1; i < p->n_places; i++)
                fprintf(f, ",%" PRIu32, i - p->places[i].parent);
        fputs("],\n\"frame\":[-1", f);
        for (uint32_t i = 1; i < p->n_places; i++)
                fprintf(f, ",%" PRIu32, p->places[i].frame);
        fputs("],\n", f);
}

/* The times of the places where it has some, as [place, us, us, us, count, ...]; `sums` is zero
 * before and after. `touched`: room for a place each. */
static void put_times(const ProfileSegment *s, AnalysisPlace *sums, uint32_t *touched, FILE *f)
{
        size_t n = 0;

        for (size_t i = 0; i < s->n_samples; i++) {
                AnalysisPlace *place = &sums[s->samples[i].place];

                if (s->samples[i].place == 0)
                        continue;
                if (place->own_count++ == 0)
                        touched[n++] = s->samples[i].place;
                place->own_us[s->samples[i].state] += profile_sample_weight_us(s, i);
        }
        fputs("\"times\":[", f);
        for (size_t i = 0; i < n; i++) {
                AnalysisPlace *place = &sums[touched[i]];

                fprintf(f, "%s%" PRIu32 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64,
                        i ? "," : "", touched[i], place->own_us[0], place->own_us[1],
                        place->own_us[2], place->own_count);
                memset(place, 0, sizeof(*place));
        }
        putc(']', f);
}

static int put_segments(const Analysis *a, FILE *f)
{
        _cleanup_(freep) AnalysisPlace *sums = NULL;
        _cleanup_(freep) uint32_t *touched = NULL;

        sums = calloc(a->profile->n_places, sizeof(*sums));
        touched = calloc(a->profile->n_places, sizeof(*touched));
        if (!sums || !touched)
                return error_origin(-ENOMEM);
        fputs("\"segments\":[", f);
        for (size_t i = 0; i < a->n_segments; i++) {
                const ProfileSegment *s = a->segments[i];
                const Swprof__Profile__Segment *m = s->message;

                fputs(i ? ",\n{" : "\n{", f);
                put_text("segment", m->segment, f);
                put_text("task", s->task->id, f);
                put_text("service", s->service, f);
                put_text("instance", s->instance, f);
                put_text("endpoint", s->endpoint, f);
                put_text("thread", s->thread, f);
                fprintf(f,
                        "\"pid\":%" PRId32 ",\"tid\":%" PRId32 ",\"start_wall_ms\":%" PRId64
                        ",\"duration_ns\":%" PRIu64 ",\"on_cpu_ns\":%" PRIu64
                        ",\"run_queue_ns\":%" PRIu64 ",\"blocked_ns\":%" PRIu64 ",\"samples\":%zu,",
                        m->pid, m->tid, m->start_wall_ms, m->duration_ns, m->on_cpu_ns,
                        m->run_queue_ns, m->blocked_ns, s->n_samples);
                put_times(s, sums, touched, f);
                putc('}', f);
        }
        putc(']', f);
        return 0;
}

int export_html(const Analysis *a, FILE *f)
{
        int r;

        fwrite(page_head, 1, sizeof(page_head) - 1, f);
        putc('{', f);
        put_text("version", SWPROFD_VERSION, f);
        put_text("tool", a->profile->message->tool, f);
        put_text("host", a->profile->message->host, f);
        put_frames(a->profile, f);
        put_places(a->profile, f);
        r = put_segments(a, f);
        if (r)
                return error_trace(r);
        putc('}', f);
        fwrite(page_tail, 1, sizeof(page_tail) - 1, f);
        return 0;
}
