/* SPDX-License-Identifier: Apache-2.0 */
#include "manager/observed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "profile.pb-c.h"
#include "util/array.h"
#include "util/error.h"
#include "version.h"

typedef Swprof__Profile__Profile Profile;
typedef Swprof__Profile__Segment ProfileSegment;

/* A signature, once for all stacks: a string and a frame. */
typedef struct Text {
        HashLink by_text;
        const char *text; /* the stack's */
        uint32_t frame;
} Text;

/* The strings of all threads come first. */
enum {
        STRING_EMPTY,
        STRING_SERVICE,
        STRING_INSTANCE,
        STRING_LOSS,
        N_STRINGS,
};

typedef struct Encoder {
        const Observer *observer;
        HashTable texts;
        Profile profile;
        char instance[24];
        struct utsname host;
        size_t strings_size, frames_size, stack_frames_size;
        Swprof__Profile__Task task, *tasks[1];
        ProfileSegment *segments;
} Encoder;

static int add_string(Encoder *e, const char *text)
{
        Profile *p = &e->profile;
        int r = array_reserve(&p->strings, p->n_strings, &e->strings_size, sizeof(*p->strings));

        if (r)
                return error_trace(r);
        p->strings[p->n_strings++] = (char *)text;
        return 0;
}

/* ---- stacks ---- */

_Static_assert((int)STACK_KIND_PYTHON == SWPROF__PROFILE__KIND__PYTHON &&
                       (int)STACK_KIND_NATIVE == SWPROF__PROFILE__KIND__NATIVE &&
                       (int)STACK_KIND_KERNEL == SWPROF__PROFILE__KIND__KERNEL &&
                       (int)STACK_KIND_WAITING == SWPROF__PROFILE__KIND__WAITING &&
                       (int)STACK_KIND_ANONYMOUS == SWPROF__PROFILE__KIND__ANONYMOUS,
        "the numbers of profile.proto");

static int frame_new(Encoder *e, const char *text, StackKind kind, uint64_t hash, uint32_t *ret)
{
        Profile *p = &e->profile;
        Swprof__Profile__Frame *frame;
        Text *t;
        int r;

        r = add_string(e, text);
        if (r == 0)
                r = array_reserve(&p->frames, p->n_frames, &e->frames_size, sizeof(*p->frames));
        if (r)
                return error_trace(r);
        t = calloc(1, sizeof(*t));
        frame = calloc(1, sizeof(*frame));
        if (!t || !frame || hash_table_add(&e->texts, &t->by_text, hash) < 0) {
                free(t);
                free(frame);
                return error_origin(-ENOMEM);
        }
        swprof__profile__frame__init(frame);
        frame->signature = (uint32_t)(p->n_strings - 1);
        frame->kind = (Swprof__Profile__Kind)kind;
        t->text = text;
        t->frame = *ret = (uint32_t)p->n_frames;
        p->frames[p->n_frames++] = frame;
        return 0;
}

/* Of that signature of the stack. What is written the same is the same. */
static int frame_index(Encoder *e, const Stack *stack, size_t i, uint32_t *ret)
{
        const char *text = stack->signatures[i];
        StackKind kind = stack->kinds ? stack->kinds[i] : STACK_KIND_UNKNOWN;
        uint64_t hash = hash_string(text);

        for (HashLink *l = hash_table_find(&e->texts, hash); l; l = hash_link_next(l)) {
                const Text *t = container_of(l, Text, by_text);

                if (strcmp(t->text, text) == 0) {
                        *ret = t->frame;
                        return 0;
                }
        }
        return error_trace(frame_new(e, text, kind, hash, ret));
}

/* Frames that both begin with; before NULL: none. */
static size_t common(const Stack *before, const Stack *stack)
{
        size_t n = 0;

        while (before && n < before->n_signatures && n < stack->n_signatures &&
                strcmp(before->signatures[n], stack->signatures[n]) == 0)
                n++;
        return n;
}

static int add_stack(Encoder *e, const Stack *before, const Stack *stack)
{
        Profile *p = &e->profile;
        size_t shared = common(before, stack);
        int r = 0;

        p->stack_shared[p->n_stack_shared++] = (uint32_t)shared;
        p->stack_added[p->n_stack_added++] = (uint32_t)(stack->n_signatures - shared);
        for (size_t i = shared; i < stack->n_signatures && r == 0; i++) {
                uint32_t frame = 0;

                r = frame_index(e, stack, i, &frame);
                if (r == 0)
                        r = array_reserve(&p->stack_frames, p->n_stack_frames,
                                &e->stack_frames_size, sizeof(*p->stack_frames));
                if (r == 0)
                        p->stack_frames[p->n_stack_frames++] = frame;
        }
        return error_trace(r);
}

