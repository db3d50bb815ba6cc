/* SPDX-License-Identifier: Apache-2.0 */

/* Who may ask what over the control socket, and what is done then. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.pb-c.h"
#include "core/counter.h"
#include "manager/internal.h"
#include "manager/observed.h"
#include "util/log.h"
#include "util/owner.h"

#define PERIOD_NS_MIN   (1 * NS_PER_MS)
#define PERIOD_NS_MAX   (10 * NS_PER_S)
#define DURATION_NS_MAX (3600 * NS_PER_S)
/* Peers that are not trusted leave observers, threads to be sampled, and time for them to others. */
#define UNTRUSTED_MAX           2
#define UNTRUSTED_PERIOD_NS_MIN (10 * NS_PER_MS)
#define UNTRUSTED_THREADS(max)  (((max) + 7) / 8)

typedef Swprof__Control__Request Request;
typedef Swprof__Control__Reply Reply;

static void respond_reload(Manager *m, ControlCall *call)
{
        Reply reply = SWPROF__CONTROL__REPLY__INIT;
        Swprof__Control__Empty done = SWPROF__CONTROL__EMPTY__INIT;

        if (manager_reload(m) != 0) {
                control_call_fail(call,
                        "the configuration is not valid, the old one stays; see the log of swprofd",
                        false);
                return;
        }
        reply.result_case = SWPROF__CONTROL__REPLY__RESULT_DONE;
        reply.done = &done;
        control_call_respond(call, &reply);
}

/* ---- stacks of a process, without spans ---- */

static const char refused_observe[] =
        "only root, the members of the control group and its own user may look at a process";

static void fail_observe(ControlCall *call, const Swprof__Control__Observe *request, int r)
{
        char text[128];

        if (r == OBSERVER_E_GONE && request->tid)
                snprintf(text, sizeof(text), "process %d has no thread %d", request->pid,
                        request->tid);
        else if (r == OBSERVER_E_GONE)
                snprintf(text, sizeof(text), "there is no process %d", request->pid);
        else if (r == OBSERVER_E_LIMIT)
                snprintf(text, sizeof(text), "as many processes as can be at a time are recorded");
        else
                snprintf(text, sizeof(text), "process %d cannot be recorded: %s", request->pid,
                        strerror(-r));
        control_call_fail(call, text, false);
}

/* One for each user that is not trusted. */
static bool has_room(const Manager *m, const ControlPeer *peer)
{
        unsigned n = 0;
        Observer *o;

        if (peer->trusted)
                return true;
        list_for_each (o, &m->observers.observers, link) {
                const ControlPeer *other = control_call_peer(o->caller);

                if (other->trusted)
                        continue;
                if (other->uid == peer->uid || ++n == UNTRUSTED_MAX)
                        return false;
        }
        return true;
}

static void observe(Manager *m, ControlCall *call, const Swprof__Control__Observe *request)
{
        const ControlPeer *peer = control_call_peer(call);
        uint64_t period_ns_min = peer->trusted ? PERIOD_NS_MIN : UNTRUSTED_PERIOD_NS_MIN;
        ObserverSpec spec = {
                .pid = request->pid,
                .tid = request->tid,
                .period_ns = request->period_us * NS_PER_US,
                .duration_ns = request->duration_ms * NS_PER_MS,
                .max_threads = peer->trusted ? m->config.capture_max_targets
                                             : UNTRUSTED_THREADS(m->config.capture_max_targets),
        };
        Observer *o;
        int r;

        if (!m->sampler) {
                control_call_fail(call, m->capture_info.reason, false);
                return;
        }
        if (spec.duration_ns == 0)
                spec.period_ns = PERIOD_NS_MAX;
        if (spec.pid < 0 || spec.tid < 0 || (spec.pid == 0 && spec.duration_ns == 0) ||
                spec.period_ns < period_ns_min || spec.period_ns > PERIOD_NS_MAX ||
                spec.duration_ns > DURATION_NS_MAX) {
                control_call_fail(call,
                        "periods are 1 ms (for root and the control group) or 10 ms to 10 s, "
                        "durations are an hour at most",
                        false);
                return;
        }
        r = has_room(m, peer) ? observer_new(&m->observers, &o, &spec, call, now_get())
                              : OBSERVER_E_LIMIT;
        if (r) {
                fail_observe(call, request, r);
                return;
        }
        control_call_expect(call, (spec.duration_ns + 2 * OBSERVER_GIVE_UP_NS) / NS_PER_US);
}

/* A program that runs with more rights, and ends, before it is looked for shows its stacks: what it did
 * in a twentieth of a second, by names. */
