/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/config.h"
#include "core/stack.h"
#include "util/cleanup.h"
#include "util/hash.h"
#include "util/list.h"
#include "util/time.h"

/*
 * Instances, tasks and segments: which thread is sampled when, and which sample becomes which
 * snapshot. Pure logic: no I/O, no clock; every entry takes Now, and what is to be done outside
 * goes through CoreOps. Main thread only.
 *
 *   Instance  a (service, instance) of the OAP's world, alive while at least one client is attached
 *             or one of its tasks is not yet reported finished; one that has had tasks is
 *             remembered for an hour more, lest they are carried out twice
 *   Task      a profile task of one instance: WAITING → RUNNING → ENDING → (gone). The end is
 *             StartTime + Duration on the wall clock, whatever happened in between; each step looks
 *             at the wall clock anew
 *   Segment   a request on one thread, announced by a client: PENDING until it has lasted longer
 *             than the threshold (strictly) and a slot is free, then PROFILING; STOPPED while its
 *             last samples settle
 *   Target    what the sampler samples: one thread for one stretch of time of one segment
 *
 * A sample waits, held by its segment, until (a) the segment is PROFILING or was when it stopped,
 * (b) its stack is READY or FAILED, and those of all earlier ones, and (c) `profile.settle_ms` have
 * passed since it was taken and since the segment became PROFILING, or the span's stop has come:
 * clients' events may be late, and neither a sample taken after the stop nor one of a span below
 * the threshold may be delivered. Only then it gets its sequence number and goes to ops->snapshot.
 *
 * A segment may stop being sampled before its span ends: its task is over, its thread is gone, it
 * was cut at `profile.max_duration`, the sink is full. If it has delivered snapshots it stays
 * known, without target and slot, until the span's stop, so that segment_done has the true end; at
 * most 10 minutes.
 */

typedef struct Core Core;
typedef struct Instance Instance;
typedef struct Task Task;
typedef struct Segment Segment;
typedef struct TaskSource TaskSource;

/* Identifies one stretch of sampling; never reused. 0 is none. */
typedef uint64_t TargetId;

typedef struct TargetSpec {
        pid_t pid; /* thread group, as the daemon's pid namespace sees it */
        pid_t tid;
        uint64_t first_mono_ns; /* due times: now, and first + k·period from now on (k may be
                                   negative) */
        uint64_t period_ns;
        bool say_waits; /* stacks say what the thread waits for, whatever stacks.blocked_on says */
        bool goes_on;   /* not now: a segment that comes back all the time has samples no more often
                         for that */
} TargetSpec;

/* Of a thread when it was sampled. */
typedef enum ThreadState {
        THREAD_RUNNING,
        THREAD_RUNNABLE, /* in want of a CPU */
        THREAD_BLOCKED,
} ThreadState;

/* One snapshot for the backend. Everything is borrowed for the call. */
typedef struct Snapshot {
        const TaskSource *source; /* of its task */
        const char *service;
        const char *instance;
        const char *task_id;
        const char *segment_id;
        int64_t time_wall_ms;
        int32_t sequence;
        Stack *stack; /* READY */
        ThreadState state;
        int64_t start_wall_ms; /* of its segment */
        pid_t pid, tid;        /* that carried the segment first; tid 0: none did */
        uid_t uid;             /* who may see it, beside root; -1: nobody */
} Snapshot;

/* Where the time of a segment's thread went while it was sampled, by the scheduler's own
 * counters. */
typedef struct SpanTimes {
        uint64_t on_cpu_ns;
        uint64_t run_queue_ns; /* in want of a CPU */
        uint64_t blocked_ns;   /* all else */
} SpanTimes;

/* Samples of a segment that were taken, and not delivered. */
typedef struct SpanLosses {
        uint64_t no_stack;  /* the stack did not reach its root */
        uint64_t over;      /* too many were held */
        uint64_t not_taken; /* the backend took no more */
} SpanLosses;

/* A profiled segment that is over; for the minimal trace segment of clients without an agent
 * (architecture: report_segments). */
typedef struct SpanTag {
        char *key, *value;
} SpanTag;

typedef struct SegmentReport {
        const TaskSource *source;
        const char *task_id;
        const char *service;
        const char *instance;
        const char *trace_id; /* may be empty: make one */
        const char *segment_id;
        const char *operation;
        int64_t start_wall_ms;
        int64_t end_wall_ms;
        bool error;
        int32_t n_snapshots;
        SpanTimes times;
        SpanLosses losses;
        const char
                *parent_segment_id; /* of a continued segment (same trace, cross-thread), or NULL */
        const char *parent_operation;
        const char *sw8; /* the header by which it came from another process, or NULL */
        const SpanTag *tags;
        size_t n_tags;
} SegmentReport;

