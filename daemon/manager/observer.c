/* SPDX-License-Identifier: Apache-2.0 */
#include "manager/observer.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/error.h"
#include "util/log.h"
#include "util/utf8.h"

/* Ids of targets: that bit, the observer's number, the thread's index. The core counts from 1. */
#define OBSERVED    (1ULL << 63)
#define INDEX_BITS  20
#define THREADS_MAX (1U << INDEX_BITS)

#define OBSERVERS_MAX 4
/* What one keeps: 48 MiB of samples, and their stacks. */
#define SAMPLES_MAX     (1U << 20)
#define STACK_BYTES_MAX (64U << 20)
/* One sample of each thread: tried so often, and for so long, so far apart, and farther where there are
 * many: all of them are to have had their turn, and to be let go, before the next one. One that cannot be sampled at all is
 * waited for that long: of many threads at once, most cannot while their program's files are read. */
#define TRIES        5
#define TRY_NS       (10 * NS_PER_MS)
#define TRY_MORE_NS  (100 * NS_PER_US) /* for each thread */
#define TRY_FOR_NS   (2 * NS_PER_S)
#define NO_SAMPLE_NS (5 * NS_PER_S)
/* New threads are looked for so often. */
#define SCAN_NS (50 * NS_PER_MS)

void observer_set_init(ObserverSet *s, const ObserverOps *ops, void *userdata)
{
        *s = (ObserverSet){.ops = ops, .userdata = userdata};
        list_init(&s->observers);
}

void observer_set_deinit(ObserverSet *s)
{
        Observer *o, *tmp;

        list_for_each_safe (o, tmp, &s->observers, link)
                observer_free(o);
}

/* ---- threads ---- */

/* Its name, and whether it is over: its parent has yet to see that. Return: 0, OBSERVER_E_GONE, -errno. */
static int thread_read(pid_t pid, pid_t tid, char ret_name[16], bool *ret_over)
{
        char path[64], text[128], *name, *end;
        FILE *f;
        size_t n;

        snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)tid);
        f = fopen(path, "re");
        if (!f)
                return errno == ENOENT || errno == ESRCH ? OBSERVER_E_GONE : error_origin(-errno);
        n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
        text[n] = '\0';
        /* TID (NAME) STATE …: a name may be anything, what follows are numbers. */
        name = strchr(text, '(');
        end = strrchr(text, ')');
        if (!name || !end || end - name > 16)
                return OBSERVER_E_GONE;
        *end = '\0';
        strcpy(ret_name, name + 1);
        ret_name[strcspn(ret_name, "\n")] = '\0';
        utf8_repair(ret_name);
        *ret_over = end[1] == ' ' && (end[2] == 'Z' || end[2] == 'X');
        return 0;
}

static ObservedThread *thread_free(ObservedThread *t)
{
        if (!t)
                return NULL;
        for (size_t i = t->n_named; i < t->n_samples; i++)
                stack_unref(t->samples[i].stack);
        free(t->samples);
        free(t);
        return NULL;
}
DEFINE_CLEANUP(ObservedThread *, thread_free)

static ObservedThread *thread_find_live(Observer *o, pid_t tid)
{
        for (HashLink *l = hash_table_find(&o->live, hash_u64((uint64_t)tid)); l;
                l = hash_link_next(l)) {
                ObservedThread *t = container_of(l, ObservedThread, by_tid);

                if (t->tid == tid)
                        return t;
        }
        return NULL;
}

/* Return: 0, OBSERVER_E_GONE: it is over, -errno. */
static int thread_new(Observer *o, ObservedThread **ret, pid_t pid, pid_t tid, TargetId target)
{
        _cleanup_(thread_freep) ObservedThread *t = calloc(1, sizeof(*t));
        ObservedThread **threads;
        bool over = false;
        int r;

        threads = realloc(o->threads, (o->n_threads + 1) * sizeof(ObservedThread *));
        if (!t || !threads) {
                o->threads = threads ?: o->threads;
                return error_origin(-ENOMEM);
        }
        o->threads = threads;
        r = thread_read(pid, tid, t->name, &over);
        if (r || over)
                return r < 0 ? error_trace(r) : OBSERVER_E_GONE;
        t->pid = pid;
        t->tid = tid;
        t->target = target;
        r = hash_table_add(&o->live, &t->by_tid, hash_u64(o->spec.pid ? (uint64_t)tid : target));
        if (r)
                return error_trace(r);
        *ret = o->threads[o->n_threads++] = TAKE_PTR(t);
        return 0;
}

