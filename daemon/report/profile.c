/* SPDX-License-Identifier: Apache-2.0 */
#include "report/profile.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "util/error.h"
#include "util/hash.h"
#include "util/utf8.h"

#define NONE UINT32_MAX

/*
 * Open addressing: the hash table of numbers that the caller compares. Never more than half full,
 * for it is made for as many as there can be.
 */
typedef struct Index {
        uint32_t *slots;
        size_t mask;
} Index;

static int index_init(Index *x, size_t n)
{
        size_t size = 16;

        while (size < n * 2)
                size *= 2;
        x->slots = malloc(size * sizeof(*x->slots));
        if (!x->slots)
                return error_origin(-ENOMEM);
        memset(x->slots, 0xff, size * sizeof(*x->slots));
        x->mask = size - 1;
        return 0;
}

static void index_deinit(Index *x)
{
        free(x->slots);
}

typedef Swprof__Profile__Profile Message;

/* ---- texts ---- */

static bool is_string(const Message *m, uint32_t string)
{
        return string < m->n_strings;
}

static void repair_texts(Message *m)
{
        utf8_repair(m->tool);
        utf8_repair(m->host);
        for (size_t i = 0; i < m->n_strings; i++)
                utf8_repair(m->strings[i]);
        for (size_t i = 0; i < m->n_tasks; i++) {
                utf8_repair(m->tasks[i]->id);
                utf8_repair(m->tasks[i]->service);
                utf8_repair(m->tasks[i]->endpoint);
        }
        for (size_t i = 0; i < m->n_segments; i++)
                utf8_repair(m->segments[i]->segment);
}

/* ---- frames ---- */

static uint32_t frame_intern(Profile *p, Index *x, const Swprof__Profile__Frame *f)
{
        const Message *m = p->message;
        const char *signature = m->strings[f->signature];
        size_t slot = hash_string(signature) & x->mask;

        for (; x->slots[slot] != NONE; slot = (slot + 1) & x->mask)
                if (strcmp(p->frames[x->slots[slot]].signature, signature) == 0)
                        return x->slots[slot];
        x->slots[slot] = (uint32_t)p->n_frames;
        p->frames[p->n_frames] = (ProfileFrame){
                .signature = signature,
                .function = m->strings[f->function],
                .file = m->strings[f->file],
                .line = f->line,
                /* A kind that is yet to be invented. */
                .kind = f->kind >= SWPROF__PROFILE__KIND__UNKNOWN &&
                                        f->kind <= SWPROF__PROFILE__KIND__ANONYMOUS
                                ? f->kind
                                : SWPROF__PROFILE__KIND__UNKNOWN,
        };
        return (uint32_t)p->n_frames++;
}

/* *ret_ids: the frame of ours for each of the message. */
static int read_frames(Profile *p, uint32_t **ret_ids)
{
        const Message *m = p->message;
        _cleanup_(index_deinit) Index x = {0};
        _cleanup_(freep) uint32_t *ids = NULL;
        int r;

        p->frames = calloc(m->n_frames + 1, sizeof(*p->frames));
        ids = malloc((m->n_frames + 1) * sizeof(*ids));
        if (!p->frames || !ids)
                return error_origin(-ENOMEM);
        r = index_init(&x, m->n_frames);
        if (r)
                return error_trace(r);
        for (size_t i = 0; i < m->n_frames; i++) {
                const Swprof__Profile__Frame *f = m->frames[i];

                if (!is_string(m, f->signature) || !is_string(m, f->function) ||
                        !is_string(m, f->file))
                        return PROFILE_E_MALFORMED;
                ids[i] = frame_intern(p, &x, f);
        }
        *ret_ids = TAKE_PTR(ids);
        return 0;
}

/* ---- stacks ---- */

static uint32_t place_intern(Profile *p, Index *x, uint32_t parent, uint32_t frame)
{
        size_t slot = hash_u64((uint64_t)parent << 32 | frame) & x->mask;

        for (; x->slots[slot] != NONE; slot = (slot + 1) & x->mask) {
                const ProfilePlace *place = &p->places[x->slots[slot]];

                if (place->parent == parent && place->frame == frame)
                        return x->slots[slot];
        }
        x->slots[slot] = (uint32_t)p->n_places;
        p->places[p->n_places] = (ProfilePlace){
                .parent = parent,
                .frame = frame,
                .depth = p->places[parent].depth + 1,
        };
        return (uint32_t)p->n_places++;
}

