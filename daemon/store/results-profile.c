/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "profile.pb-c.h"
#include "store/results.h"
#include "util/array.h"
#include "util/error.h"
#include "util/hash.h"
#include "version.h"

/* What the control protocol's reply holds, with something to spare. */
#define PROFILE_BYTES_MAX   (60U << 20)
#define PROFILE_SAMPLES_MAX (6U << 20)

typedef Swprof__Profile__Profile Profile;
typedef Swprof__Profile__Segment ProfileSegment;

typedef struct Word {
        HashLink by_text;
        uint32_t string, frame; /* frame + 1; 0: it is none */
        char text[];
} Word;

/* A stack of the database, and its place in the profile. */
typedef struct Known {
        HashLink by_id;
        uint64_t id;
        uint32_t index;
} Known;

typedef struct Writer {
        Database *database;
        const ResultQuery *query;
        uint64_t task; /* 0: any */
        const char *segment_id;
        Profile profile;
        HashTable words, stacks;
        struct utsname host;
        size_t strings_size, frames_size, tasks_size, segments_size;
        size_t shared_size, added_size, stack_frames_size;
        uint32_t *before; /* the frames of the last stack */
        size_t n_before, before_size;
        uint64_t *ids; /* of segments, as the database calls them */
        size_t ids_size;
        size_t n_samples;
        uint64_t newest; /* of the tasks, with segments */
        int error;       /* the first one */
} Writer;

/* ---- texts ---- */

/* Return: NULL: no memory. */
static Word *word_get(Writer *w, const char *text)
{
        uint64_t hash = hash_string(text);
        Profile *p = &w->profile;
        Word *word;

        for (HashLink *l = hash_table_find(&w->words, hash); l; l = hash_link_next(l)) {
                word = container_of(l, Word, by_text);
                if (strcmp(word->text, text) == 0)
                        return word;
        }
        if (array_reserve(&p->strings, p->n_strings, &w->strings_size, sizeof(*p->strings)) < 0)
                return NULL;
        word = calloc(1, sizeof(*word) + strlen(text) + 1);
        if (!word)
                return NULL;
        strcpy(word->text, text);
        if (hash_table_add(&w->words, &word->by_text, hash) < 0) {
                free(word);
                return NULL;
        }
        word->string = (uint32_t)p->n_strings;
        p->strings[p->n_strings++] = word->text;
        return word;
}

static int string_index(Writer *w, const char *text, uint32_t *ret)
{
        Word *word = word_get(w, text);

        if (!word)
                return error_origin(-ENOMEM);
        *ret = word->string;
        return 0;
}

static int frame_index(Writer *w, const char *signature, unsigned kind, uint32_t *ret)
{
        Word *word = word_get(w, signature);
        Profile *p = &w->profile;
        Swprof__Profile__Frame *frame;

        if (!word)
                return error_origin(-ENOMEM);
        if (word->frame == 0) {
                if (array_reserve(&p->frames, p->n_frames, &w->frames_size, sizeof(*p->frames)) < 0)
                        return error_origin(-ENOMEM);
                frame = malloc(sizeof(*frame));
                if (!frame)
                        return error_origin(-ENOMEM);
                swprof__profile__frame__init(frame);
                frame->signature = word->string;
                p->frames[p->n_frames++] = frame;
                word->frame = (uint32_t)p->n_frames;
        }
        /* The same may come from where its kind is not known. */
        frame = p->frames[word->frame - 1];
        if (frame->kind == SWPROF__PROFILE__KIND__UNKNOWN &&
                kind <= SWPROF__PROFILE__KIND__ANONYMOUS)
                frame->kind = (Swprof__Profile__Kind)kind;
        *ret = word->frame - 1;
        return 0;
}

/* ---- stacks ---- */

/* Makes the frames of a text the last stack's, and notes how many are as before. */
static int stack_frames(Writer *w, const char *text, size_t size, const uint8_t *kinds)
{
        Profile *p = &w->profile;
        size_t n = 0, shared = 0;
        bool same = true;
        int r;

        for (const char *s = text; s < text + size; s += strlen(s) + 1, n++) {
                uint32_t frame = 0;

                r = frame_index(w, s, kinds ? kinds[n] : STACK_KIND_UNKNOWN, &frame);
                if (r == 0)
                        r = array_reserve(&w->before, n, &w->before_size, sizeof(*w->before));
                if (r)
                        return error_trace(r);
                same = same && n < w->n_before && w->before[n] == frame;
                shared += same;
                w->before[n] = frame;
        }
        w->n_before = n;
        for (size_t i = shared; i < n; i++) {
                r = array_reserve(&p->stack_frames, p->n_stack_frames, &w->stack_frames_size,
                        sizeof(*p->stack_frames));
                if (r)
                        return error_trace(r);
                p->stack_frames[p->n_stack_frames++] = w->before[i];
        }
        r = array_reserve(
                &p->stack_shared, p->n_stack_shared, &w->shared_size, sizeof(*p->stack_shared));
        if (r == 0)
                r = array_reserve(
                        &p->stack_added, p->n_stack_added, &w->added_size, sizeof(*p->stack_added));
        if (r)
                return error_trace(r);
        p->stack_shared[p->n_stack_shared++] = (uint32_t)shared;
        p->stack_added[p->n_stack_added++] = (uint32_t)(n - shared);
        return 0;
}