/* Begins with a thread. Return: 0, OBSERVER_E_GONE, -errno. */
static int thread_add(Observer *o, pid_t tid, Now now)
{
        ObservedThread *t;
        int r;

        r = thread_new(o, &t, o->spec.pid, tid,
                OBSERVED | (uint64_t)o->number << INDEX_BITS | o->n_threads);
        if (r)
                return error_trace(r);
        o->ops->target_add(o->userdata, t->target,
                &(TargetSpec){.pid = o->spec.pid,
                        .tid = tid,
                        .first_mono_ns = now.mono_ns,
                        .period_ns = o->spec.period_ns,
                        .say_waits = true});
        return 0;
}

/* It gives no more samples. */
static void thread_end(Observer *o, ObservedThread *t)
{
        if (t->gone)
                return;
        t->gone = true;
        hash_table_remove(&o->live, &t->by_tid);
        if (o->spec.pid)
                o->ops->target_remove(o->userdata, t->target);
}

static void note_crowded(Observer *o)
{
        if (!o->crowded)
                log_warning("process %d: no more than %zu threads are looked at at a time",
                        (int)o->spec.pid, o->spec.max_threads);
        o->crowded = true;
}

/*
 * A program that the process has become is looked at, too, by targets of its own, unless it is none of
 * the caller's business. Return: 0, OBSERVER_E_GONE: all of it is, or must not be looked at, -errno.
 */
