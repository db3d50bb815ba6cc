/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "core/counter.h"
#include "manager/stack-table.h"
#include "util/error.h"
#include "util/hash.h"
#include "util/list.h"
#include "util/mailbox.h"
#include "util/time.h"

/* Longer than the core waits for a stack, so that a late answer still finds its target. */
#define TARGET_LINGER_NS (35 * NS_PER_S)
/* Of all stacks that wait for the worker: 64 MiB. While it reads a large binary, more would come than memory holds. */
#define WAITING_FRAMES_MAX ((64 << 20) / sizeof(Frame))

typedef struct Target {
        HashLink by_id;
        ListLink removed_link; /* in StackTable.removed once removed */
        TargetId id;
        uint64_t removed_mono_ns;
        ListLink entries;
        struct Entry *current; /* named by the newest sample */
} Target;

typedef struct Entry {
        HashLink by_id;
        ListLink link; /* target's entries */
        uint64_t stack_id;
        Target *target;
        Stack *stack;
        bool named; /* by a sample */
} Entry;

/* A request that found the worker's mailbox full. */
typedef struct Waiting {
        ListLink link;
        WorkerStack request;
} Waiting;

struct StackTable {
        Worker *worker;
        HashTable targets, entries;
        ListLink removed; /* of Target, oldest first */
        ListLink waiting; /* of Waiting */
        size_t n_waiting_frames;
        unsigned n_pending;
};

int stack_table_new(StackTable **ret, Worker *worker)
{
        StackTable *t = calloc(1, sizeof(*t));

        if (!t)
                return error_origin(-ENOMEM);
        t->worker = worker;
        list_init(&t->removed);
        list_init(&t->waiting);
        *ret = t;
        return 0;
}

static void entry_free(StackTable *t, Entry *e)
{
        hash_table_remove(&t->entries, &e->by_id);
        list_remove(&e->link);
        if (e->stack->state == STACK_PENDING)
                t->n_pending--;
        stack_unref(e->stack);
        free(e);
}

static void target_free(StackTable *t, Target *target)
{
        Entry *e, *tmp;

        list_for_each_safe (e, tmp, &target->entries, link)
                entry_free(t, e);
        hash_table_remove(&t->targets, &target->by_id);
        list_remove(&target->removed_link);
        free(target);
}

static Target *target_find(StackTable *t, TargetId id)
{
        for (HashLink *l = hash_table_find(&t->targets, hash_u64(id)); l; l = hash_link_next(l)) {
                Target *target = container_of(l, Target, by_id);

                if (target->id == id)
                        return target;
        }
        return NULL;
}

static Target *target_get(StackTable *t, TargetId id)
{
        Target *target = target_find(t, id);

        if (target)
                return target;
        target = calloc(1, sizeof(*target));
        if (!target)
                return NULL;
        target->id = id;
        list_init(&target->entries);
        list_init(&target->removed_link);
        if (hash_table_add(&t->targets, &target->by_id, hash_u64(id)) < 0) {
                free(target);
                return NULL;
        }
        return target;
}

static Entry *entry_find(StackTable *t, uint64_t stack_id)
{
        for (HashLink *l = hash_table_find(&t->entries, hash_u64(stack_id)); l;
                l = hash_link_next(l)) {
                Entry *e = container_of(l, Entry, by_id);

                if (e->stack_id == stack_id)
                        return e;
        }
        return NULL;
}

static Entry *entry_get(StackTable *t, TargetId target_id, uint64_t stack_id)
{
        Entry *e = entry_find(t, stack_id);
        Target *target;

        if (e)
                return e;
        target = target_get(t, target_id);
        if (!target)
                return NULL;
        e = calloc(1, sizeof(*e));
        if (!e)
                return NULL;
        e->stack_id = stack_id;
        e->target = target;
        e->stack = stack_new();
        if (!e->stack || hash_table_add(&t->entries, &e->by_id, hash_u64(stack_id)) < 0) {
                stack_unref(e->stack);
                free(e);
                return NULL;
        }
        list_append(&target->entries, &e->link);
        t->n_pending++;
        return e;
}

/* An id that no sample will name any more is not needed once its stack is decided: samples hold the
 * stack. */
static void entry_drop_unneeded(StackTable *t, Entry *e)
{
        if (e->named && e->target->current != e && e->stack->state != STACK_PENDING)
                entry_free(t, e);
}