static int stack_index(Writer *w, uint64_t id, uint32_t *ret)
{
        uint64_t hash = hash_u64(id);
        const char *text;
        const uint8_t *kinds;
        size_t size = 0;
        Known *known;
        int r;

        for (HashLink *l = hash_table_find(&w->stacks, hash); l; l = hash_link_next(l)) {
                known = container_of(l, Known, by_id);
                if (known->id == id) {
                        *ret = known->index;
                        return 0;
                }
        }
        /* One that is damaged has no frames. */
        text = database_result_stack(w->database, id, &size, &kinds);
        r = stack_frames(w, text, text ? size : 0, kinds);
        if (r)
                return error_trace(r);
        known = calloc(1, sizeof(*known));
        if (!known || hash_table_add(&w->stacks, &known->by_id, hash) < 0) {
                free(known);
                return error_origin(-ENOMEM);
        }
        known->id = id;
        known->index = *ret = (uint32_t)w->profile.n_stack_shared - 1;
        return 0;
}

/* ---- tasks ---- */

static void add_task(void *userdata, const ResultTaskRow *row)
{
        Writer *w = userdata;
        const ResultTask *t = &row->task;
        Profile *p = &w->profile;
        Swprof__Profile__Task *task;
        char id[RESULT_TASK_ID_SIZE];

        if (row->n_segments > 0 && t->number > w->newest)
                w->newest = t->number;
        /* Of which a user sees nothing is none of theirs. */
        if (w->error || (w->query->uid >= 0 && row->n_segments == 0))
                return;
        w->error = array_reserve(&p->tasks, p->n_tasks, &w->tasks_size, sizeof(*p->tasks));
        if (w->error)
                return;
        task = malloc(sizeof(*task));
        if (!task) {
                w->error = error_origin(-ENOMEM);
                return;
        }
        swprof__profile__task__init(task);
        result_task_id(t->number, id);
        task->id = strdup(id);
        task->service = strdup(t->service);
        task->endpoint = strdup(t->endpoint);
        task->start_wall_ms = t->start_wall_ms;
        if (t->end_wall_ms > t->start_wall_ms)
                task->duration_s = (uint32_t)((t->end_wall_ms - t->start_wall_ms) / 1000);
        task->threshold_ms = t->threshold_ms;
        task->period_ms = t->period_ms;
        task->max_sampling_count = t->max_sampling_count;
        p->tasks[p->n_tasks++] = task;
        if (!task->id || !task->service || !task->endpoint)
                w->error = error_origin(-ENOMEM);
}

static bool find_task(const Writer *w, uint64_t number, uint32_t *ret)
{
        char id[RESULT_TASK_ID_SIZE];

        result_task_id(number, id);
        for (size_t i = 0; i < w->profile.n_tasks; i++)
                if (strcmp(w->profile.tasks[i]->id, id) == 0) {
                        *ret = (uint32_t)i;
                        return true;
                }
        return false;
}

/* ---- segments ---- */

static int add_loss(Writer *w, ProfileSegment *s, const char *cause, uint64_t samples)
{
        Swprof__Profile__Loss *loss;
        uint32_t string = 0;
        int r;

        if (samples == 0)
                return 0;
        r = string_index(w, cause, &string);
        if (r)
                return error_trace(r);
        loss = malloc(sizeof(*loss));
        if (!loss)
                return error_origin(-ENOMEM);
        swprof__profile__loss__init(loss);
        loss->cause = string;
        loss->samples = samples;
        s->losses[s->n_losses++] = loss;
        return 0;
}

