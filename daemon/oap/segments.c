/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "core/counter.h"
#include "oap/segments.h"

#define METHOD_COLLECT "/skywalking.v3.TraceSegmentReportService/collect"

#define QUEUE_MAX  1024
#define STREAM_MAX 64

typedef struct QueuedSegment {
        ListLink link;
        BufferReport report;
} QueuedSegment;

void segments_init(Segments *s, Backend *backend, const Keep *keep)
{
        *s = (Segments){.backend = backend, .keep = keep};
        list_init(&s->queue);
}

/* Those of the first n that are on record are not to be sent any more, or are again. Return:
 * whether `done` will be called. */
static bool segments_record(Segments *s, size_t n, bool wanted, KeepRecorded done)
{
        KeptReport reports[STREAM_MAX];
        QueuedSegment *q;
        size_t n_reports = 0;

        list_for_each (q, &s->queue, link) {
                if (n-- == 0)
                        break;
                if (q->report.segment == 0)
                        continue;
                reports[n_reports].segment = q->report.segment;
                reports[n_reports].data = wanted ? q->report.bytes.data : NULL;
                reports[n_reports++].size = wanted ? q->report.bytes.size : 0;
        }
        if (n_reports == 0 || !s->keep)
                return false;
        if (s->keep->record(s->keep->userdata,
                    &(KeepRecord){.reports = reports, .n_reports = n_reports}, done, s) == 0)
                return done;
        counter_add(COUNTER_STORE_RECORDS_LOST, n_reports);
        return false;
}

/* Takes the first n out. */
static void segments_shift(Segments *s, size_t n)
{
        for (; n > 0; n--) {
                QueuedSegment *q = list_first(&s->queue, QueuedSegment, link);

                list_remove(&q->link);
                free((void *)q->report.bytes.data);
                free(q);
                s->n--;
        }
}

void segments_deinit(Segments *s)
{
        /* These were not sent. */
        if (s->waiting)
                segments_record(s, s->n_taken, true, NULL);
        segments_shift(s, s->n);
}

static void segments_drop(Segments *s)
{
        counter_add(COUNTER_TRACE_SEGMENTS_LOST, s->n);
        while (s->n > 0) {
                size_t n = s->n < STREAM_MAX ? s->n : STREAM_MAX;

                segments_record(s, n, false, NULL);
                segments_shift(s, n);
        }
}

/* Nobody will ever take it: it shall not stay on record. */
static void segment_strike(Segments *s, const BufferReport *segment)
{
        const KeptReport struck = {.segment = segment->segment};

        if (struck.segment != 0 && s->keep &&
                s->keep->record(s->keep->userdata,
                        &(KeepRecord){.reports = &struck, .n_reports = 1}, NULL, NULL) < 0)
                counter_add(COUNTER_STORE_RECORDS_LOST, 1);
}

void segments_add(Segments *s, BufferReport segment)
{
        QueuedSegment *q = NULL;

        if (s->n < QUEUE_MAX && !backend_lane_unsupported(s->backend, LANE_SEGMENT))
                q = calloc(1, sizeof(*q));
        if (!q) {
                if (backend_lane_unsupported(s->backend, LANE_SEGMENT))
                        segment_strike(s, &segment);
                counter_add(COUNTER_TRACE_SEGMENTS_LOST, 1);
                free((void *)segment.bytes.data);
                return;
        }
        q->report = segment;
        list_append(&s->queue, &q->link);
        s->n++;
}

bool segments_idle(const Segments *s)
{
        return s->n == 0 && !s->streaming;
}

static bool segments_due(const Segments *s)
{
        return !s->streaming && (s->n > 0 || backend_lane_failing(s->backend, LANE_SEGMENT));
}

uint64_t segments_next_mono_ns(const Segments *s)
{
        return segments_due(s) ? backend_open_mono_ns(s->backend, LANE_SEGMENT) : UINT64_MAX;
}

static void stream_done(void *userdata, const RpcResult *result)
{
        Segments *s = userdata;

        backend_ended(s->backend, LANE_SEGMENT, s->started_mono_ns, result);
        s->streaming = false;
        if (result->status == RPC_OK) {
                counter_add(COUNTER_TRACE_SEGMENTS_SENT, s->n_taken);
                segments_shift(s, s->n_taken);
        } else if (result->status == RPC_UNIMPLEMENTED) {
                segments_drop(s);
        } else if (!backend_took_nothing(result)) {
                counter_add(COUNTER_TRACE_SEGMENTS_LOST, s->n_taken);
                segments_shift(s, s->n_taken);
        } else {
                segments_record(s, s->n_taken, true, NULL);
        }
        s->n_taken = 0;
}

static void segments_send(Segments *s)
{
        RpcBytes messages[STREAM_MAX];
        QueuedSegment *q;
        size_t n = 0;

        list_for_each (q, &s->queue, link) {
                if (n == s->n_taken)
                        break;
                messages[n++] = q->report.bytes;
        }
        if (backend_call(s->backend, LANE_SEGMENT, METHOD_COLLECT, messages, n, stream_done, s) <
                0) {
                segments_record(s, n, true, NULL);
                s->n_taken = 0;
                s->streaming = false;
                return;
        }
        s->started_mono_ns = s->backend->now.mono_ns;
}

static void segments_recorded(void *userdata, bool failed, const KeptLoss *losses, size_t n_losses)
{
        Segments *s = userdata;

        s->waiting = false;
        segments_send(s);
}

void segments_step(Segments *s)
{
        if (!segments_due(s) || !backend_open(s->backend, LANE_SEGMENT))
                return;
        s->streaming = true;
        s->n_taken = s->n < STREAM_MAX ? s->n : STREAM_MAX;
        /* A lane that failed is tried with an empty stream. */
        if (backend_lane_failing(s->backend, LANE_SEGMENT))
                s->n_taken = 0;
        s->waiting = segments_record(s, s->n_taken, false, segments_recorded);
        if (!s->waiting)
                segments_send(s);
}
