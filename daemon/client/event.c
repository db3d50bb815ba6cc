/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "client/event.h"
#include "core/counter.h"
#include "util/error.h"

/* How far a client's time may be off before it is not believed. */
#define TIME_FUTURE_NS (1 * NS_PER_S)
#define TIME_PAST_NS   (3600 * NS_PER_S)

static uint64_t event_time(uint64_t mono_ns, Now now)
{
        if (mono_ns == 0)
                return now.mono_ns;
        if (mono_ns > now.mono_ns) {
                if (mono_ns - now.mono_ns > TIME_FUTURE_NS)
                        counter_add(COUNTER_EVENTS_BAD_TIME, 1);
                return now.mono_ns;
        }
        if (now.mono_ns - mono_ns > TIME_PAST_NS) {
                counter_add(COUNTER_EVENTS_BAD_TIME, 1);
                return now.mono_ns;
        }
        return mono_ns;
}

/* Threads end, also before their events are read: not a mistake of the client. Return: as
 * thread_map_find. */
static int event_thread(Peer *p, pid_t theirs, pid_t *ret_tid)
{
        unsigned suppressed;
        int r;

        if (theirs == 0) {
                *ret_tid = 0;
                return 0;
        }
        r = thread_map_find(&p->threads, theirs, ret_tid);
        if (r < 0)
                return error_trace(r);
        if (r == THREAD_MAP_E_UNKNOWN) {
                counter_add(COUNTER_EVENTS_BAD_THREAD, 1);
                if (log_limit(&p->set->log_thread, &suppressed))
                        log_info("pid %d has no thread %d: its event is ignored (%u more not "
                                 "logged)",
                                p->pid, theirs, suppressed);
        }
        return r;
}

static int event_start(Peer *p, ClientPacketType type, const ClientEvent *event, Now now)
{
        SpanStartEvent start = {
                .segment_id = event->segment,
                .operation = event->operation,
                .trace_id = event->trace ?: "",
                .pid = p->pid,
                .uid = p->owned ? p->uid : (uid_t)-1,
                .start_mono_ns = event_time(event->mono_ns, now),
        };
        int r;

        r = event_thread(p, event->tid, &start.tid);
        if (r == THREAD_MAP_E_UNKNOWN)
                return 0;
        if (r)
                return error_trace(r);
        r = type == CLIENT_PACKET_START
                    ? core_span_start(p->set->core, p->instance, p->id, &start, now)
                    : core_span_continue(p->set->core, p->id, event->parent, &start, now);
        /* What core does not follow it counts; the client need not know. */
        return r < 0 ? error_trace(r) : 0;
}

/* The stack that it gives, borrowed, or NULL. Return: 0, -ENOMEM. */
static int event_stack(Peer *p, const ClientEvent *event, Stack **ret)
{
        size_t n = event->n_stack;
        int r;

        *ret = NULL;
        if (n == 0)
                return 0;
        if (n > p->set->config->profile_max_depth) {
                counter_add(COUNTER_STACKS_CUT, 1);
                n = p->set->config->profile_max_depth;
        }
        r = stack_set_get(&p->stacks, ret, n, event->stack);
        if (r == STACK_SET_E_FULL) {
                counter_add(COUNTER_STACKS_OVER, 1);
                return 0;
        }
        return error_trace(r);
}

static int event_switch(Peer *p, const ClientEvent *event, Now now)
{
        pid_t tid = 0;
        Stack *stack;
        int r;

        r = event_stack(p, event, &stack);
        if (r)
                return error_trace(r);
        /* The segment has left its old thread in any case: on an unknown one it is on none. */
        r = event_thread(p, event->tid, &tid);
        if (r < 0)
                return error_trace(r);
        r = core_span_switch(p->set->core, p->id, event->segment, tid, stack,
                event_time(event->mono_ns, now), now);
        return r < 0 ? error_trace(r) : 0;
}

int peer_event(Peer *p, ClientPacketType type, const ClientEvent *event, Now now)
{
        Core *core = p->set->core;
        int r;

        counter_add(COUNTER_EVENTS_RECEIVED, 1);
        switch (type) {
        case CLIENT_PACKET_START:
        case CLIENT_PACKET_CONTINUE:
                r = event_start(p, type, event, now);
                break;
        case CLIENT_PACKET_RENAME:
                r = core_span_rename(core, p->id, event->segment, event->operation, now);
                break;
        case CLIENT_PACKET_STOP:
                r = core_span_stop(core, p->id, event->segment, event_time(event->mono_ns, now),
                        event->error, now);
                break;
        case CLIENT_PACKET_SWITCH:
                r = event_switch(p, event, now);
                break;
        case CLIENT_PACKET_PARENT:
                r = core_span_parent(core, p->id, event->segment, event->sw8);
                break;
        case CLIENT_PACKET_TAG:
                r = core_span_tag(core, p->id, event->segment, event->key, event->value);
                break;
        default:
                /* The caller has taken the hello. */
                r = error_origin(-ENOTRECOVERABLE);
                break;
        }
        return r < 0 ? error_trace(r) : 0;
}
