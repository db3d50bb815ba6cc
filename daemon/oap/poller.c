/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "core/counter.h"
#include "oap/codec.h"
#include "oap/poller.h"
#include "util/error.h"
#include "util/log.h"

#define METHOD_POLL       "/skywalking.v3.ProfileTask/getProfileTaskCommands"
#define METHOD_KEEP_ALIVE "/skywalking.v3.ManagementService/keepAlive"
#define METHOD_PROPERTIES "/skywalking.v3.ManagementService/reportInstanceProperties"

/* Polls that are due together are spread over so much time for each of them, and at least over the
 * minimum. */
#define SPREAD_EACH_MS 20
#define SPREAD_MIN_MS  200
/* Each so many-th heartbeat carries the properties, beginning with the first. */
#define PROPERTIES_FACTOR 10

typedef struct Poller {
        ListLink link;
        Pollers *pollers;
        Instance *instance; /* NULL: removed; freed when its calls have ended */
        bool polling, beating;
        uint64_t due_mono_ns, started_mono_ns;
        uint64_t beat_due_mono_ns;
        unsigned n_beats;
} Poller;

void pollers_init(Pollers *p, Backend *backend, Core *core, const TaskSource *source)
{
        p->backend = backend;
        p->core = core;
        p->source = source;
        list_init(&p->pollers);
}

static void poller_free(Poller *poller)
{
        list_remove(&poller->link);
        free(poller);
}

void pollers_deinit(Pollers *p)
{
        Poller *poller, *next;

        list_for_each_safe (poller, next, &p->pollers, link)
                poller_free(poller);
}

static bool poller_wants_poll(const Poller *poller)
{
        return poller->instance && poller->instance->n_clients > 0 && !poller->polling &&
               poller->pollers->backend->config->profile_active;
}

static bool poller_wants_beat(const Poller *poller)
{
        return poller->instance && poller->instance->n_clients > 0 && !poller->beating &&
               !poller->instance->agent && poller->pollers->backend->config->oap_heartbeat;
}

/* When one of n polls that would be due now shall go out. */
static uint64_t pollers_spread_mono_ns(const Pollers *p, uint64_t n)
{
        uint64_t interval_ms = p->backend->config->oap_poll_interval_ms;
        uint64_t spread_ms = n * SPREAD_EACH_MS;

        if (spread_ms < SPREAD_MIN_MS)
                spread_ms = SPREAD_MIN_MS;
        if (spread_ms > interval_ms)
                spread_ms = interval_ms;
        return p->backend->now.mono_ns + backend_random(p->backend, spread_ms + 1) * NS_PER_MS;
}

/* After an outage all polls are overdue: they shall not all go out at once. */
static void pollers_spread(Pollers *p)
{
        uint64_t now_ns = p->backend->now.mono_ns, n = 0;
        Poller *poller;

        list_for_each (poller, &p->pollers, link)
                n += poller_wants_poll(poller) && poller->due_mono_ns <= now_ns;
        list_for_each (poller, &p->pollers, link)
                if (poller_wants_poll(poller) && poller->due_mono_ns <= now_ns)
                        poller->due_mono_ns = pollers_spread_mono_ns(p, n);
}

int pollers_add(Pollers *p, Instance *i)
{
        Poller *poller = i->userdata, *other;
        uint64_t n = 1;

        if (poller)
                return 0;
        poller = calloc(1, sizeof(*poller));
        if (!poller)
                return error_origin(-ENOMEM);
        list_for_each (other, &p->pollers, link)
                n += other->instance && other->started_mono_ns == 0;
        poller->pollers = p;
        poller->instance = i;
        poller->due_mono_ns = poller->beat_due_mono_ns = pollers_spread_mono_ns(p, n);
        list_append(&p->pollers, &poller->link);
        i->userdata = poller;
        return 0;
}

static void poller_release(Poller *poller)
{
        if (!poller->instance && !poller->polling && !poller->beating)
                poller_free(poller);
}

void pollers_remove(Pollers *p, Instance *i)
{
        Poller *poller = i->userdata;

        if (!poller)
                return;
        i->userdata = NULL;
        poller->instance = NULL;
        poller_release(poller);
}

/* ---- polls ---- */

static void poller_command(void *userdata, const TaskCommand *command)
{
        Poller *poller = userdata;
        TaskCommand ours = *command;
        int r;

        /* What the core does about one command may end the instance. */
        if (!poller->instance)
                return;
        ours.source = poller->pollers->source;
        r = core_task_add(
                poller->pollers->core, poller->instance, &ours, poller->pollers->backend->now);
        if (r < 0)
                log_error("Task %s is lost: %s", command->task_id, strerror(-r));
}

