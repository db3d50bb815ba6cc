/* SPDX-License-Identifier: Apache-2.0 */
#include "report/analysis.h"

#include <errno.h>
#include <string.h>

#include "util/error.h"

/*
 * Between two samples that follow each other, time passes in the places that both stacks contain:
 * the deepest common one and all above it. So each step gives its time to that one place, and
 * the sums go up the tree once, at the end: that of a place is then what the sum over its runs is.
 */

static uint32_t common_place(const ProfilePlace *places, uint32_t x, uint32_t y)
{
        while (x != y)
                if (places[x].depth > places[y].depth)
                        x = places[x].parent;
                else if (places[y].depth > places[x].depth)
                        y = places[y].parent;
                else {
                        x = places[x].parent;
                        y = places[y].parent;
                }
        return x;
}

static void add_segment(Analysis *a, const ProfileSegment *s)
{
        const ProfilePlace *places = a->profile->places;

        for (size_t i = 0; i < s->n_samples; i++) {
                const ProfileSample *sample = &s->samples[i], *before = sample - 1;
                AnalysisPlace *place = &a->places[sample->place];
                uint64_t weight_us;

                a->n_samples++;
                if (i > 0 && before->sequence + 1 == sample->sequence)
                        a->places[common_place(places, before->place, sample->place)].self_us +=
                                sample->time_us - before->time_us;
                if (sample->place == 0)
                        continue;
                weight_us = profile_sample_weight_us(s, i);
                place->count++;
                place->states[sample->state]++;
                place->own_count++;
                place->own_us[sample->state] += weight_us;
                a->sampled_us += weight_us;
                a->sampled_state_us[sample->state] += weight_us;
        }
}

static void add_up(Analysis *a)
{
        /* Above all stacks, there is no time. */
        a->places[0].self_us = 0;
        for (size_t i = a->profile->n_places; i-- > 1;) {
                AnalysisPlace *place = &a->places[i],
                              *parent = &a->places[a->profile->places[i].parent];

                place->duration_us += place->self_us;
                parent->duration_us += place->duration_us;
                parent->count += place->count;
                for (size_t k = 0; k < PROFILE_N_STATES; k++)
                        parent->states[k] += place->states[k];
        }
}

/* ---- the order of children ---- */

typedef struct Ranked {
        uint32_t place, parent;
        int64_t duration_us;
        uint64_t count;
        const char *signature;
} Ranked;

/* In the end the signature decides: the order in a file means nothing. */
static int compare_ranked(const void *a, const void *b)
{
        const Ranked *x = a, *y = b;

        if (x->duration_us != y->duration_us)
                return x->duration_us < y->duration_us ? -1 : 1;
        if (x->count != y->count)
                return x->count < y->count ? -1 : 1;
        return strcmp(y->signature, x->signature);
}

static int link_children(Analysis *a)
{
        const Profile *p = a->profile;
        _cleanup_(freep) Ranked *ranked = NULL;
        size_t n = 0;

        ranked = malloc(p->n_places * sizeof(*ranked));
        if (!ranked)
                return error_origin(-ENOMEM);
        for (uint32_t i = 1; i < p->n_places; i++)
                if (a->places[i].count > 0)
                        ranked[n++] = (Ranked){
                                .place = i,
                                .parent = p->places[i].parent,
                                .duration_us = a->places[i].duration_us,
                                .count = a->places[i].count,
                                .signature = p->frames[p->places[i].frame].signature,
                        };
        qsort(ranked, n, sizeof(*ranked), compare_ranked);
        /* The least comes first, and the last one in ends up at the head. */
        for (size_t i = 0; i < n; i++) {
                a->places[ranked[i].place].next = a->places[ranked[i].parent].first_child;
                a->places[ranked[i].parent].first_child = ranked[i].place;
        }
        return 0;
}

uint32_t analysis_next(const Analysis *a, uint32_t place, bool skip)
{
        if (!skip && a->places[place].first_child)
                return a->places[place].first_child;
        while (place && !a->places[place].next)
                place = a->profile->places[place].parent;
        return a->places[place].next;
}

/* ---- all of it ---- */

int analysis_new(Analysis **ret, const Profile *p, const char *task_or_segment)
{
        _cleanup_(analysis_freep) Analysis *a = NULL;
        int r;

        a = calloc(1, sizeof(*a));
        if (!a)
                return error_origin(-ENOMEM);
        a->profile = p;
        a->places = calloc(p->n_places, sizeof(*a->places));
        a->segments = calloc(p->n_segments + 1, sizeof(ProfileSegment *));
        if (!a->places || !a->segments)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < p->n_segments; i++) {
                const ProfileSegment *s = &p->segments[i];

                if (task_or_segment && strcmp(s->task->id, task_or_segment) != 0 &&
                        strcmp(s->message->segment, task_or_segment) != 0)
                        continue;
                a->segments[a->n_segments++] = s;
                add_segment(a, s);
        }
        add_up(a);
        r = link_children(a);
        if (r)
                return error_trace(r);
        *ret = TAKE_PTR(a);
        return 0;
}

Analysis *analysis_free(Analysis *a)
{
        if (!a)
                return NULL;
        free(a->places);
        free(a->segments);
        free(a);
        return NULL;
}