static bool on_observer_may(void *userdata, const Observer *o)
{
        const ControlPeer *peer = control_call_peer(o->caller);

        return peer->trusted || owner_of(o->spec.pid, peer->uid) != OWNER_OTHER;
}

static void on_observed(void *userdata, Observer *o)
{
        ControlCall *call = o->caller;
        Reply reply = SWPROF__CONTROL__REPLY__INIT;
        uint8_t *bytes = NULL;
        size_t size = 0;

        if (o->denied || !on_observer_may(userdata, o)) {
                observer_free(o);
                counter_add(COUNTER_CONTROL_REFUSED, 1);
                control_call_fail(call, refused_observe, true);
                return;
        }
        if (observed_encode(o, &bytes, &size) < 0) {
                observer_free(o);
                control_call_fail(call, "out of memory", false);
                return;
        }
        observer_free(o);
        reply.result_case = SWPROF__CONTROL__REPLY__RESULT_PROFILE;
        reply.profile.data = bytes;
        reply.profile.len = size;
        control_call_respond(call, &reply);
        free(bytes);
}

static void on_observer_target_add(void *userdata, TargetId id, const TargetSpec *spec)
{
        manager_target_add(userdata, id, spec);
}

static void on_observer_target_remove(void *userdata, TargetId id)
{
        manager_target_remove(userdata, id);
}

const ObserverOps manager_observer_ops = {
        .target_add = on_observer_target_add,
        .target_remove = on_observer_target_remove,
        .may = on_observer_may,
        .done = on_observed,
};

/* ---- requests ---- */

/* What is everyone's business is decided here: stacks of one's own processes. */
static bool may_ask(const ControlPeer *peer, const Request *request)
{
        if (peer->trusted)
                return true;
        /* They are shown what is theirs. */
        if (request->verb_case == SWPROF__CONTROL__REQUEST__VERB_RESULTS ||
                request->verb_case == SWPROF__CONTROL__REQUEST__VERB_LOCAL_TASKS)
                return true;
        return request->verb_case == SWPROF__CONTROL__REQUEST__VERB_OBSERVE &&
               owner_of(request->observe->pid, peer->uid) == OWNER_SELF;
}

static void refuse(ControlCall *call, const Request *request)
{
        static LogLimit limit = LOG_LIMIT_INIT;
        unsigned suppressed;

        counter_add(COUNTER_CONTROL_REFUSED, 1);
        if (log_limit(&limit, &suppressed))
                log_warning("control request of uid %u: refused, not root nor in the control group "
                            "(%u more not logged)",
                        (unsigned)control_call_peer(call)->uid, suppressed);
        if (request->verb_case == SWPROF__CONTROL__REQUEST__VERB_OBSERVE)
                control_call_fail(call, refused_observe, true);
        else
                control_call_fail(
                        call, "only root and the members of the control group may ask", true);
}

static void on_request(void *userdata, ControlCall *call, const Request *request)
{
        if (!may_ask(control_call_peer(call), request)) {
                refuse(call, request);
                return;
        }
        switch (request->verb_case) {
        case SWPROF__CONTROL__REQUEST__VERB_STATUS:
                manager_status(userdata, call);
                break;
        case SWPROF__CONTROL__REQUEST__VERB_RELOAD:
                respond_reload(userdata, call);
                break;
        case SWPROF__CONTROL__REQUEST__VERB_OBSERVE:
                observe(userdata, call, request->observe);
                break;
        case SWPROF__CONTROL__REQUEST__VERB_TASK_START:
                manager_task_start(userdata, call, request);
                break;
        case SWPROF__CONTROL__REQUEST__VERB_TASK_STOP:
                manager_task_stop(userdata, call, request);
                break;
        case SWPROF__CONTROL__REQUEST__VERB_LOCAL_TASKS:
                manager_local_tasks(userdata, call);
                break;
        case SWPROF__CONTROL__REQUEST__VERB_RESULTS:
                manager_results(userdata, call, request);
                break;
        default:
                control_call_fail(call,
                        "this swprofd does not know that request: is swprofctl newer?", false);
        }
}

static void on_hurry(void *userdata, ControlCall *call, bool gone)
{
        Manager *m = userdata;
        Observer *o, *tmp;

        if (gone)
                manager_results_forget(m, call);
        list_for_each_safe (o, tmp, &m->observers.observers, link) {
                if (o->caller != call)
                        continue;
                if (gone)
                        observer_free(o);
                else
                        observer_stop(o, now_get());
        }
        observers_step(&m->observers, now_get());
}

const ControlOps manager_control_ops = {
        .request = on_request,
        .hurry = on_hurry,
};