/* What core asks of the others. They may read what core shows, but not call functions that change
 * it. */
typedef struct CoreOps {
        /* Begin and end of sampling a thread. Samples taken before target_remove may still arrive
         * after it: core takes them for as long as the segment settles. */
        void (*target_add)(void *userdata, TargetId id, const TargetSpec *spec);
        void (*target_remove)(void *userdata, TargetId id);
        /* The operations under a live task of the instance have changed. */
        void (*watch_changed)(void *userdata, Instance *instance);
        /* A task was accepted for the instance: time to read its processes' binaries. */
        void (*prepare)(void *userdata, Instance *instance);
        /* In order, contiguous sequences per (task, segment). Return: true admitted, false: not
         * taken (full; the sink has counted it), core then gives the segment no further numbers
         * (whole tail). */
        bool (*snapshot)(void *userdata, const Snapshot *snapshot);
        /* The first snapshot of a segment was taken, or one that a former daemon has left is gone on
         * with: what is known of it by now, for a trace segment, should its end never be told. */
        void (*segment_began)(void *userdata, const SegmentReport *report, bool report_wanted);
        /* The last snapshot of a segment has been given to `snapshot` and its span is over; not
         * called for a segment that delivered none. */
        void (*segment_done)(void *userdata, const SegmentReport *report, bool report_wanted);
        /* The instance has a task more. What is not asked for again is to be kept over a restart. */
        void (*task_added)(void *userdata, const Task *task);
        /* last_command_wall_ms has grown, and the task that came with it was told of, if any. */
        void (*command_seen)(void *userdata, const Instance *instance);
        /* The task is over and its last snapshot has been handed out; called once. */
        void (*task_finished)(void *userdata, const TaskSource *source, const char *service,
                const char *instance, const char *task_id);
} CoreOps;

/* A profile task as the backend says it; strings borrowed. Values are not yet validated. */
typedef struct TaskCommand {
        const TaskSource *source; /* where it comes from; NULL: its snapshots have nowhere to go */
        const char *task_id;
        const char *endpoint;
        int64_t duration_min;
        int64_t threshold_ms;
        int64_t period_ms;
        int64_t max_sampling_count;
        int64_t start_wall_ms;
        int64_t create_wall_ms;
} TaskCommand;

enum {
        _CORE_E_SUCCESS,
        CORE_E_DUPLICATE, /* task or segment id already known */
        CORE_E_INVALID,   /* values out of the protocol's bounds; logged and counted */
        CORE_E_OVERLAP,   /* another task of this instance runs in that time; logged and counted */
        CORE_E_OVER,      /* the task is over already: reported finished once */
        CORE_E_UNWATCHED, /* no task wants this operation: not followed */
        CORE_E_LIMIT,     /* a quota is used up; counted */
        CORE_E_UNKNOWN,   /* no such segment; counted */
};

/* `config` is borrowed and may be replaced by core_set_config. Return: 0, -ENOMEM. */
int core_new(Core **ret, const Config *config, const CoreOps *ops, void *userdata);
Core *core_free(Core *c);
DEFINE_CLEANUP(Core *, core_free)
void core_set_config(Core *c, const Config *config);

/* ---- instances ---- */

/* One more client of that instance. `agent`: an agent reports the trace segments (any client's yes
 * holds). Return: 0, -ENOMEM. */
int core_instance_attach(
        Core *c, Instance **ret, const char *service, const char *instance, bool agent, Now now);
/* One client less. Its segments must be gone (core_client_gone). With the last one the instance's
 * tasks go on to their end. */
void core_instance_detach(Core *c, Instance *i, Now now);

struct Instance {
        Core *core;
        HashLink by_name;
        ListLink link; /* core's instances */
        char *service, *name;
        bool agent;
        unsigned n_clients;
        ListLink tasks;    /* Task.link */
        ListLink segments; /* Segment.instance_link */
        unsigned n_segments;
        int64_t last_command_wall_ms; /* greatest CreateTime seen, -1 at first: lastCommandTime of
                                         the next poll */
        char **seen_tasks;            /* ids of tasks that are over, the last 256, oldest first */
        size_t n_seen_tasks;
        uint64_t idle_mono_ns; /* since when it has no clients */
        unsigned n_watch;      /* the watch list: distinct endpoints of tasks that wait or run */
        const char **watch;    /* borrowed from the tasks, valid until the next call into core */
        bool watch_dirty;      /* watch_changed is to be called */
        void *userdata;        /* the poller's */
};