static int add_stacks(Encoder *e)
{
        const Observer *o = e->observer;
        const Stack *before = NULL;
        int r = 0;

        e->profile.stack_shared = calloc(o->stacks.n + 1, sizeof(uint32_t));
        e->profile.stack_added = calloc(o->stacks.n + 1, sizeof(uint32_t));
        if (!e->profile.stack_shared || !e->profile.stack_added)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < o->stacks.n && r == 0; i++) {
                r = add_stack(e, before, o->stack_list[i]->stack);
                before = o->stack_list[i]->stack;
        }
        return error_trace(r);
}

/* ---- threads ---- */

static int segment_reserve(ProfileSegment *s, const ObservedThread *t)
{
        size_t n = 0;

        for (size_t i = 0; i < t->n_named; i++)
                n += t->samples[i].n;
        if (n == 0)
                return 0;
        s->sequence = calloc(n, sizeof(*s->sequence));
        s->time_us = malloc(n * sizeof(*s->time_us));
        s->stack = malloc(n * sizeof(*s->stack));
        s->state = malloc(n * sizeof(*s->state));
        if (!s->sequence || !s->time_us || !s->stack || !s->state)
                return error_origin(-ENOMEM);
        return 0;
}

static void segment_add_sample(ProfileSegment *s, uint64_t wall_us, uint64_t *last_wall_us,
        uint32_t stack, ThreadState state)
{
        static const Swprof__Profile__State states[] = {
                [THREAD_RUNNING] = SWPROF__PROFILE__STATE__RUNNING,
                [THREAD_RUNNABLE] = SWPROF__PROFILE__STATE__RUNNABLE,
                [THREAD_BLOCKED] = SWPROF__PROFILE__STATE__BLOCKED,
        };

        /* Each the one before it and 1. */
        s->n_sequence++;
        s->time_us[s->n_time_us++] = (int64_t)(wall_us - *last_wall_us);
        s->stack[s->n_stack++] = stack;
        s->state[s->n_state++] = states[state];
        *last_wall_us = wall_us;
}

/* `once`: of several tries the last. Return: the samples without a stack. */
static uint64_t segment_add_samples(ProfileSegment *s, const ObservedThread *t, bool once)
{
        uint64_t first_wall_us = (uint64_t)s->start_wall_ms * 1000, last_wall_us = first_wall_us,
                 lost = 0;

        /* Those behind n_named were given up. */
        for (size_t i = once && t->n_named > 0 ? t->n_named - 1 : 0; i < t->n_named; i++) {
                const ObservedSample *sample = &t->samples[i];
                uint32_t n = once ? 1 : sample->n;

                if (!sample->known) {
                        lost += n;
                        continue;
                }
                for (uint32_t k = 0; k < n; k++)
                        segment_add_sample(s, (sample->wall_ns + k * sample->period_ns) / NS_PER_US,
                                &last_wall_us, sample->known->index, sample->state);
        }
        if (!once || t->n_named == 0)
                lost += t->n_samples - t->n_named;
        s->duration_ns = (last_wall_us - first_wall_us) * NS_PER_US;
        return lost;
}

static void segment_set_times(ProfileSegment *s, const ObservedThread *t)
{
        uint64_t wall_ns = t->last_mono_ns - t->first_mono_ns;

        s->on_cpu_ns = t->last.runtime_ns - t->first.runtime_ns;
        s->run_queue_ns = t->last.run_delay_ns - t->first.run_delay_ns;
        if (wall_ns > s->on_cpu_ns + s->run_queue_ns)
                s->blocked_ns = wall_ns - s->on_cpu_ns - s->run_queue_ns;
}

static int segment_set_loss(ProfileSegment *s, uint64_t lost)
{
        Swprof__Profile__Loss *loss = calloc(1, sizeof(*loss));

        s->losses = calloc(1, sizeof(*s->losses));
        if (!loss || !s->losses) {
                free(loss);
                return error_origin(-ENOMEM);
        }
        swprof__profile__loss__init(loss);
        loss->cause = STRING_LOSS;
        loss->samples = lost;
        s->losses[s->n_losses++] = loss;
        return 0;
}

