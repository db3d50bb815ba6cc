/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"
#include "core/keep.h"
#include "core/task-source.h"
#include "util/cleanup.h"
#include "util/time.h"

/*
 * The daemon's dealings with the OAP: polls tasks for each attached instance, buffers and streams
 * snapshots, reports segments and finished tasks, with deadlines and full-jitter back-off. Main
 * thread. Logs state changes.
 *
 * Buffer: snapshots in order, bounded by oap.buffer_bytes of encoded size, and more on disk, see
 * buffer.h. When it is full, interior samples of runs of identical stacks of queued, not yet streamed snapshots are
 * dropped; if that frees too little, session_snapshot refuses (the core then drops the segment's
 * tail). The sequence numbers on the wire are given at streaming time, contiguous from 0 for each
 * (task, segment); the core's are contiguous, too, and not sent.
 *
 * Streams: at most one collectSnapshot stream at a time, ≤ batch_snapshots, every ≤
 * batch_interval_ms. One that failed before a message left, or that the backend refused for want of
 * a token, is sent again later; one that failed after is ambiguous: counted, and sent again only if
 * oap.redelivery is at-least-once. After a failed stream the next one is empty, and the snapshots follow when that was taken: an
 * outage costs at most one batch.
 *
 * Segments: sent after the last snapshot of that segment has left; at most once, too.
 *
 * Finish: sent when the last stream with a snapshot of that task was closed, repeated until OK
 * (bounded by 1 h).
 */

typedef struct Session Session;

/*
 * `core` is told the tasks; `random` gives 32 random bits (tests: a fixed sequence). `config` is
 * borrowed and names a server. `keep`: borrowed; NULL: nothing outlives the session.
 *
 * Return: 0; SESSION_E_INVALID: it names files that do not do, logged; -errno.
 */
enum {
        _SESSION_E_SUCCESS,
        SESSION_E_INVALID,
};
int session_new(Session **ret, const Config *config, Core *core, const Keep *keep,
        uint32_t (*random)(void));
Session *session_free(Session *s);
DEFINE_CLEANUP(Session *, session_free)
/* Whether the files that it names do; which do not is logged. Return: 0, SESSION_E_INVALID, -ENOMEM.
 */
int session_check_config(const Config *config);
/* Names a server, too. What is under way to another one ends there. */
void session_set_config(Session *s, const Config *config, Now now);

/* What a former daemon has left, before anything else. See buffer_restore(). Return: 0, -ENOMEM. */
int session_restore_segment(Session *s, const KeptSegment *segment, size_t n_snapshots,
        bool task_lives, bool *ret_continues);

/* It as a backend among others; as long as it lives. */
const TaskSource *session_source(const Session *s);

int session_fd(const Session *s); /* readable: call session_dispatch */
void session_dispatch(Session *s, Now now);
/* When session_step is needed; UINT64_MAX: never. */
uint64_t session_next_mono_ns(const Session *s);
void session_step(Session *s, Now now);

/* From CoreOps. */
bool session_snapshot(Session *s, const Snapshot *snapshot);
/* A segment whose trace segment is to be reported: what is said of it if its end is never told,
 * since this daemon and then its client end before that. */
void session_segment_began(Session *s, const SegmentReport *report);
/* The end of a segment whose trace segment is to be reported; its last snapshot was given. */
void session_segment_done(Session *s, const SegmentReport *report);
/* The same of one whose trace segment is not to be reported, or not any more. */
void session_segment_unwanted(Session *s, const SegmentReport *report);
/* The last snapshot of the task was given. */
void session_task_finished(
        Session *s, const char *service, const char *instance, const char *task_id);
/*
 * An instance came: its first poll is due now (spread over the interval when many come at once). It
 * is polled while it has clients. Its userdata is the session's until session_instance_removed, to
 * be called before it is freed.
 */
void session_instance_added(Session *s, Instance *i, Now now);
void session_instance_removed(Session *s, Instance *i);

/* Sends what is buffered without waiting for the batch interval, nor for the end of a back-off. */
void session_flush(Session *s, Now now);
bool session_idle(const Session *s); /* nothing buffered, nothing in flight but polls */

typedef struct SessionStatus {
        const char *server;
        const char *state; /* "connecting", "ready", "failing", "unsupported" */
        const char *error; /* of the last call that failed, also when it is over; empty: none */
        uint64_t last_success_mono_ns; /* 0: none yet */
        uint64_t n_buffered;           /* in memory and on disk */
        uint64_t n_kept;               /* of these, on disk */
} SessionStatus;
SessionStatus session_status(const Session *s);