static int scan(Observer *o, Now now)
{
        _cleanup_(closep) int fd = -1;
        struct dirent *e;
        struct stat st;
        DIR *d;
        int r = 0;

        o->scan_mono_ns = now.mono_ns;
        fd = openat(o->folder_fd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT || errno == ESRCH ? OBSERVER_E_GONE : error_origin(-errno);
        /* A link for each thread. */
        if (o->spec.duration_ns == 0)
                o->spec.period_ns = TRY_NS + (fstat(fd, &st) == 0 ? st.st_nlink : 0) * TRY_MORE_NS;
        o->denied = !o->ops->may(o->userdata, o);
        if (o->denied)
                return OBSERVER_E_GONE;
        d = fdopendir(fd);
        if (!d)
                return error_origin(-errno);
        TAKE_FD(fd);
        while (r >= 0 && (e = readdir(d))) {
                pid_t tid = (pid_t)atoi(e->d_name);

                if (tid <= 0 || (o->spec.tid && tid != o->spec.tid) || thread_find_live(o, tid))
                        continue;
                if (o->live.n >= o->spec.max_threads) {
                        note_crowded(o);
                        break;
                }
                if (o->n_threads == THREADS_MAX)
                        o->full = true;
                else
                        r = thread_add(o, tid, now);
        }
        closedir(d);
        if (r < 0)
                return error_trace(r);
        return o->live.n > 0 ? 0 : OBSERVER_E_GONE;
}

/* ---- an observer's life ---- */

/* Return: 0, OBSERVER_E_GONE, -errno. */
static int observer_open(Observer *o, Now now)
{
        char path[32];
        bool over;
        int r;

        r = thread_read(o->spec.pid, o->spec.tid ?: o->spec.pid, o->name, &over);
        if (r)
                return error_trace(r);
        snprintf(path, sizeof(path), "/proc/%d", (int)o->spec.pid);
        o->folder_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (o->folder_fd < 0)
                return errno == ENOENT ? OBSERVER_E_GONE : error_origin(-errno);
        return error_trace(scan(o, now));
}

int observer_new(ObserverSet *s, Observer **ret, const ObserverSpec *spec, void *caller, Now now)
{
        _cleanup_(observer_freep) Observer *o = NULL;
        int r;

        if (s->n_observers == OBSERVERS_MAX)
                return OBSERVER_E_LIMIT;
        o = calloc(1, sizeof(*o));
        if (!o)
                return error_origin(-ENOMEM);
        list_init(&o->link);
        o->folder_fd = -1;
        o->ops = s->ops;
        o->userdata = s->userdata;
        o->spec = *spec;
        o->caller = caller;
        /* Numbers come round; the targets of one so long ago are forgotten. */
        o->number = s->last_number = (s->last_number + 1) & UINT32_MAX;
        o->start_mono_ns = now.mono_ns;
        o->start_wall_ms = now.wall_ms;
        o->stop_mono_ns = now.mono_ns + (spec->duration_ns ?: OBSERVER_GIVE_UP_NS);
        o->sampling = true;
        if (spec->pid) {
                r = observer_open(o, now);
                if (r)
                        return error_trace(r);
        }
        list_append(&s->observers, &o->link);
        s->n_observers++;
        o->set = s;
        *ret = TAKE_PTR(o);
        return 0;
}

Observer *observer_free(Observer *o)
{
        if (!o)
                return NULL;
        for (size_t i = 0; i < o->n_threads; i++) {
                if (o->sampling)
                        thread_end(o, o->threads[i]);
                thread_free(o->threads[i]);
        }
        for (size_t i = 0; i < o->stacks.n; i++) {
                stack_unref(o->stack_list[i]->stack);
                free(o->stack_list[i]);
        }
        free(o->stack_list);
        hash_table_deinit(&o->stacks);
        hash_table_deinit(&o->live);
        closep(&o->folder_fd);
        free(o->threads);
        if (o->set)
                o->set->n_observers--;
        list_remove(&o->link);
        free(o);
        return NULL;
}

void observer_stop(Observer *o, Now now)
{
        if (!o->sampling)
                return;
        for (size_t i = 0; i < o->n_threads; i++)
                thread_end(o, o->threads[i]);
        o->sampling = false;
        o->give_up_mono_ns = now.mono_ns + OBSERVER_GIVE_UP_NS;
}

/* ---- samples ---- */

bool observer_owns(TargetId id)
{
        return (id & OBSERVED) != 0;
}

static ObservedThread *find(ObserverSet *s, TargetId id, Observer **ret)
{
        uint32_t number = (uint32_t)(id >> INDEX_BITS), index = id & (THREADS_MAX - 1);
        Observer *o;

        list_for_each (o, &s->observers, link)
                if (o->number == number && index < o->n_threads) {
                        *ret = o;
                        return o->threads[index];
                }
        return NULL;
}

static bool thread_reserve(ObservedThread *t)
{
        size_t n = t->n_allocated ? 2 * t->n_allocated : 4;
        ObservedSample *grown;

        if (t->n_samples < t->n_allocated)
                return true;
        grown = realloc(t->samples, n * sizeof(*grown));
        if (!grown)
                return false;
        t->samples = grown;
        t->n_allocated = n;
        return true;
}

static void thread_note_times(ObservedThread *t, const SamplerEvent *e)
{
        if (e->times.runtime_ns == 0 && e->times.run_delay_ns == 0)
                return;
        if (!t->first_mono_ns) {
                t->first_mono_ns = e->mono_ns;
                t->first = e->times;
        }
        t->last_mono_ns = e->mono_ns;
        t->last = e->times;
}

static void thread_sample(
        Observer *o, ObservedThread *t, const SamplerEvent *e, Stack *stack, Now now)
{
        thread_note_times(t, e);
        if (!stack || !o->sampling || e->mono_ns > o->stop_mono_ns)
                return;
        if (o->n_samples == SAMPLES_MAX || !thread_reserve(t)) {
                o->full = true;
                observer_stop(o, now);
                return;
        }
        t->samples[t->n_samples++] = (ObservedSample){.wall_ns = e->wall_ns,
                .period_ns = e->period_ns,
                .n = e->n,
                .stack = stack_ref(stack),
                .state = e->state};
        o->n_samples++;
}

void observers_sample(ObserverSet *s, const SamplerEvent *e, Stack *stack, Now now)
{
        Observer *o;
        ObservedThread *t = find(s, e->target, &o);

        if (t)
                thread_sample(o, t, e, stack, now);
}

/* NULL: there is no room for it, or it is over. */
static ObservedThread *profiled_get(Observer *o, TargetId target, pid_t pid, pid_t tid)
{
        ObservedThread *t = NULL;

        for (HashLink *l = hash_table_find(&o->live, hash_u64(target)); l; l = hash_link_next(l)) {
                t = container_of(l, ObservedThread, by_tid);
                if (t->target == target)
                        return t;
        }
        if (o->n_threads == o->spec.max_threads)
                o->full = true;
        else if (thread_new(o, &t, pid, tid, target) == 0)
                return t;
        return NULL;
}

void observers_profiled(
        ObserverSet *s, const SamplerEvent *e, pid_t pid, pid_t tid, Stack *stack, Now now)
{
        Observer *o;

        list_for_each (o, &s->observers, link) {
                ObservedThread *t = o->spec.pid == 0 && o->sampling
                                            ? profiled_get(o, e->target, pid, tid)
                                            : NULL;

                if (t)
                        thread_sample(o, t, e, stack, now);
        }
}

void observers_gone(ObserverSet *s, TargetId id, Now now)
{
        Observer *o;
        ObservedThread *t = find(s, id, &o);

        if (t && o->sampling)
                thread_end(o, t);
}

/* ---- time ---- */

static bool stack_equal(const Stack *a, const Stack *b)
{
        if (a->n_signatures != b->n_signatures)
                return false;
        for (size_t i = 0; i < a->n_signatures; i++)
                if (strcmp(a->signatures[i], b->signatures[i]) != 0)
                        return false;
        return true;
}

static uint64_t stack_hash(const Stack *s, size_t *ret_bytes)
{
        uint64_t hash = 0;

        for (size_t i = 0; i < s->n_signatures; i++) {
                size_t n = strlen(s->signatures[i]);

                hash = hash_u64(hash ^ hash_bytes(s->signatures[i], n));
                *ret_bytes += n + 1 + sizeof(char *);
        }
        return hash;
}

/* NULL: no room for it. */
static const ObservedStack *stack_know(Observer *o, Stack *stack)
{
        size_t bytes = sizeof(ObservedStack) + sizeof(Stack);
        uint64_t hash = stack_hash(stack, &bytes);
        ObservedStack *k, **list;

        for (HashLink *l = hash_table_find(&o->stacks, hash); l; l = hash_link_next(l)) {
                k = container_of(l, ObservedStack, by_signatures);
                if (stack_equal(k->stack, stack))
                        return k;
        }
        if (o->stack_bytes + bytes > STACK_BYTES_MAX)
                return NULL;
        list = realloc(o->stack_list, (o->stacks.n + 1) * sizeof(ObservedStack *));
        if (!list)
                return NULL;
        o->stack_list = list;
        k = calloc(1, sizeof(*k));
        if (!k)
                return NULL;
        k->index = (uint32_t)o->stacks.n;
        if (hash_table_add(&o->stacks, &k->by_signatures, hash) < 0) {
                free(k);
                return NULL;
        }
        o->stack_list[k->index] = k;
        k->stack = stack_ref(stack);
        o->stack_bytes += bytes;
        return k;
}

/* Samples whose stack was named by now share it with others. Return: whether all are. */
static bool thread_take_names(Observer *o, ObservedThread *t)
{
        for (; t->n_named < t->n_samples; t->n_named++) {
                ObservedSample *sample = &t->samples[t->n_named];

                if (sample->stack->state == STACK_PENDING)
                        return false;
                if (sample->stack->state == STACK_READY) {
                        sample->known = stack_know(o, sample->stack);
                        o->full |= !sample->known;
                }
                sample->stack = stack_unref(sample->stack);
        }
        return true;
}

/* Of one sample of each thread: whether it has one, or will have none. */
static bool thread_is_done(const Observer *o, const ObservedThread *t, Now now)
{
        if (t->gone)
                return true;
        if (t->n_named >= TRIES && now.mono_ns >= o->start_mono_ns + TRY_FOR_NS)
                return true;
        if (t->n_samples == 0)
                return now.mono_ns >= o->start_mono_ns + NO_SAMPLE_NS;
        return t->n_named > 0 && t->samples[t->n_named - 1].known;
}

/* Return: whether all are. */
static bool end_those_done(Observer *o, Now now)
{
        bool all = true;

        for (size_t i = 0; i < o->n_threads; i++) {
                ObservedThread *t = o->threads[i];

                if (thread_is_done(o, t, now))
                        thread_end(o, t);
                all &= t->gone;
        }
        return all;
}

static bool take_names(Observer *o)
{
        bool all = true;

        for (size_t i = 0; i < o->n_threads; i++)
                all &= thread_take_names(o, o->threads[i]);
        return all;
}

static void observer_step(Observer *o, Now now)
{
        bool named, over;

        o->last_step_mono_ns = now.mono_ns;
        named = take_names(o);
        over = o->stop_mono_ns <= now.mono_ns || o->full;
        if (o->full && !o->told && o->spec.pid)
                log_warning("process %d gave more samples or stacks than are kept: what is "
                            "recorded of it "
                            "ends early, or lacks some",
                        (int)o->spec.pid);
        o->told = o->full;
        if (o->sampling && !over) {
                if (o->spec.duration_ns == 0)
                        over = end_those_done(o, now);
                else if (o->spec.pid && now.mono_ns >= o->scan_mono_ns + SCAN_NS)
                        over = scan(o, now) != 0;
        }
        if (over)
                observer_stop(o, now);
        if (!o->sampling && (now.mono_ns >= o->give_up_mono_ns || named))
                o->ops->done(o->userdata, o);
}

void observers_step(ObserverSet *s, Now now)
{
        Observer *o, *tmp;

        list_for_each_safe (o, tmp, &s->observers, link)
                observer_step(o, now);
}

static uint64_t observer_next_mono_ns(const Observer *o)
{
        uint64_t scan_ns = o->scan_mono_ns + SCAN_NS;

        if (!o->sampling)
                return o->give_up_mono_ns;
        if (o->spec.duration_ns == 0 && o->start_mono_ns + NO_SAMPLE_NS > o->last_step_mono_ns)
                return o->start_mono_ns + NO_SAMPLE_NS;
        if (o->spec.duration_ns == 0 || o->spec.pid == 0 || o->stop_mono_ns < scan_ns)
                return o->stop_mono_ns;
        return scan_ns;
}

uint64_t observers_next_mono_ns(const ObserverSet *s)
{
        uint64_t next = UINT64_MAX;
        Observer *o;

        list_for_each (o, &s->observers, link) {
                uint64_t t = observer_next_mono_ns(o);

                if (t < next)
                        next = t;
        }
        return next;
}
