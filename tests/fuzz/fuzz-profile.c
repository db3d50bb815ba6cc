/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "report/export.h"
#include "util/utf8.h"

enum {
        EXPORT_MAX = 1 << 20, /* frames of all stacks; a larger picture takes time alone */
};

static void check_text(const char *s)
{
        for (size_t n = strlen(s), length; n > 0; s += length, n -= length) {
                length = utf8_length((const unsigned char *)s, n);
                if (length == 0)
                        abort();
        }
}

static void check_places(const Profile *p)
{
        for (size_t i = 1; i < p->n_places; i++)
                if (p->places[i].parent >= i || p->places[i].frame >= p->n_frames ||
                        p->places[i].depth != p->places[p->places[i].parent].depth + 1 ||
                        p->places[i].depth > PROFILE_DEPTH_MAX)
                        abort();
        for (size_t i = 0; i < p->n_frames; i++) {
                check_text(p->frames[i].signature);
                check_text(p->frames[i].function);
                check_text(p->frames[i].file);
        }
}

static void check_samples(const Profile *p)
{
        for (size_t i = 0; i < p->n_segments; i++)
                for (size_t k = 0; k < p->segments[i].n_samples; k++) {
                        const ProfileSample *s = &p->segments[i].samples[k];

                        if (s->place >= p->n_places || (unsigned)s->state >= PROFILE_N_STATES ||
                                (k > 0 && s->sequence <= s[-1].sequence))
                                abort();
                }
}

static void check_analysis(const Analysis *a)
{
        uint64_t self_us = 0, own_us = 0, n = 0;

        for (uint32_t i = analysis_next(a, 0, false); i; i = analysis_next(a, i, false)) {
                self_us += (uint64_t)a->places[i].self_us;
                own_us += analysis_own_us(&a->places[i]);
                n += a->places[i].own_count;
        }
        if (self_us != (uint64_t)a->places[0].duration_us || own_us != a->sampled_us ||
                n != a->places[0].count)
                abort();
}

static void write_all(const Analysis *a)
{
        int (*const writers[])(const Analysis *, FILE *) = {
                export_folded, export_speedscope, export_pprof, export_html};

        for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
                FILE *f = fopen("/dev/null", "we");

                if (!f || writers[i](a, f) < 0)
                        abort();
                fclose(f);
        }
}

/* What is accepted refers to nothing that is not there, and its sums are whole. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(profile_freep) Profile *p = NULL;
        _cleanup_(analysis_freep) Analysis *a = NULL;
        size_t n_frames = 0;
        int r;

        r = profile_read(&p, data, size);
        if (r == PROFILE_E_MALFORMED || r == PROFILE_E_FORMAT)
                return 0;
        if (r < 0 || analysis_new(&a, p, NULL) < 0)
                abort();
        check_places(p);
        check_samples(p);
        check_analysis(a);
        for (size_t i = 0; i < p->n_segments; i++)
                for (size_t k = 0; k < p->segments[i].n_samples; k++)
                        n_frames += p->places[p->segments[i].samples[k].place].depth;
        if (n_frames <= EXPORT_MAX)
                write_all(a);
        return 0;
}