/* Iteration: for (i = core_instance_first(c); i; i = core_instance_next(c, i)). */
Instance *core_instance_first(Core *c);
Instance *core_instance_next(Core *c, Instance *i);

/* ---- tasks ---- */

/* Takes note of CreateTime in any case. CORE_E_LIMIT: more tasks than an instance may have. Return:
 * 0, CORE_E_DUPLICATE/INVALID/OVERLAP/OVER/LIMIT, -ENOMEM. */
int core_task_add(Core *c, Instance *i, const TaskCommand *command, Now now);

/* Ends it now, on each instance that has it, with what it has. Return: 0, CORE_E_UNKNOWN. */
int core_task_stop(Core *c, const char *task_id, Now now);

/* What is wrong with the values of a task, or NULL. */
const char *core_task_check(const TaskCommand *command, Now now);

enum {
        TASK_SAMPLING_COUNT_MAX = 9, /* the protocol's bound of maxSamplingCount */
};

/* A segment that has delivered to a task. */
typedef struct Delivered {
        uint64_t hash;       /* of its id */
        bool continues;      /* it may be announced again, once: see core_restore_segment() */
        int32_t n_snapshots; /* the rest is of one that continues */
        int64_t first_wall_ms, last_wall_ms;
} Delivered;

typedef enum TaskState {
        TASK_WAITING,
        TASK_RUNNING,
        TASK_ENDING, /* over; last samples settle */
} TaskState;

struct Task {
        Instance *instance;
        ListLink link; /* instance's */
        TaskState state;
        const TaskSource *source;
        char *id, *endpoint;
        uint32_t threshold_ms, period_ms, max_sampling_count;
        int64_t start_wall_ms, end_wall_ms;
        uint64_t start_mono_ns,
                end_mono_ns;  /* of a RUNNING one, as the clocks stood when it began to run */
        unsigned n_delivered; /* segments (and continued ones) that delivered a first snapshot */
        unsigned n_slots;     /* first segments PROFILING now */
        unsigned n_reserved;  /* PROFILING or STOPPED segments that may still deliver their first */
        unsigned n_pending;
        uint64_t n_matched;
        ListLink segments; /* Segment.task_link: those that may still deliver */
        ListLink queue;    /* Segment.queue_link: PENDING ones beyond the threshold that wait for a
                              slot or a count */
        Delivered delivered[TASK_SAMPLING_COUNT_MAX];
};

/* ---- what a former daemon knew: before the first client, and in this order ---- */

/* Return: 0, -ENOMEM. */
int core_restore_instance(Core *c, Instance **ret, const char *service, const char *instance,
        int64_t last_command_wall_ms, Now now);
/* A task that was not over. It may be by now: then it is reported finished at the next step.
 * Return: 0, CORE_E_INVALID/DUPLICATE/LIMIT, -ENOMEM. */
int core_restore_task(Core *c, Instance *i, const TaskCommand *command, Now now);
/* One that was reported finished, or is going to be. Return: 0, -ENOMEM. */
int core_restore_finished(Core *c, Instance *i, const char *task_id);

/*
 * A segment that has delivered to a task. It counts; and if it `continues`, its client may announce
 * it once more, as it does after it lost its connection: then the snapshots go on. Else the span
 * would have to begin again at 0, and is not followed. Return: 0, CORE_E_UNKNOWN: no such task.
 */
typedef struct RestoredSegment {
        const char *task_id, *segment_id;
        bool continues;
        int32_t n_snapshots;
        int64_t first_wall_ms, last_wall_ms; /* of these */
} RestoredSegment;
int core_restore_segment(Core *c, Instance *i, const RestoredSegment *segment);

/* ---- span events; `client` tells clients apart, see core_client_gone ---- */

typedef struct SpanStartEvent {
        const char *segment_id, *operation, *trace_id;
        pid_t pid, tid; /* tid 0: on no thread for now */
        uid_t uid;      /* who may see what it did, beside root; -1: nobody */
        uint64_t start_mono_ns;
} SpanStartEvent;

/*
 * A span that matches a WAITING or RUNNING task of the instance is followed, from max(start, task's
 * start) on. DUPLICATE also if a segment of that id has delivered to the task before: a client that
 * connects anew announces its spans again, and their sequence would begin again at 0 (see
 * core_restore_segment() for those that go on). Return: 0, CORE_E_UNWATCHED/DUPLICATE/LIMIT,
 * -ENOMEM.
 */
int core_span_start(Core *c, Instance *i, uint64_t client, const SpanStartEvent *event, Now now);

