/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "core/internal.h"
#include "util/error.h"

/* The wall clock may step while a task is listed: it is looked at that often. */
#define WALL_CHECK_NS NS_PER_S

int core_new(Core **ret, const Config *config, const CoreOps *ops, void *userdata)
{
        Core *c = calloc(1, sizeof(*c));

        if (!c)
                return error_origin(-ENOMEM);
        c->config = config;
        c->ops = ops;
        c->userdata = userdata;
        c->log_rejected = (LogLimit)LOG_LIMIT_INIT;
        list_init(&c->instances);
        list_init(&c->blocked);
        *ret = c;
        return 0;
}

Core *core_free(Core *c)
{
        Instance *i, *tmp;

        if (!c)
                return NULL;
        while (c->n_heap > 0)
                segment_free(c->heap[0]);
        list_for_each_safe (i, tmp, &c->instances, link)
                instance_free(i);
        hash_table_deinit(&c->instances_by_name);
        hash_table_deinit(&c->segments_by_id);
        hash_table_deinit(&c->clients);
        hash_table_deinit(&c->targets);
        free(c->heap);
        free(c);
        return NULL;
}

void core_set_config(Core *c, const Config *config)
{
        c->config = config;
}

void core_step(Core *c, Now now)
{
        Instance *i, *next_instance;
        Segment *s, *next_segment;
        Task *task, *next_task;

        list_for_each (i, &c->instances, link)
                list_for_each (task, &i->tasks, link)
                        task_step(task, now);

        /* Each is due later than now afterwards, or gone. */
        while (c->n_heap > 0 && c->heap[0]->due_mono_ns <= now.mono_ns)
                segment_step(c->heap[0], now);
        list_for_each_safe (s, next_segment, &c->blocked, blocked_link)
                if (!segment_blocked(s))
                        segment_step(s, now);

        list_for_each_safe (i, next_instance, &c->instances, link) {
                list_for_each_safe (task, next_task, &i->tasks, link)
                        task_sweep(task);
                instance_notify(i);
                instance_release(i, now);
        }
}

uint64_t core_next_mono_ns(Core *c, Now now)
{
        uint64_t next = c->n_heap > 0 ? c->heap[0]->due_mono_ns : UINT64_MAX;
        Instance *i;
        Segment *s;
        Task *task;

        list_for_each (i, &c->instances, link) {
                uint64_t release = instance_release_due(i);

                if (release < next)
                        next = release;
                list_for_each (task, &i->tasks, link) {
                        uint64_t due = task_due(task, now);

                        if (due > now.mono_ns + WALL_CHECK_NS)
                                due = now.mono_ns + WALL_CHECK_NS;
                        if (due < next)
                                next = due;
                }
        }
        /* A stack that was waited for is there. */
        list_for_each (s, &c->blocked, blocked_link)
                if (!segment_blocked(s))
                        return now.mono_ns;
        return next;
}

void core_flush(Core *c, Now now)
{
        c->flushing = true;
        while (c->n_heap > 0)
                segment_flush(c->heap[0], now);
        c->flushing = false;
}