static void entry_fail(StackTable *t, Entry *e)
{
        if (e->stack->state == STACK_PENDING)
                t->n_pending--;
        stack_set_failed(e->stack);
        entry_drop_unneeded(t, e);
}

StackTable *stack_table_free(StackTable *t)
{
        Waiting *w, *tmp;

        if (!t)
                return NULL;
        for (size_t i = 0; i < t->targets.n_buckets; i++)
                while (t->targets.buckets[i])
                        target_free(t, container_of(t->targets.buckets[i], Target, by_id));
        list_for_each_safe (w, tmp, &t->waiting, link) {
                procmap_unref(w->request.map);
                cpython_codes_unref(w->request.codes);
                free(w->request.frames);
                free(w);
        }
        hash_table_deinit(&t->targets);
        hash_table_deinit(&t->entries);
        free(t);
        return NULL;
}

Stack *stack_table_sample(StackTable *t, TargetId target, uint64_t stack_id)
{
        Entry *e = entry_get(t, target, stack_id), *before;

        if (!e)
                return NULL;
        e->named = true;
        before = e->target->current;
        e->target->current = e;
        if (before && before != e)
                entry_drop_unneeded(t, before);
        return e->stack;
}

int stack_table_frames(StackTable *t, SamplerEvent *event)
{
        /* Its sample came before: an id that is not known was forgotten with its target. */
        Entry *e = entry_find(t, event->stack_id);
        WorkerStack request = {
                .ticket = event->stack_id,
                .map = event->map,
                .codes = event->codes,
                .n_frames = event->n_frames,
                .frames = event->frames,
        };
        bool wanted = e && !event->failed, full = false;
        Waiting *w = NULL;

        if (wanted && list_empty(&t->waiting) && worker_symbolize(t->worker, &request) == 0)
                return 0;
        if (wanted) {
                full = t->n_waiting_frames + event->n_frames > WAITING_FRAMES_MAX;
                w = full ? NULL : calloc(1, sizeof(*w));
        }
        if (!w) {
                procmap_unref(event->map);
                cpython_codes_unref(event->codes);
                free(event->frames);
                if (full)
                        counter_add(COUNTER_SAMPLES_QUEUE_FULL, 1);
                if (e)
                        entry_fail(t, e);
                return wanted && !full ? error_origin(-ENOMEM) : 0;
        }
        w->request = request;
        list_append(&t->waiting, &w->link);
        t->n_waiting_frames += event->n_frames;
        return 0;
}

void stack_table_send(StackTable *t)
{
        Waiting *w, *tmp;

        list_for_each_safe (w, tmp, &t->waiting, link) {
                size_t n_frames = w->request.n_frames;

                if (worker_symbolize(t->worker, &w->request) > 0)
                        return;
                t->n_waiting_frames -= n_frames;
                list_remove(&w->link);
                free(w);
        }
}

bool stack_table_waits(const StackTable *t)
{
        return !list_empty(&t->waiting);
}

void stack_table_dispatch(StackTable *t)
{
        WorkerStack reply;

        while (mailbox_pop(worker_stacks(t->worker), &reply) == 0) {
                Entry *e = entry_find(t, reply.ticket);

                if (e && e->stack->state == STACK_PENDING) {
                        if (reply.n_signatures > 0 && reply.signatures &&
                                stack_set_ready(e->stack, reply.n_signatures,
                                        (const char *const *)reply.signatures) == 0) {
                                t->n_pending--;
                                stack_take_kinds(e->stack, TAKE_PTR(reply.kinds));
                                entry_drop_unneeded(t, e);
                        } else {
                                entry_fail(t, e);
                        }
                }
                procmap_unref(reply.map);
                cpython_codes_unref(reply.codes);
                free(reply.signatures);
                free(reply.kinds);
        }
        stack_table_send(t);
}

void stack_table_target_removed(StackTable *t, TargetId id, uint64_t now_mono_ns)
{
        Target *target = target_get(t, id);

        /* No memory: there is nothing of it to forget either. */
        if (!target)
                return;
        target->removed_mono_ns = now_mono_ns;
        list_remove(&target->removed_link);
        list_append(&t->removed, &target->removed_link);
}

void stack_table_expire(StackTable *t, uint64_t now_mono_ns)
{
        Target *target, *tmp;

        list_for_each_safe (target, tmp, &t->removed, removed_link) {
                if (target->removed_mono_ns + TARGET_LINGER_NS > now_mono_ns)
                        break;
                target_free(t, target);
        }
}

unsigned stack_table_n_pending(const StackTable *t)
{
        return t->n_pending;
}