/*
 * Another operation of a followed segment that is still PENDING: matched anew, counted from its
 * true start. One that no task wants any more is let go; PROFILING and continued ones stay. A
 * segment not followed: the client sends a start instead. Return: 0, CORE_E_UNKNOWN, -ENOMEM.
 */
int core_span_rename(
        Core *c, uint64_t client, const char *segment_id, const char *operation, Now now);

/* Samples at or after stop_mono_ns are dropped. Return: 0, CORE_E_UNKNOWN. */
int core_span_stop(Core *c, uint64_t client, const char *segment_id, uint64_t stop_mono_ns,
        bool error, Now now);

/*
 * A sub-segment of a followed segment of the same client: a further thread of the same request. Its
 * threshold counts from the first segment's start; it is profiled only if the first one is or was,
 * takes no slot, but counts as a sampled segment. Return: as core_span_start, CORE_E_UNKNOWN: no
 * such parent.
 */
int core_span_continue(
        Core *c, uint64_t client, const char *parent_id, const SpanStartEvent *event, Now now);

/*
 * The segment is on another thread, or on none (tid 0), since at_mono_ns. A READY `stack` at which
 * it left its thread may be given with tid 0: while it is on none, it has samples of that one, at
 * the due times and, of a wait that has any, as of its begin and its end. Return: 0,
 * CORE_E_UNKNOWN, -ENOMEM.
 */
int core_span_switch(Core *c, uint64_t client, const char *segment_id, pid_t tid, Stack *stack,
        uint64_t at_mono_ns, Now now);

/*
 * What its trace segment is to say, while the span is live: the header that names its parent, a tag
 * (a key may come again). Return: 0, CORE_E_UNKNOWN, CORE_E_LIMIT: it has 16 tags; -ENOMEM.
 */
int core_span_parent(Core *c, uint64_t client, const char *segment_id, const char *sw8);
int core_span_tag(
        Core *c, uint64_t client, const char *segment_id, const char *key, const char *value);

/* The connection is gone: all its segments stop now. */
void core_client_gone(Core *c, uint64_t client, Now now);

/* Number of segments of the client that are followed. */
unsigned core_client_segments(Core *c, uint64_t client);

typedef enum SegmentState {
        SEGMENT_PENDING,
        SEGMENT_PROFILING,
        SEGMENT_STOPPED,
} SegmentState;

/* What `slots` of the status shows: called for each followed segment that may still deliver. */
typedef struct SegmentInfo {
        const char *task_id, *segment_id;
        pid_t pid, tid;
        SegmentState state;
        uint64_t age_ms, captured, sent;
        SpanTimes times; /* until the newest sample */
} SegmentInfo;
void core_segments(
        Core *c, Now now, void (*each)(void *userdata, const SegmentInfo *info), void *userdata);

/* Whose thread that target is. Return: whether it is known. */
bool core_target_thread(const Core *c, TargetId id, pid_t *ret_pid, pid_t *ret_tid);

/* ---- samples ---- */

/* A thread's own counters. */
typedef struct ThreadTimes {
        uint64_t runtime_ns;   /* on a CPU */
        uint64_t run_delay_ns; /* in want of one */
} ThreadTimes;

/* One sample, or several of one stack with the same time between them, as those of a thread that
 * sleeps. */
typedef struct SampleRun {
        uint64_t mono_ns; /* when the first one was taken */
        uint64_t wall_ns; /* as reported */
        uint64_t period_ns;
        uint32_t n;
        ThreadState state;
        Stack *stack;
} SampleRun;

/*
 * Samples of that target, at least one. The core takes its own reference of the stack, which may
 * still be PENDING; one that stays so for 30 s counts as FAILED. `times`: of its thread at the last
 * one, or zero. Unknown targets are ignored and counted.
 */
void core_samples(Core *c, TargetId id, const SampleRun *run, ThreadTimes times, Now now);

/* The times of the target's thread at mono_ns, without a sample. */
void core_thread_times(Core *c, TargetId id, uint64_t mono_ns, ThreadTimes times);

/* The thread of the target has ended: its segment stops (its slot is free). */
void core_target_gone(Core *c, TargetId id, Now now);

/* ---- time ---- */

/* Does what is due: thresholds, settled samples, task starts and ends. Call after stacks became
 * READY, too. */
void core_step(Core *c, Now now);
/* When core_step is needed next; UINT64_MAX: never. At most 1 s away while a task is listed (the
 * wall clock may step). */
uint64_t core_next_mono_ns(Core *c, Now now);

/* Ends everything at once, for shutdown: live segments stop now, settled or not what was taken
 * before `now` is handed out as far as stacks are READY. Tasks are not reported finished: they are
 * not over. */
void core_flush(Core *c, Now now);
