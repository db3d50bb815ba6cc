/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "oap/backend.h"
#include "oap/buffer.h"
#include "oap/codec.h"
#include "oap/finishes.h"
#include "oap/poller.h"
#include "oap/segments.h"
#include "oap/session.h"
#include "oap/source.h"
#include "util/error.h"
#include "util/log.h"

#define METHOD_SNAPSHOT "/skywalking.v3.ProfileTask/collectSnapshot"

struct Session {
        TaskSource source;
        Backend backend;
        Pollers pollers;
        Buffer *buffer;
        Segments segments;
        Finishes finishes;

        const Keep *keep;
        BufferBatch batch; /* to be sent when its numbers are on record */
        bool streaming;    /* or about to */
        size_t n_streamed; /* 0: to see whether snapshots would be taken */
        uint64_t started_mono_ns;
        uint64_t batch_due_mono_ns; /* 0: to be set at the next step */
        bool flush;                 /* until the buffer is empty */
};

int session_new(
        Session **ret, const Config *config, Core *core, const Keep *keep, uint32_t (*random)(void))
{
        _cleanup_(session_freep) Session *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return error_origin(-ENOMEM);
        session_source_init(&s->source, s);
        pollers_init(&s->pollers, &s->backend, core, &s->source);
        s->keep = keep;
        segments_init(&s->segments, &s->backend, keep);
        s->buffer = buffer_new(keep);
        finishes_init(&s->finishes, &s->backend, s->buffer, keep);
        if (!s->buffer)
                return error_origin(-ENOMEM);
        r = backend_init(&s->backend, config, random);
        if (r)
                return r > 0 ? SESSION_E_INVALID : error_trace(r);
        s->backend.now = now_get();
        *ret = TAKE_PTR(s);
        return 0;
}

const TaskSource *session_source(const Session *s)
{
        return &s->source;
}

int session_check_config(const Config *config)
{
        _cleanup_(credentials_deinit) Credentials credentials = {0};
        _cleanup_(freep) char *error = NULL;
        int r;

        r = credentials_load(&credentials, config, &error);
        if (r > 0) {
                log_error("%s", error);
                return SESSION_E_INVALID;
        }
        return error_trace(r);
}

/* Trace segments whose snapshots have left are due. */
static void session_take_retired(Session *s)
{
        BufferReport report;

        while ((report = buffer_retired(s->buffer)).bytes.data)
                segments_add(&s->segments, report);
}

/* It may have arrived. */
static bool session_batch_sent(const Session *s)
{
        return s->streaming && !s->batch.messages;
}

/* At the end: what was not sent yet is put back, of the rest nobody knows. */
static void session_end_batch(Session *s)
{
        bool again, sent = session_batch_sent(s);

        if (!s->buffer || !s->streaming)
                return;
        again = s->backend.config->oap_redelivery == REDELIVERY_AT_LEAST_ONCE;
        if (sent)
                counter_add(COUNTER_SNAPSHOTS_AMBIGUOUS, s->n_streamed);
        buffer_batch_end(s->buffer, sent && !again, sent);
        session_take_retired(s);
        buffer_batch_deinit(&s->batch);
}

static void session_log_undelivered(const Session *s)
{
        size_t n = s->buffer ? buffer_n(s->buffer) : 0;
        bool kept = s->keep && s->keep->works(s->keep->userdata);

        if (n > 0 || s->segments.n > 0 || s->finishes.n > 0)
                log_full(kept ? LOG_NOTICE : LOG_WARNING,
                        "Not delivered at the end: %zu snapshots, of which %zu may have arrived, "
                        "%zu trace segments, the ends of %zu tasks%s",
                        n, session_batch_sent(s) ? s->n_streamed : 0, s->segments.n, s->finishes.n,
                        kept ? "; the next start goes on with what has not" : "");
}

Session *session_free(Session *s)
{
        if (!s)
                return NULL;
        session_log_undelivered(s);
        backend_deinit(&s->backend);
        session_end_batch(s);
        finishes_deinit(&s->finishes);
        segments_deinit(&s->segments);
        pollers_deinit(&s->pollers);
        buffer_free(s->buffer);
        free(s);
        return NULL;
}

int session_restore_segment(Session *s, const KeptSegment *segment, size_t n_snapshots,
        bool task_lives, bool *ret_continues)
{
        bool again = s->backend.config->oap_redelivery == REDELIVERY_AT_LEAST_ONCE;
        int r = buffer_restore(s->buffer, segment, n_snapshots, task_lives, again, ret_continues);

        session_take_retired(s);
        return r < 0 ? error_trace(r) : 0;
}

