/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "report/profile.h"

/*
 * The call tree of segments, as the OAP's analysis makes it. Of one segment, by rising sequence: a
 * place's `count` is the number of stacks that contain it, its `duration` the sum, over the runs of
 * consecutive sequence numbers in which it is there, of the last time less the first one; `self` is
 * that less the durations of its children. The trees of several segments are added up place by
 * place. Two things of the OAP are left out: its limit of 12 000 samples, and that it tells samples
 * of several segments apart by their sequence alone, and so loses most of them.
 */

typedef struct AnalysisPlace {
        int64_t duration_us;
        int64_t self_us;
        uint64_t count;
        uint64_t states[PROFILE_N_STATES]; /* of the count */
        /* The time that samples stand for whose innermost frame is here, by their state: what
         * pictures are made of. Its sum is the time of all samples with a stack. */
        uint64_t own_us[PROFILE_N_STATES];
        uint64_t own_count;
        uint32_t first_child, next; /* of those with a count, the longest first; 0: none */
} AnalysisPlace;

typedef struct Analysis {
        const Profile *profile;
        const ProfileSegment **segments;
        size_t n_segments;
        AnalysisPlace
                *places;     /* as those of the profile; [0]: above all, its count is all stacks' */
        uint64_t n_samples;  /* also those with an empty stack */
        uint64_t sampled_us; /* the sum of own_us */
        uint64_t sampled_state_us[PROFILE_N_STATES];
} Analysis;

/* Of the segments of that task or with that id; NULL: of all. There may be none. The profile must
 * live longer. Return: 0, -ENOMEM. */
int analysis_new(Analysis **ret, const Profile *p, const char *task_or_segment);
Analysis *analysis_free(Analysis *a);
DEFINE_CLEANUP(Analysis *, analysis_free)

static inline uint64_t analysis_own_us(const AnalysisPlace *place)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < PROFILE_N_STATES; i++)
                sum += place->own_us[i];
        return sum;
}

/* The next place of the tree in depth-first order, after `place` with all that is below it if
 * `skip`; 0: that was the last one. Begin with place 0, which is no frame. */
uint32_t analysis_next(const Analysis *a, uint32_t place, bool skip);