static int fill_segment(Writer *w, ProfileSegment *s, const ResultSegmentRow *row)
{
        const ResultSegment *r = &row->segment;
        const Swprof__Profile__Task *task = w->profile.tasks[s->task];
        int64_t duration_ms = r->done ? r->duration_ms : row->last_wall_ms - r->start_wall_ms;
        int e;

        s->losses = calloc(3, sizeof(*s->losses));
        s->segment = strdup(r->segment_id);
        if (!s->losses || !s->segment)
                return error_origin(-ENOMEM);
        s->pid = r->pid;
        s->tid = r->tid;
        s->start_wall_ms = r->start_wall_ms;
        s->duration_ns = duration_ms > 0 ? (uint64_t)duration_ms * 1000000 : 0;
        s->on_cpu_ns = r->times.on_cpu_ns;
        s->run_queue_ns = r->times.run_queue_ns;
        s->blocked_ns = r->times.blocked_ns;
        s->period_us = task->period_ms > 0 ? task->period_ms * 1000 : 1;
        s->samples = (uint64_t)row->n_snapshots;
        e = string_index(w, task->service, &s->service);
        if (e == 0)
                e = string_index(w, r->instance, &s->instance);
        if (e == 0)
                e = string_index(w, r->operation[0] ? r->operation : task->endpoint, &s->endpoint);
        if (e == 0)
                e = string_index(w, r->thread, &s->thread);
        if (e == 0)
                e = add_loss(w, s, "no stack", r->losses.no_stack);
        if (e == 0)
                e = add_loss(w, s, "too many held", r->losses.over);
        if (e == 0)
                e = add_loss(w, s, "not taken", r->losses.not_taken);
        return error_trace(e);
}

static void add_segment(void *userdata, const ResultSegmentRow *row)
{
        Writer *w = userdata;
        Profile *p = &w->profile;
        ProfileSegment *s;
        uint32_t task;

        if (w->error || !find_task(w, row->segment.task, &task))
                return;
        w->error = array_reserve(&w->ids, p->n_segments, &w->ids_size, sizeof(*w->ids));
        if (!w->error)
                w->error = array_reserve(
                        &p->segments, p->n_segments, &w->segments_size, sizeof(*p->segments));
        s = w->error ? NULL : malloc(sizeof(*s));
        if (!s) {
                w->error = error_origin(-ENOMEM);
                return;
        }
        swprof__profile__segment__init(s);
        s->task = task;
        w->ids[p->n_segments] = row->segment.id;
        p->segments[p->n_segments++] = s;
        w->error = fill_segment(w, s, row);
        if (!w->query->bare)
                w->n_samples += (size_t)row->n_snapshots;
        if (!w->error && w->n_samples > PROFILE_SAMPLES_MAX)
                w->error = RESULT_E_LARGE;
}

/* ---- samples ---- */

typedef struct SampleWriter {
        Writer *writer;
        ProfileSegment *segment;
        size_t size; /* of its arrays */
        int32_t next_sequence;
        int64_t last_us;
} SampleWriter;

static bool add_sample(void *userdata, const ResultSnapshotRow *row)
{
        static const Swprof__Profile__State states[] = {
                [THREAD_RUNNING] = SWPROF__PROFILE__STATE__RUNNING,
                [THREAD_RUNNABLE] = SWPROF__PROFILE__STATE__RUNNABLE,
                [THREAD_BLOCKED] = SWPROF__PROFILE__STATE__BLOCKED,
        };
        SampleWriter *sw = userdata;
        ProfileSegment *s = sw->segment;
        int64_t time_us = (row->time_wall_ms - s->start_wall_ms) * 1000;
        uint32_t stack = 0;

        /* One that came since they were counted. */
        if (s->n_sequence == sw->size)
                return false;
        sw->writer->error = stack_index(sw->writer, row->stack, &stack);
        if (sw->writer->error)
                return false;
        s->sequence[s->n_sequence++] = row->sequence - sw->next_sequence;
        s->time_us[s->n_time_us++] = time_us - sw->last_us;
        s->stack[s->n_stack++] = stack;
        s->state[s->n_state++] = states[row->state];
        sw->next_sequence = row->sequence + 1;
        sw->last_us = time_us;
        return true;
}

/* Return: 0, -EIO, -ENOMEM. */
static int add_samples(Writer *w, ProfileSegment *s, uint64_t id)
{
        SampleWriter sw = {.writer = w, .segment = s, .size = s->samples};

        s->samples = 0;
        if (sw.size == 0)
                return 0;
        s->sequence = malloc(sw.size * sizeof(*s->sequence));
        s->time_us = malloc(sw.size * sizeof(*s->time_us));
        s->stack = malloc(sw.size * sizeof(*s->stack));
        s->state = malloc(sw.size * sizeof(*s->state));
        if (!s->sequence || !s->time_us || !s->stack || !s->state)
                return error_origin(-ENOMEM);
        if (database_result_snapshots(w->database, id, add_sample, &sw) != 0)
                return error_origin(-EIO);
        return error_trace(w->error);
}