static int add_thread(Encoder *e, const ObservedThread *t)
{
        const Observer *o = e->observer;
        ProfileSegment *s = &e->segments[e->profile.n_segments];
        bool once = o->spec.duration_ns == 0;
        uint64_t lost;
        int r;

        swprof__profile__segment__init(s);
        e->profile.segments[e->profile.n_segments++] = s;
        s->service = STRING_SERVICE;
        s->instance = STRING_INSTANCE;
        s->thread = (uint32_t)e->profile.n_strings;
        s->endpoint = s->thread;
        s->pid = t->pid;
        s->tid = t->tid;
        /* A profiled one has its task's. */
        s->period_us = (uint32_t)((o->spec.pid == 0 && t->n_samples > 0 ? t->samples[0].period_ns
                                                                        : o->spec.period_ns) /
                                  NS_PER_US);
        s->start_wall_ms =
                t->n_samples > 0 ? (int64_t)(t->samples[0].wall_ns / NS_PER_MS) : o->start_wall_ms;
        if (asprintf(&s->segment, "%d/%d", (int)t->pid, (int)t->tid) < 0) {
                s->segment = NULL;
                return error_origin(-ENOMEM);
        }
        r = add_string(e, t->name);
        if (r == 0)
                r = segment_reserve(s, t);
        if (r)
                return error_trace(r);
        lost = segment_add_samples(s, t, once);
        segment_set_times(s, t);
        return lost > 0 ? error_trace(segment_set_loss(s, lost)) : 0;
}

static int add_threads(Encoder *e)
{
        const Observer *o = e->observer;
        int r = 0;

        e->segments = calloc(o->n_threads + 1, sizeof(*e->segments));
        e->profile.segments = calloc(o->n_threads + 1, sizeof(*e->profile.segments));
        if (!e->segments || !e->profile.segments)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < o->n_threads && r == 0; i++)
                r = add_thread(e, o->threads[i]);
        return error_trace(r);
}

/* ---- the whole ---- */

static void encoder_deinit(Encoder *e)
{
        for (size_t i = 0; i < e->texts.n_buckets; i++)
                for (HashLink *l = e->texts.buckets[i], *next; l; l = next) {
                        next = l->next;
                        free(container_of(l, Text, by_text));
                }
        hash_table_deinit(&e->texts);
        for (size_t i = 0; i < e->profile.n_frames; i++)
                free(e->profile.frames[i]);
        for (size_t i = 0; i < e->profile.n_segments; i++) {
                ProfileSegment *s = &e->segments[i];

                free(s->segment);
                if (s->n_losses > 0)
                        free(s->losses[0]);
                free(s->losses);
                free(s->sequence);
                free(s->time_us);
                free(s->stack);
                free(s->state);
        }
        free(e->profile.strings);
        free(e->profile.frames);
        free(e->profile.stack_shared);
        free(e->profile.stack_added);
        free(e->profile.stack_frames);
        free(e->profile.segments);
        free(e->segments);
}

static int fill(Encoder *e)
{
        const Observer *o = e->observer;
        const char *const strings[N_STRINGS] = {
                [STRING_EMPTY] = "",
                [STRING_SERVICE] = o->name,
                [STRING_INSTANCE] = e->instance,
                [STRING_LOSS] = "no stack",
        };
        int r = 0;

        swprof__profile__profile__init(&e->profile);
        snprintf(e->instance, sizeof(e->instance), "%d", (int)o->spec.pid);
        e->profile.format = 1;
        e->profile.tool = (char *)"swprofd " SWPROFD_VERSION;
        if (uname(&e->host) == 0)
                e->profile.host = e->host.nodename;
        for (size_t i = 0; i < N_STRINGS && r == 0; i++)
                r = add_string(e, strings[i]);
        swprof__profile__task__init(&e->task);
        e->task.id = (char *)"";
        e->task.service = (char *)o->name;
        e->task.endpoint = (char *)"";
        e->task.start_wall_ms = o->start_wall_ms;
        e->task.duration_s = (uint32_t)(o->spec.duration_ns / NS_PER_S);
        e->task.period_ms = (uint32_t)(o->spec.period_ns / NS_PER_MS);
        e->tasks[0] = &e->task;
        e->profile.n_tasks = 1;
        e->profile.tasks = e->tasks;
        if (r == 0)
                r = add_stacks(e);
        if (r == 0)
                r = add_threads(e);
        return error_trace(r);
}

int observed_encode(const Observer *o, uint8_t **ret, size_t *ret_size)
{
        Encoder e = {.observer = o};
        uint8_t *bytes = NULL;
        int r;

        r = fill(&e);
        if (r == 0) {
                *ret_size = swprof__profile__profile__get_packed_size(&e.profile);
                bytes = malloc(*ret_size ?: 1);
                if (bytes)
                        swprof__profile__profile__pack(&e.profile, bytes);
                else
                        r = error_origin(-ENOMEM);
        }
        encoder_deinit(&e);
        *ret = bytes;
        return error_trace(r);
}