/* *ret_leaves: the place of the innermost frame of each stack. */
static int read_stacks(Profile *p, const uint32_t *frame_ids, uint32_t **ret_leaves)
{
        const Message *m = p->message;
        _cleanup_(index_deinit) Index x = {0};
        _cleanup_(freep) uint32_t *leaves = NULL, *path = NULL;
        size_t used = 0, depth = 0;
        int r;

        if (m->n_stack_shared != m->n_stack_added)
                return PROFILE_E_MALFORMED;
        p->places = calloc(m->n_stack_frames + 1, sizeof(*p->places));
        leaves = malloc((m->n_stack_added + 1) * sizeof(*leaves));
        path = calloc(PROFILE_DEPTH_MAX + 1, sizeof(*path));
        if (!p->places || !leaves || !path)
                return error_origin(-ENOMEM);
        p->n_places = 1;
        r = index_init(&x, m->n_stack_frames);
        if (r)
                return error_trace(r);
        /* path[k]: the place of the k outermost frames of the stack, so path[0] is above all. */
        for (size_t i = 0; i < m->n_stack_added; i++) {
                if (m->stack_shared[i] > depth ||
                        m->stack_added[i] > PROFILE_DEPTH_MAX - m->stack_shared[i] ||
                        m->stack_added[i] > m->n_stack_frames - used)
                        return PROFILE_E_MALFORMED;
                depth = m->stack_shared[i];
                for (uint32_t k = 0; k < m->stack_added[i]; k++, depth++, used++) {
                        uint32_t frame = m->stack_frames[used];

                        if (frame >= m->n_frames)
                                return PROFILE_E_MALFORMED;
                        path[depth + 1] = place_intern(p, &x, path[depth], frame_ids[frame]);
                }
                leaves[i] = path[depth];
        }
        *ret_leaves = TAKE_PTR(leaves);
        return 0;
}

/* ---- samples ---- */