/* ---- the whole ---- */

static void words_free(HashTable *t)
{
        for (size_t i = 0; i < t->n_buckets; i++)
                for (HashLink *l = t->buckets[i], *next; l; l = next) {
                        next = l->next;
                        free(container_of(l, Word, by_text));
                }
        hash_table_deinit(t);
}

static void stacks_free(HashTable *t)
{
        for (size_t i = 0; i < t->n_buckets; i++)
                for (HashLink *l = t->buckets[i], *next; l; l = next) {
                        next = l->next;
                        free(container_of(l, Known, by_id));
                }
        hash_table_deinit(t);
}

static void segment_free(ProfileSegment *s)
{
        for (size_t i = 0; i < s->n_losses; i++)
                free(s->losses[i]);
        free(s->losses);
        free(s->segment);
        free(s->sequence);
        free(s->time_us);
        free(s->stack);
        free(s->state);
        free(s);
}

static void writer_deinit(Writer *w)
{
        Profile *p = &w->profile;

        for (size_t i = 0; i < p->n_tasks; i++) {
                free(p->tasks[i]->id);
                free(p->tasks[i]->service);
                free(p->tasks[i]->endpoint);
                free(p->tasks[i]);
        }
        for (size_t i = 0; i < p->n_segments; i++)
                segment_free(p->segments[i]);
        for (size_t i = 0; i < p->n_frames; i++)
                free(p->frames[i]);
        free(p->tasks);
        free(p->segments);
        free(p->frames);
        free(p->strings);
        free(p->stack_shared);
        free(p->stack_added);
        free(p->stack_frames);
        free(w->before);
        free(w->ids);
        words_free(&w->words);
        stacks_free(&w->stacks);
}

/* Which segments are meant. Return: 0, RESULT_E_NONE, RESULT_E_EMPTY. */
static int choose(Writer *w)
{
        const ResultQuery *q = w->query;
        uint32_t index;

        w->task = result_task_number(q->selection);
        if (w->task > 0 && find_task(w, w->task, &index))
                return 0;
        w->task = 0;
        if (q->selection[0])
                w->segment_id = q->selection;
        else if (!q->all)
                w->task = w->newest;
        return !q->selection[0] && w->newest == 0 ? RESULT_E_EMPTY : 0;
}

static int write_all(Writer *w)
{
        Profile *p = &w->profile;
        uint32_t empty;
        int r;

        swprof__profile__profile__init(p);
        p->format = 1;
        p->tool = (char *)"swprofd " SWPROFD_VERSION;
        if (uname(&w->host) == 0)
                p->host = w->host.nodename;
        r = string_index(w, "", &empty);
        if (r)
                return error_trace(r);
        if (database_result_tasks(w->database, w->query->uid, add_task, w) != 0)
                return error_origin(-EIO);
        if (w->error)
                return error_trace(w->error);
        r = choose(w);
        if (r)
                return r;
        if (database_result_segments(
                    w->database, w->task, w->segment_id, w->query->uid, add_segment, w) != 0)
                return error_origin(-EIO);
        if (w->error)
                return w->error > 0 ? w->error : error_trace(w->error);
        if (p->n_segments == 0)
                return w->task > 0 ? RESULT_E_EMPTY : RESULT_E_NONE;
        for (size_t i = 0; i < p->n_segments && r == 0 && !w->query->bare; i++)
                r = add_samples(w, p->segments[i], w->ids[i]);
        return error_trace(r);
}

int results_profile(Database *d, const ResultQuery *query, uint8_t **ret, size_t *ret_size)
{
        Writer w = {.database = d, .query = query};
        uint8_t *bytes = NULL;
        size_t size = 0;
        int r;

        r = write_all(&w);
        if (r == 0) {
                size = swprof__profile__profile__get_packed_size(&w.profile);
                if (size > PROFILE_BYTES_MAX)
                        r = RESULT_E_LARGE;
        }
        if (r == 0) {
                bytes = malloc(size ?: 1);
                if (bytes)
                        swprof__profile__profile__pack(&w.profile, bytes);
                else
                        r = error_origin(-ENOMEM);
        }
        writer_deinit(&w);
        if (r)
                return r < 0 ? error_trace(r) : r;
        *ret = bytes;
        *ret_size = size;
        return 0;
}
