/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control.pb-c.h"
#include "core/counter.h"
#include "manager/internal.h"
#include "util/error.h"
#include "version.h"

/* The reply to `status`, built of arrays that live until it is sent. Strings are borrowed from the
 * daemon's objects. */

typedef struct StatusBuilder {
        Manager *manager;
        Now now;
        bool failed; /* no memory */
        Swprof__Control__Status status;
        Swprof__Control__Capture capture;
        Swprof__Control__Oap oap;
        Swprof__Control__Store store, local;
        StoreStatus store_status, local_status;
        Swprof__Control__Counter counters[N_COUNTERS];
        Swprof__Control__Counter *counter_list[N_COUNTERS];
} StatusBuilder;

/* Appends a zeroed element of `size` to a repeated field. NULL: no memory. */
static void *list_add(StatusBuilder *b, size_t *n, void *list, size_t size)
{
        void ***array = list;
        void *element = calloc(1, size);
        void **grown = element ? realloc(*array, (*n + 1) * sizeof(*grown)) : NULL;

        if (!grown) {
                free(element);
                b->failed = true;
                return NULL;
        }
        *array = grown;
        grown[(*n)++] = element;
        return element;
}

static void list_free(size_t n, void *list)
{
        void **array = list;

        for (size_t i = 0; i < n; i++)
                free(array[i]);
        free(array);
}

static Swprof__Control__Instance *instance_find(StatusBuilder *b, const Instance *i)
{
        for (size_t k = 0; k < b->status.n_instances; k++)
                if (b->status.instances[k]->service == i->service &&
                        b->status.instances[k]->instance == i->name)
                        return b->status.instances[k];
        return NULL;
}

static void add_client(void *userdata, const ClientInfo *info)
{
        StatusBuilder *b = userdata;
        Swprof__Control__Instance *i = info->instance ? instance_find(b, info->instance) : NULL;
        int32_t *pids;

        if (!i)
                return;
        i->language = (char *)info->language;
        pids = realloc(i->pids, (i->n_pids + 1) * sizeof(*pids));
        if (!pids) {
                b->failed = true;
                return;
        }
        i->pids = pids;
        i->pids[i->n_pids++] = info->pid;
}

static void add_slot(void *userdata, const SegmentInfo *info)
{
        static const char *const states[] = {
                [SEGMENT_PENDING] = "pending",
                [SEGMENT_PROFILING] = "profiling",
                [SEGMENT_STOPPED] = "settling",
        };
        StatusBuilder *b = userdata;
        Swprof__Control__Slot *s;

        s = list_add(b, &b->status.n_slots, &b->status.slots, sizeof(*s));
        if (!s)
                return;
        swprof__control__slot__init(s);
        s->task = (char *)info->task_id;
        s->segment = (char *)info->segment_id;
        s->pid = info->pid;
        s->tid = info->tid;
        s->state = (char *)states[info->state];
        s->age_ms = info->age_ms;
        s->captured = info->captured;
        s->sent = info->sent;
        s->on_cpu_ns = info->times.on_cpu_ns;
        s->run_queue_ns = info->times.run_queue_ns;
        s->blocked_ns = info->times.blocked_ns;
}

static void add_task(StatusBuilder *b, const Task *task)
{
        static const char *const states[] = {
                [TASK_WAITING] = "waiting",
                [TASK_RUNNING] = "running",
                [TASK_ENDING] = "ending",
        };
        Swprof__Control__Task *t = list_add(b, &b->status.n_tasks, &b->status.tasks, sizeof(*t));

        if (!t)
                return;
        swprof__control__task__init(t);
        t->id = task->id;
        t->service = task->instance->service;
        t->instance = task->instance->name;
        t->endpoint = task->endpoint;
        t->state = (char *)states[task->state];
        t->start_wall_ms = task->start_wall_ms;
        t->end_wall_ms = task->end_wall_ms;
        t->remaining_ms =
                task->end_wall_ms > b->now.wall_ms ? task->end_wall_ms - b->now.wall_ms : 0;
        t->threshold_ms = task->threshold_ms;
        t->period_ms = task->period_ms;
        t->max_sampling_count = task->max_sampling_count;
        t->delivered_segments = task->n_delivered;
        t->slots_used = task->n_slots;
        t->pending_segments = task->n_pending;
        t->matched_segments = task->n_matched;
}