void session_set_config(Session *s, const Config *config, Now now)
{
        s->backend.now = now;
        backend_set_config(&s->backend, config);
}

int session_fd(const Session *s)
{
        return rpc_client_fd(s->backend.connection.rpc);
}

void session_dispatch(Session *s, Now now)
{
        s->backend.now = now;
        rpc_dispatch(s->backend.connection.rpc);
}

/* ---- snapshots ---- */

static void session_drop_snapshots(Session *s)
{
        counter_add(COUNTER_SNAPSHOTS_UNSUPPORTED, buffer_drop(s->buffer));
        session_take_retired(s);
}

static void stream_done(void *userdata, const RpcResult *result)
{
        Session *s = userdata;
        bool again = s->backend.config->oap_redelivery == REDELIVERY_AT_LEAST_ONCE;
        bool left = false, may_have_left = false;

        s->streaming = false;
        backend_ended(&s->backend, LANE_SNAPSHOT, s->started_mono_ns, result);
        if (result->status == RPC_OK) {
                counter_add(COUNTER_SNAPSHOTS_SENT, s->n_streamed);
                left = true;
        } else if (result->status != RPC_UNIMPLEMENTED && !backend_took_nothing(result)) {
                counter_add(COUNTER_SNAPSHOTS_AMBIGUOUS, s->n_streamed);
                left = !again;
                may_have_left = true;
        }
        buffer_batch_end(s->buffer, left, may_have_left);
        session_take_retired(s);
}

/* The batch's numbers are on record, if they are to be. */
static void session_send(void *userdata)
{
        Session *s = userdata;
        int r = backend_call(&s->backend, LANE_SNAPSHOT, METHOD_SNAPSHOT, s->batch.messages,
                s->batch.n, stream_done, s);

        buffer_batch_deinit(&s->batch);
        if (r < 0) {
                buffer_batch_end(s->buffer, false, false);
                s->streaming = false;
                return;
        }
        s->started_mono_ns = s->backend.now.mono_ns;
}

static void session_stream(Session *s)
{
        bool probe = backend_lane_failing(&s->backend, LANE_SNAPSHOT);
        size_t max = s->backend.config->oap_batch_snapshots;
        bool fresh_due = s->flush || buffer_n_fresh(s->buffer) >= max ||
                         s->batch_due_mono_ns <= s->backend.now.mono_ns;
        int r;

        r = buffer_batch_begin(s->buffer, probe ? 0 : max, fresh_due, &s->batch);
        if (r < 0) {
                backend_failed(&s->backend, LANE_SNAPSHOT, r);
                return;
        }
        s->streaming = true;
        s->n_streamed = s->batch.n;
        if (fresh_due)
                s->batch_due_mono_ns = 0;
        if (buffer_batch_reserve(s->buffer, session_send, s) != 0)
                session_send(s);
}

/* The backend takes no snapshots now. */
static bool session_failing(const Session *s)
{
        return backend_lane_failing(&s->backend, LANE_SNAPSHOT) || backend_unsupported(&s->backend);
}

/* When the next stream may start; 0: now, or to be known after a step. */
static uint64_t session_stream_mono_ns(const Session *s)
{
        uint64_t open_ns = backend_open_mono_ns(&s->backend, LANE_SNAPSHOT);
        uint64_t due_ns = s->batch_due_mono_ns;
        size_t n = buffer_n_ready(s->buffer);

        if (s->streaming)
                return UINT64_MAX;
        /* To drop them. Those read from the disk stay there. */
        if (backend_unsupported(&s->backend) && buffer_n_fresh(s->buffer) > 0)
                return 0;
        /* A lane that failed is tried even if nothing waits: the state shall be known. */
        if (backend_lane_failing(&s->backend, LANE_SNAPSHOT))
                return open_ns;
        if (n == 0)
                return UINT64_MAX;
        if (s->flush || n > buffer_n_fresh(s->buffer) ||
                n >= s->backend.config->oap_batch_snapshots)
                due_ns = 0;
        return open_ns > due_ns ? open_ns : due_ns;
}

static void session_stream_step(Session *s)
{
        uint64_t now_ns = s->backend.now.mono_ns;

        if (backend_unsupported(&s->backend) && !s->streaming)
                session_drop_snapshots(s);
        if (buffer_n_ready(s->buffer) == 0)
                s->flush = false;
        if (buffer_n_fresh(s->buffer) == 0) {
                s->batch_due_mono_ns = 0;
        } else if (s->batch_due_mono_ns == 0) {
                s->batch_due_mono_ns =
                        now_ns + s->backend.config->oap_batch_interval_ms * NS_PER_MS;
        }
        if (session_stream_mono_ns(s) <= now_ns)
                session_stream(s);
        /* Also of segments whose snapshots on disk are gone. */
        session_take_retired(s);
        buffer_keep_step(s->buffer, s->backend.now, session_failing(s));
}

