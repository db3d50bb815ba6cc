/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"
#include "util/error.h"

static uint64_t name_hash(const char *service, const char *name)
{
        return hash_u64(hash_string(service)) ^ hash_string(name);
}

static Instance *instance_find(const Core *c, const char *service, const char *name)
{
        uint64_t hash = name_hash(service, name);

        for (HashLink *l = hash_table_find(&c->instances_by_name, hash); l; l = hash_link_next(l)) {
                Instance *i = container_of(l, Instance, by_name);

                if (strcmp(i->service, service) == 0 && strcmp(i->name, name) == 0)
                        return i;
        }
        return NULL;
}

static Instance *instance_new(Core *c, const char *service, const char *name)
{
        Instance *i = calloc(1, sizeof(*i));

        if (!i)
                return NULL;
        list_init(&i->link);
        list_init(&i->tasks);
        list_init(&i->segments);
        i->last_command_wall_ms = -1;
        i->service = strdup(service);
        i->name = strdup(name);
        /* Both at their full size, so that forgetting a task never needs memory. */
        i->seen_tasks = calloc(INSTANCE_SEEN_MAX, sizeof(*i->seen_tasks));
        i->watch = calloc(INSTANCE_TASKS_MAX, sizeof(*i->watch));
        if (!i->service || !i->name || !i->seen_tasks || !i->watch ||
                hash_table_add(&c->instances_by_name, &i->by_name, name_hash(service, name)) < 0)
                return instance_free(i);
        i->core = c;
        list_append(&c->instances, &i->link);
        return i;
}

Instance *instance_free(Instance *i)
{
        Task *task, *tmp;

        if (!i)
                return NULL;
        list_for_each_safe (task, tmp, &i->tasks, link)
                task_free(task);
        if (i->core) {
                hash_table_remove(&i->core->instances_by_name, &i->by_name);
                list_remove(&i->link);
        }
        for (size_t n = 0; n < i->n_seen_tasks; n++)
                free(i->seen_tasks[n]);
        free(i->seen_tasks);
        free(i->watch);
        free(i->service);
        free(i->name);
        free(i);
        return NULL;
}

Instance *instance_get(Core *c, const char *service, const char *name, Now now)
{
        Instance *i = instance_find(c, service, name);

        if (i)
                return i;
        i = instance_new(c, service, name);
        if (i)
                i->idle_mono_ns = now.mono_ns;
        return i;
}

int core_instance_attach(
        Core *c, Instance **ret, const char *service, const char *instance, bool agent, Now now)
{
        Instance *i = instance_get(c, service, instance, now);

        if (!i)
                return error_origin(-ENOMEM);
        i->agent = agent || (i->agent && i->n_clients > 0);
        i->n_clients++;
        *ret = i;
        return 0;
}

void core_instance_detach(Core *c, Instance *i, Now now)
{
        assert(i->n_clients > 0);
        i->n_clients--;
        i->idle_mono_ns = now.mono_ns;
        instance_release(i, now);
}

/* What it would do again if it were forgotten. */
static bool instance_remembers(const Instance *i, Now now)
{
        return (i->n_seen_tasks > 0 || i->last_command_wall_ms >= 0) &&
               i->core->instances_by_name.n <= INSTANCES_MAX &&
               now.mono_ns < i->idle_mono_ns + INSTANCE_REMEMBER_NS;
}

static bool instance_is_idle(const Instance *i)
{
        return i->n_clients == 0 && list_empty(&i->tasks) && list_empty(&i->segments);
}

void instance_release(Instance *i, Now now)
{
        if (instance_is_idle(i) && !instance_remembers(i, now))
                instance_free(i);
}

uint64_t instance_release_due(const Instance *i)
{
        return instance_is_idle(i) ? i->idle_mono_ns + INSTANCE_REMEMBER_NS : UINT64_MAX;
}

Instance *core_instance_first(Core *c)
{
        return list_first(&c->instances, Instance, link);
}

Instance *core_instance_next(Core *c, Instance *i)
{
        return i->link.next == &c->instances ? NULL : container_of(i->link.next, Instance, link);
}

/* ---- the watch list ---- */

static bool watch_has(const char *const *watch, unsigned n, const char *endpoint)
{
        for (unsigned k = 0; k < n; k++)
                if (strcmp(watch[k], endpoint) == 0)
                        return true;
        return false;
}

void instance_update_watch(Instance *i)
{
        const char *before[INSTANCE_TASKS_MAX];
        unsigned n_before = i->n_watch;
        Task *task;

        memcpy(before, i->watch, n_before * sizeof(*before));
        i->n_watch = 0;
        list_for_each (task, &i->tasks, link) {
                if (task->state == TASK_ENDING || watch_has(i->watch, i->n_watch, task->endpoint))
                        continue;
                i->watch[i->n_watch++] = task->endpoint;
                if (!watch_has(before, n_before, task->endpoint))
                        i->watch_dirty = true;
        }
        /* The names of `before` are still there: a task is not freed before it has left the list.
         */
        if (i->n_watch != n_before)
                i->watch_dirty = true;
}

void instance_notify(Instance *i)
{
        if (!i->watch_dirty)
                return;
        i->watch_dirty = false;
        i->core->ops->watch_changed(i->core->userdata, i);
}

/* ---- tasks that are over ---- */

bool instance_seen(const Instance *i, const char *task_id)
{
        for (size_t n = 0; n < i->n_seen_tasks; n++)
                if (strcmp(i->seen_tasks[n], task_id) == 0)
                        return true;
        return false;
}

void instance_remember(Instance *i, char *task_id)
{
        if (i->n_seen_tasks == INSTANCE_SEEN_MAX) {
                free(i->seen_tasks[0]);
                i->n_seen_tasks--;
                memmove(i->seen_tasks, i->seen_tasks + 1, i->n_seen_tasks * sizeof(*i->seen_tasks));
        }
        i->seen_tasks[i->n_seen_tasks++] = task_id;
}