static void add_instance(StatusBuilder *b, const Instance *instance)
{
        Swprof__Control__Instance *i =
                list_add(b, &b->status.n_instances, &b->status.instances, sizeof(*i));
        Task *task;

        if (!i)
                return;
        swprof__control__instance__init(i);
        i->service = instance->service;
        i->instance = instance->name;
        i->agent = instance->agent;
        i->clients = instance->n_clients;
        i->live_segments = instance->n_segments;
        list_for_each (task, &instance->tasks, link)
                add_task(b, task);
}

static void add_oap(StatusBuilder *b)
{
        Manager *m = b->manager;
        SessionStatus s = {.server = "", .state = "disabled", .error = ""};

        if (m->session)
                s = session_status(m->session);
        swprof__control__oap__init(&b->oap);
        b->oap.server = (char *)s.server;
        b->oap.state = (char *)s.state;
        b->oap.error = (char *)(s.error ? s.error : "");
        if (s.last_success_mono_ns)
                b->oap.last_success_ms_ago = (b->now.mono_ns - s.last_success_mono_ns) / NS_PER_MS;
        b->oap.buffered_snapshots = s.n_buffered;
        b->status.oap = &b->oap;
}

static Swprof__Control__Store *fill_store(
        Swprof__Control__Store *ret, StoreStatus *status, Store *s, uint64_t n_snapshots)
{
        *status = store_status(s);
        swprof__control__store__init(ret);
        ret->path = (char *)status->path;
        ret->state = (char *)status->state;
        ret->error = status->error;
        ret->bytes = status->bytes;
        ret->snapshots = n_snapshots;
        return ret;
}

static void add_stores(StatusBuilder *b)
{
        Manager *m = b->manager;

        b->status.store = fill_store(&b->store, &b->store_status, m->store,
                m->session ? session_status(m->session).n_kept : 0);
        if (m->local)
                b->status.local = fill_store(
                        &b->local, &b->local_status, m->results, local_n_pending(m->local));
}

static void add_capture(StatusBuilder *b)
{
        Manager *m = b->manager;

        swprof__control__capture__init(&b->capture);
        b->capture.backend = (char *)m->capture_info.backend;
        b->capture.reason = m->capture_info.reason;
        b->capture.unwind =
                m->config.capture_unwind == UNWIND_MODE_FP ? (char *)"fp" : (char *)"dwarf";
        b->capture.targets = m->sampler ? sampler_n_targets(m->sampler) : 0;
        b->status.capture = &b->capture;
}

static void add_counters(StatusBuilder *b)
{
        for (unsigned i = 0; i < N_COUNTERS; i++) {
                swprof__control__counter__init(&b->counters[i]);
                b->counters[i].name = (char *)counter_name(i);
                b->counters[i].help = (char *)counter_help(i);
                b->counters[i].value = counter_get(i);
                b->counter_list[i] = &b->counters[i];
        }
        b->status.n_counters = N_COUNTERS;
        b->status.counters = b->counter_list;
}

static void builder_deinit(StatusBuilder *b)
{
        for (size_t k = 0; k < b->status.n_instances; k++)
                free(b->status.instances[k]->pids);
        list_free(b->status.n_instances, b->status.instances);
        list_free(b->status.n_tasks, b->status.tasks);
        list_free(b->status.n_slots, b->status.slots);
}

static bool builder_fill(StatusBuilder *b, Manager *m)
{
        b->manager = m;
        b->now = now_get();
        swprof__control__status__init(&b->status);
        b->status.version = (char *)SWPROFD_VERSION;
        b->status.pid = getpid();
        b->status.uptime_ms = (b->now.mono_ns - m->start_mono_ns) / NS_PER_MS;
        b->status.config_file = m->config_file;
        b->status.span_socket = m->config.span_socket;
        add_capture(b);
        add_oap(b);
        add_stores(b);
        add_counters(b);
        for (Instance *i = core_instance_first(m->core); i; i = core_instance_next(m->core, i))
                /* One that is only remembered is none to be seen. */
                if (i->n_clients > 0 || !list_empty(&i->tasks))
                        add_instance(b, i);
        listener_clients(m->listener, add_client, b);
        core_segments(m->core, b->now, add_slot, b);
        return !b->failed;
}

void manager_status(Manager *m, ControlCall *call)
{
        Swprof__Control__Reply reply = SWPROF__CONTROL__REPLY__INIT;
        StatusBuilder b = {0};

        if (builder_fill(&b, m)) {
                reply.result_case = SWPROF__CONTROL__REPLY__RESULT_STATUS;
                reply.status = &b.status;
                control_call_respond(call, &reply);
        } else {
                control_call_fail(call, "out of memory", false);
        }
        builder_deinit(&b);
}