static int compare_samples(const void *a, const void *b)
{
        const ProfileSample *x = a, *y = b;

        return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* By rising sequence, stable (glibc's qsort of many elements may not be): a merge sort. */
static int sort_samples(ProfileSample *samples, size_t n)
{
        _cleanup_(freep) ProfileSample *space = NULL;
        ProfileSample *from = samples, *to;

        space = malloc((n + 1) * sizeof(*space));
        if (!space)
                return error_origin(-ENOMEM);
        to = space;
        for (size_t width = 1; width < n; width *= 2) {
                ProfileSample *swap = from;

                for (size_t at = 0; at < n; at += 2 * width) {
                        size_t a = at, middle = at + width < n ? at + width : n, b = middle,
                               end = middle + width < n ? middle + width : n;

                        for (size_t k = at; k < end; k++)
                                to[k] = a < middle && (b == end || compare_samples(
                                                                           &from[a], &from[b]) <= 0)
                                                ? from[a++]
                                                : from[b++];
                }
                from = to;
                to = swap;
        }
        if (from != samples)
                memcpy(samples, from, n * sizeof(*samples));
        return 0;
}

static int order_samples(ProfileSegment *s)
{
        size_t n = 0;
        int r;

        for (size_t i = 1; i < s->n_samples; i++)
                if (s->samples[i].sequence <= s->samples[i - 1].sequence) {
                        r = sort_samples(s->samples, s->n_samples);
                        if (r)
                                return error_trace(r);
                        break;
                }
        for (size_t i = 0; i < s->n_samples; i++)
                if (n == 0 || s->samples[n - 1].sequence != s->samples[i].sequence)
                        s->samples[n++] = s->samples[i];
        s->n_duplicates = s->n_samples - n;
        s->n_samples = n;
        return 0;
}

static int read_samples(ProfileSegment *s, const uint32_t *leaves, size_t n_leaves)
{
        const Swprof__Profile__Segment *m = s->message;
        int64_t sequence = -1, time_us = 0;

        if (m->n_sequence != m->n_time_us || m->n_sequence != m->n_stack ||
                m->n_sequence != m->n_state)
                return PROFILE_E_MALFORMED;
        s->samples = malloc((m->n_sequence + 1) * sizeof(*s->samples));
        if (!s->samples)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < m->n_sequence; i++) {
                if (m->time_us[i] < -2 * PROFILE_TIME_MAX_US ||
                        m->time_us[i] > 2 * PROFILE_TIME_MAX_US)
                        return PROFILE_E_MALFORMED;
                sequence += 1 + (int64_t)m->sequence[i];
                time_us += m->time_us[i];
                if (sequence < 0 || sequence > INT32_MAX || time_us < -PROFILE_TIME_MAX_US ||
                        time_us > PROFILE_TIME_MAX_US || m->stack[i] >= n_leaves ||
                        (unsigned)m->state[i] >= PROFILE_N_STATES)
                        return PROFILE_E_MALFORMED;
                s->samples[s->n_samples++] = (ProfileSample){
                        .time_us = time_us,
                        .sequence = (uint32_t)sequence,
                        .place = leaves[m->stack[i]],
                        .state = m->state[i],
                };
        }
        return error_trace(order_samples(s));
}

static int read_segment(const Profile *p, size_t i, const uint32_t *leaves, ProfileSegment *segment)
{
        const Message *m = p->message;
        const Swprof__Profile__Segment *s = m->segments[i];

        if (s->task >= m->n_tasks || s->period_us == 0 || !is_string(m, s->service) ||
                !is_string(m, s->instance) || !is_string(m, s->endpoint) ||
                !is_string(m, s->thread))
                return PROFILE_E_MALFORMED;
        for (size_t k = 0; k < s->n_losses; k++)
                if (!is_string(m, s->losses[k]->cause))
                        return PROFILE_E_MALFORMED;
        segment->message = s;
        segment->task = m->tasks[s->task];
        segment->service = m->strings[s->service];
        segment->instance = m->strings[s->instance];
        segment->endpoint = m->strings[s->endpoint];
        segment->thread = m->strings[s->thread];
        return read_samples(segment, leaves, m->n_stack_added);
}

static int read_segments(Profile *p, const uint32_t *leaves)
{
        const Message *m = p->message;
        size_t n_samples = 0;
        int r;

        for (size_t i = 0; i < m->n_segments; i++)
                n_samples += m->segments[i]->n_sequence;
        if (n_samples > PROFILE_SAMPLES_MAX)
                return PROFILE_E_MALFORMED;
        p->segments = calloc(m->n_segments + 1, sizeof(*p->segments));
        if (!p->segments)
                return error_origin(-ENOMEM);
        for (; p->n_segments < m->n_segments; p->n_segments++) {
                r = read_segment(p, p->n_segments, leaves, &p->segments[p->n_segments]);
                if (r) {
                        /* What it has got so far is freed with the others. */
                        p->n_segments++;
                        return r < 0 ? error_trace(r) : r;
                }
        }
        return 0;
}

/* ---- all of it ---- */

int profile_read(Profile **ret, const uint8_t *bytes, size_t n)
{
        _cleanup_(profile_freep) Profile *p = NULL;
        _cleanup_(freep) uint32_t *frame_ids = NULL, *leaves = NULL;
        int r;

        if (n > PROFILE_BYTES_MAX)
                return PROFILE_E_MALFORMED;
        p = calloc(1, sizeof(*p));
        if (!p)
                return error_origin(-ENOMEM);
        p->message = swprof__profile__profile__unpack(NULL, n, bytes);
        if (!p->message)
                return PROFILE_E_MALFORMED;
        if (p->message->format != 1)
                return PROFILE_E_FORMAT;
        if (p->message->n_strings == 0 || p->message->strings[0][0])
                return PROFILE_E_MALFORMED;
        repair_texts(p->message);
        r = read_frames(p, &frame_ids);
        if (r == 0)
                r = read_stacks(p, frame_ids, &leaves);
        if (r == 0)
                r = read_segments(p, leaves);
        if (r)
                return r < 0 ? error_trace(r) : r;
        *ret = TAKE_PTR(p);
        return 0;
}

Profile *profile_free(Profile *p)
{
        if (!p)
                return NULL;
        for (size_t i = 0; i < p->n_segments; i++)
                free(p->segments[i].samples);
        free(p->segments);
        free(p->places);
        free(p->frames);
        swprof__profile__profile__free_unpacked(p->message, NULL);
        free(p);
        return NULL;
}

const char *profile_kind_name(Swprof__Profile__Kind kind)
{
        static const char *const names[] = {
                "unknown", "python", "native", "kernel", "waiting", "anonymous"};

        return names[kind];
}

uint32_t profile_stack(const Profile *p, uint32_t place, uint32_t *frames)
{
        uint32_t depth = p->places[place].depth;

        for (uint32_t i = depth; i > 0; place = p->places[place].parent)
                frames[--i] = p->places[place].frame;
        return depth;
}

uint64_t profile_sample_weight_us(const ProfileSegment *s, size_t i)
{
        const ProfileSample *a = &s->samples[i], *b = a + 1;

        if (i + 1 == s->n_samples || b->sequence != a->sequence + 1)
                return s->message->period_us;
        return b->time_us > a->time_us ? (uint64_t)(b->time_us - a->time_us) : 0;
}