bool session_snapshot(Session *s, const Snapshot *snapshot)
{
        int r;

        if (backend_unsupported(&s->backend)) {
                counter_add(COUNTER_SNAPSHOTS_UNSUPPORTED, 1);
                return false;
        }
        r = buffer_add(s->buffer, snapshot, s->backend.config->oap_buffer_bytes);
        if (r != 0) {
                counter_add(COUNTER_SNAPSHOTS_DROPPED, 1);
                return false;
        }
        return true;
}

void session_segment_began(Session *s, const SegmentReport *report)
{
        void *data;
        size_t size;

        /* Its end is likely to be told. */
        if (codec_segment(report, &data, &size) >= 0)
                buffer_segment_began(s->buffer, report->service, report->instance,
                        report->segment_id, (RpcBytes){data, size});
}

void session_segment_done(Session *s, const SegmentReport *report)
{
        void *data;
        size_t size;
        int r = codec_segment(report, &data, &size);

        if (r < 0) {
                counter_add(COUNTER_TRACE_SEGMENTS_LOST, 1);
                return;
        }
        if (r == CODEC_E_PARENT)
                counter_add(COUNTER_TRACE_PARENTS_BAD, 1);
        if (!buffer_segment_done(s->buffer, report->service, report->instance, report->segment_id,
                    (RpcBytes){data, size}))
                segments_add(&s->segments, (BufferReport){.bytes = {data, size}});
        session_take_retired(s);
}

void session_segment_unwanted(Session *s, const SegmentReport *report)
{
        buffer_segment_unwanted(s->buffer, report->service, report->instance, report->segment_id);
}

/* ---- the rest ---- */

void session_task_finished(
        Session *s, const char *service, const char *instance, const char *task_id)
{
        int r;

        buffer_task_done(s->buffer, service, instance, task_id);
        session_take_retired(s);
        r = finishes_add(&s->finishes, service, instance, task_id);
        if (r < 0)
                log_warning("The end of task %s is not reported: %s", task_id, strerror(-r));
}

void session_instance_added(Session *s, Instance *i, Now now)
{
        int r;

        s->backend.now = now;
        r = pollers_add(&s->pollers, i);
        if (r < 0)
                log_error("No tasks for instance %s of %s: %s", i->name, i->service, strerror(-r));
}

void session_instance_removed(Session *s, Instance *i)
{
        pollers_remove(&s->pollers, i);
}

void session_step(Session *s, Now now)
{
        s->backend.now = now;
        backend_step(&s->backend);
        pollers_step(&s->pollers);
        session_stream_step(s);
        segments_step(&s->segments);
        finishes_step(&s->finishes);
}

uint64_t session_next_mono_ns(const Session *s)
{
        uint64_t next_ns = UINT64_MAX, times_ns[6];

        times_ns[0] = pollers_next_mono_ns(&s->pollers);
        times_ns[1] = session_stream_mono_ns(s);
        times_ns[2] = segments_next_mono_ns(&s->segments);
        times_ns[3] = finishes_next_mono_ns(&s->finishes);
        times_ns[4] = connection_next_mono_ns(&s->backend.connection);
        times_ns[5] = buffer_keep_next_mono_ns(s->buffer, session_failing(s));
        for (size_t i = 0; i < sizeof(times_ns) / sizeof(*times_ns); i++)
                next_ns = times_ns[i] < next_ns ? times_ns[i] : next_ns;
        return next_ns;
}

void session_flush(Session *s, Now now)
{
        s->flush = true;
        backend_hurry(&s->backend);
        session_step(s, now);
}

bool session_idle(const Session *s)
{
        return buffer_n_ready(s->buffer) == 0 && !s->streaming && segments_idle(&s->segments) &&
               finishes_idle(&s->finishes);
}

SessionStatus session_status(const Session *s)
{
        return (SessionStatus){
                .server = connection_server(&s->backend.connection),
                .state = backend_state(&s->backend),
                .error = s->backend.error,
                .last_success_mono_ns = s->backend.last_success_mono_ns,
                .n_buffered = buffer_n(s->buffer),
                .n_kept = buffer_n_kept(s->buffer),
        };
}
