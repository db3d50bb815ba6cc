/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "profile.pb-c.h"
#include "util/cleanup.h"

/*
 * A profile (profile.proto), read and checked: every index is good, every text is UTF-8. The stacks
 * are merged to one tree of places: a place is a frame under its callers, told apart by signature.
 */

enum {
        _PROFILE_E_SUCCESS,
        PROFILE_E_MALFORMED, /* not a profile, or one that contradicts itself */
        PROFILE_E_FORMAT,    /* of a format that we do not know */
};

enum {
        PROFILE_BYTES_MAX = 256 << 20,
        PROFILE_SAMPLES_MAX = 8 << 20,
        PROFILE_DEPTH_MAX = 4096,
        PROFILE_N_STATES = 3,
};
/* Of a sample's time: sums of as many as there may be cannot overflow. */
#define PROFILE_TIME_MAX_US (1LL << 38)

typedef struct ProfileFrame {
        const char *signature, *function, *file; /* not NULL */
        uint32_t line;
        Swprof__Profile__Kind kind;
} ProfileFrame;

typedef struct ProfilePlace {
        uint32_t parent; /* lower than its own index */
        uint32_t frame;
        uint32_t depth; /* frames down to here */
} ProfilePlace;

typedef struct ProfileSample {
        int64_t time_us; /* since the start of the segment */
        uint32_t sequence;
        uint32_t place; /* of the innermost frame; 0: an empty stack */
        Swprof__Profile__State state;
} ProfileSample;

typedef struct ProfileSegment {
        const Swprof__Profile__Segment *message;
        const Swprof__Profile__Task *task;
        const char *service, *instance, *endpoint, *thread;
        /* By rising sequence; of samples of equal sequence the first one that came. */
        ProfileSample *samples;
        size_t n_samples;
        size_t n_duplicates;
} ProfileSegment;

typedef struct Profile {
        Swprof__Profile__Profile *message;
        ProfileFrame *frames; /* each signature once: what the first frame with it says */
        size_t n_frames;
        ProfilePlace *places; /* [0] is above all stacks and has no frame */
        size_t n_places;
        ProfileSegment *segments;
        size_t n_segments;
} Profile;

/* Return: 0, PROFILE_E_MALFORMED, PROFILE_E_FORMAT, -ENOMEM. */
int profile_read(Profile **ret, const uint8_t *bytes, size_t n);
Profile *profile_free(Profile *p);
DEFINE_CLEANUP(Profile *, profile_free)

/* As JSON has it. */
const char *profile_kind_name(Swprof__Profile__Kind kind);

/* The frames of a place, outermost first. `frames` has room for PROFILE_DEPTH_MAX. Return: how many. */
uint32_t profile_stack(const Profile *p, uint32_t place, uint32_t *frames);

/*
 * The time that a sample stands for: until the next one of the sequence, or, where that is missing,
 * for one period.
 */
uint64_t profile_sample_weight_us(const ProfileSegment *s, size_t i);