static void poll_done(void *userdata, const RpcResult *result)
{
        Poller *poller = userdata;
        Pollers *p = poller->pollers;
        bool recovered = backend_ended(p->backend, LANE_POLL, poller->started_mono_ns, result);
        int r;

        if (recovered)
                pollers_spread(p);
        if (result->status == RPC_OK) {
                r = codec_commands(result->reply.data, result->reply.size, poller_command, poller);
                if (r > 0)
                        counter_add(COUNTER_COMMANDS_BAD, 1);
                else if (r < 0)
                        log_error("A reply with tasks is lost: %s", strerror(-r));
        } else {
                poller->due_mono_ns = p->backend->now.mono_ns; /* when the lane opens */
        }
        /* Not before: a command may end the instance, which frees a poller that does not poll. */
        poller->polling = false;
        poller_release(poller);
}

uint32_t poller_delay_ms(uint32_t interval_ms, bool first, uint32_t random)
{
        uint32_t spread_ms = first ? interval_ms : interval_ms / 5;

        return interval_ms - spread_ms / 2 + random % (spread_ms + 1);
}

static void poller_poll(Poller *poller)
{
        Backend *b = poller->pollers->backend;
        bool first = poller->started_mono_ns == 0;
        const Instance *i = poller->instance;
        _cleanup_(freep) void *message = NULL;
        size_t size;
        int r;

        r = codec_task_query(i->service, i->name, i->last_command_wall_ms, &message, &size);
        if (r < 0) {
                backend_failed(b, LANE_POLL, r);
                return;
        }
        r = backend_call(
                b, LANE_POLL, METHOD_POLL, &(RpcBytes){message, size}, 1, poll_done, poller);
        if (r < 0)
                return;
        poller->polling = true;
        poller->started_mono_ns = b->now.mono_ns;
        poller->due_mono_ns =
                b->now.mono_ns +
                poller_delay_ms(b->config->oap_poll_interval_ms, first, b->random()) * NS_PER_MS;
}

/* ---- heartbeats ---- */

static void beat_done(void *userdata, const RpcResult *result)
{
        Poller *poller = userdata;

        /* A heartbeat that failed is not worth a retry, and says nothing about profiling. */
        counter_add(result->status == RPC_OK ? COUNTER_CALLS_OK : COUNTER_CALLS_FAILED, 1);
        poller->beating = false;
        poller_release(poller);
}

static int beat_encode(const Instance *i, bool properties, void **ret, size_t *ret_size)
{
        struct utsname host;

        if (!properties || uname(&host) < 0)
                return codec_keep_alive(i->service, i->name, ret, ret_size);
        return codec_instance_properties(i->service, i->name,
                (CodecProperty[]){{"OS Name", host.sysname}, {"hostname", host.nodename}}, 2, ret,
                ret_size);
}

static void poller_beat(Poller *poller)
{
        Backend *b = poller->pollers->backend;
        bool properties = poller->n_beats % PROPERTIES_FACTOR == 0;
        _cleanup_(freep) void *message = NULL;
        size_t size;
        int r;

        poller->beat_due_mono_ns =
                b->now.mono_ns + b->config->oap_heartbeat_interval_ms * NS_PER_MS;
        r = beat_encode(poller->instance, properties, &message, &size);
        if (r == 0)
                r = connection_call(&b->connection,
                        properties ? METHOD_PROPERTIES : METHOD_KEEP_ALIVE,
                        &(RpcBytes){message, size}, 1, b->config->oap_deadline_ms, beat_done,
                        poller);
        if (r < 0)
                return;
        poller->beating = true;
        poller->n_beats++;
}

uint64_t pollers_next_mono_ns(const Pollers *p)
{
        uint64_t open_ns = backend_open_mono_ns(p->backend, LANE_POLL), next_ns = UINT64_MAX;
        const Poller *poller;

        list_for_each (poller, &p->pollers, link) {
                if (poller_wants_poll(poller)) {
                        uint64_t due_ns = poller->due_mono_ns;

                        due_ns = due_ns > open_ns ? due_ns : open_ns;
                        next_ns = next_ns < due_ns ? next_ns : due_ns;
                }
                if (poller_wants_beat(poller) && poller->beat_due_mono_ns < next_ns)
                        next_ns = poller->beat_due_mono_ns;
        }
        return next_ns;
}

void pollers_step(Pollers *p)
{
        uint64_t now_ns = p->backend->now.mono_ns;
        bool any = false;
        Poller *poller;

        list_for_each (poller, &p->pollers, link) {
                any |= poller->polling || poller_wants_poll(poller);
                if (poller_wants_poll(poller) && poller->due_mono_ns <= now_ns &&
                        backend_open(p->backend, LANE_POLL))
                        poller_poll(poller);
                if (poller_wants_beat(poller) && poller->beat_due_mono_ns <= now_ns)
                        poller_beat(poller);
        }
        if (!any)
                backend_lane_rest(p->backend, LANE_POLL);
}
