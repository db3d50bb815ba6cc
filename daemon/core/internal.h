/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/core.h"
#include "core/counter.h"
#include "core/held.h"
#include "util/log.h"

/*
 * What the files of core share. Who may free what: a segment is freed by segment_close() alone, and
 * that frees no other one; segment_step() may free the segment itself and any PENDING one of its
 * task. Loops over segments are written so that this does not hurt them.
 */

/* Of tasks that an instance has at a time, and of those over that it remembers. */
#define INSTANCE_TASKS_MAX 64
#define INSTANCE_SEEN_MAX  256

/* An instance without clients and tasks is remembered so long for the tasks that it had, unless
 * there are too many. */
#define INSTANCE_REMEMBER_NS (3600 * NS_PER_S)
#define INSTANCES_MAX        4096

/* Former targets of a segment whose late samples are still taken. */
#define SEGMENT_TARGETS_MAX 64

/* One that nothing promises to name in time is as good as lost. */
#define STACK_WAIT_NS (30 * NS_PER_S)

/* Deliveries of all segments happen together at multiples of this. */
#define DELIVERY_GRID_NS (20 * NS_PER_MS)

/* A segment that is not sampled any more waits so long for its span's stop. */
#define SPAN_END_WAIT_NS (600 * NS_PER_S)

/* A stretch of sampling, kept after its end for samples under way. */
typedef struct Target {
        HashLink by_id;
        ListLink link; /* Segment.targets */
        TargetId id;
        Segment *segment;
        pid_t tid;
        uint64_t from_mono_ns,
                end_mono_ns;    /* samples from `from` to before `end` are the segment's */
        uint64_t times_mono_ns; /* 0: none yet */
        ThreadTimes times;      /* its thread's newest ones */
} Target;

/* The stack of a segment that waits on no thread. */
typedef struct Parked {
        Stack *stack;          /* NULL: it is on a thread, or its stack is not known */
        uint64_t from_mono_ns; /* since when; at NULL: when it was so last */
        uint64_t due_mono_ns;  /* of the next sample; UINT64_MAX: its task does not run yet */
        uint64_t last_mono_ns; /* of the newest sample, 0: none yet */
        int64_t wall_offset_ns;
} Parked;

/* The segments of one client, while it has any. */
typedef struct Client {
        HashLink by_id;
        uint64_t id;
        ListLink segments; /* Segment.client_link */
        unsigned n_segments;
} Client;

/* A first segment and those continued from it: what they share, alive while one of them is. */
typedef struct Request {
        unsigned n_refs;
        Segment *first;         /* NULL: is gone */
        uint64_t begin_mono_ns; /* from here the threshold counts */
        bool profiled;          /* the first segment is or was PROFILING */
        bool abandoned;         /* it never will be: its continued segments are let go */
        CounterId cause;        /* why */
        unsigned n_subs;        /* continued segments that are not STOPPED */
        ListLink segments;      /* Segment.request_link */
} Request;

struct Core {
        const Config *config;
        const CoreOps *ops;
        void *userdata;
        HashTable instances_by_name, segments_by_id, clients, targets;
        ListLink instances;
        ListLink blocked; /* Segment.blocked_link: the next sample waits for its stack */
        Segment **heap;   /* all segments, the one that is due first at the top */
        size_t n_heap, heap_size;
        TargetId last_target;
        bool flushing;
        LogLimit log_rejected;
};

/* What the client says for the trace segment only. */
typedef struct TraceDetails {
        char *sw8; /* NULL: none */
        SpanTag *tags;
        size_t n_tags;
} TraceDetails;

struct Segment {
        Core *core;
        Instance *instance;
        Task *task; /* NULL: has delivered its last snapshot, waits for its span's stop */
        const TaskSource *source; /* of the task, also when that is over */
        Client *client;           /* NULL: is gone */
        Request *request;
        HashLink by_id;
        ListLink instance_link, task_link, client_link, request_link;
        ListLink queue_link;   /* in Task.queue */
        ListLink blocked_link; /* in Core.blocked */
        size_t heap_index;
        uint64_t due_mono_ns;

        SegmentState state;
        bool sub;       /* continued from another one */
        bool reserved;  /* counted in Task.n_reserved */
        bool stop_seen; /* no event can move the span's end any more */
        bool over;      /* the span has ended, as far as is known */
        bool refused;   /* the sink did not take a snapshot */
        bool error;
        uint64_t start_mono_ns;
        int64_t start_wall_ms;
        uint64_t end_mono_ns;      /* of an `over` span */
        uint64_t cut_mono_ns;      /* samples from here on are not wanted; UINT64_MAX at first */
        uint64_t promoted_mono_ns; /* when it became PROFILING */
        uint64_t halted_mono_ns;   /* when it became STOPPED */

        pid_t pid, tid, first_tid;
        uid_t uid;
        uint64_t n_switches;
        Target *target;   /* being sampled */
        ListLink targets; /* Target.link, oldest first */
        unsigned n_targets;

        Parked parked;
        Held held;
        int64_t wall_ns, on_cpu_ns, run_queue_ns; /* see segment_times() */
        uint64_t n_captured;
        SpanLosses losses;
        int32_t sequence;                    /* of the next snapshot; > 0: it is counted */
        int64_t first_wall_ms, last_wall_ms; /* of its snapshots */

        char *id, *operation, *trace_id, *task_id;
        char *parent_id, *parent_operation; /* of a continued one */
        TraceDetails details;
};

/* ---- span.c ---- */

void trace_details_deinit(TraceDetails *d);

/* ---- schedule.c: the heap of due times ---- */

/* Makes room for one more segment. Return: 0, -ENOMEM. */
int schedule_reserve(Core *c);
void schedule_add(Core *c, Segment *s);
void schedule_remove(Core *c, Segment *s);
void schedule_set(Core *c, Segment *s, uint64_t due_mono_ns);

/* ---- instance.c ---- */

/* Makes the watch list anew; watch_changed follows with instance_notify(). */
void instance_update_watch(Instance *i);
void instance_notify(Instance *i);
bool instance_seen(const Instance *i, const char *task_id);
/* Takes the malloc'ed id. */
void instance_remember(Instance *i, char *task_id);
/* Frees it if nothing needs it any more. */
void instance_release(Instance *i, Now now);
/* When it is forgotten; UINT64_MAX: not for now. */
uint64_t instance_release_due(const Instance *i);
/* The one of that name, made if there is none. NULL: no memory. */
Instance *instance_get(Core *c, const char *service, const char *name, Now now);
Instance *instance_free(Instance *i);

/* ---- task.c ---- */

/* The task under which a span of that operation is followed, or NULL. */
Task *task_match(const Instance *i, const char *operation);
/* Whether the instance has as many as it may have. */
bool task_limit(const Instance *i);
/* The task of that id which is not over, or NULL. */
Task *task_find(const Instance *i, const char *id);
/* Lists a WAITING one. NULL: no memory. */
Task *task_new(Instance *i, const TaskCommand *command);
/* Starts and ends it, as the clocks say. */
void task_step(Task *task, Now now);
/* Reports it finished and frees it, if it is ENDING and all its segments are settled. */
void task_sweep(Task *task);
/* When task_step has something to do. */
uint64_t task_due(const Task *task, Now now);
/* Profiles what waits for a slot or a count, as far as there are any now. */
void task_offer(Task *task, Now now);
/* All segments that may be profiled at all are: PENDING ones are let go. */
void task_exhausted(Task *task, Now now);
Task *task_free(Task *task);

static inline bool task_has_count(const Task *task)
{
        return task->n_delivered + task->n_reserved < task->max_sampling_count;
}

static inline uint64_t task_threshold_ns(const Task *task)
{
        return task->threshold_ms * NS_PER_MS;
}

/* From here on the time of a segment counts whose task runs. */
static inline uint64_t segment_begin_mono_ns(const Segment *s)
{
        return s->start_mono_ns > s->task->start_mono_ns ? s->start_mono_ns
                                                         : s->task->start_mono_ns;
}

/* One that has delivered before is counted already. */
static inline bool segment_has_count(const Segment *s)
{
        return s->sequence > 0 || task_has_count(s->task);
}

/* ---- segment.c ---- */

/* Follows a span; the caller has seen to the quotas. `parent`: it continues that one. Return: 0,
 * -ENOMEM. */
int segment_new(Segment **ret, Task *task, uint64_t client, Segment *parent,
        const SpanStartEvent *event, Now now);
Segment *segment_find(const Core *c, const char *id);
Client *client_find(const Core *c, uint64_t id);
void segment_leave_client(Segment *s);

/* The one place that changes what tasks count of their segments. */
void segment_set_state(Segment *s, SegmentState state, bool reserved);

/* Its task has begun to run: sampling begins, and the threshold counts. Return: 0, -ENOMEM. */
int segment_begin(Segment *s, Now now);

/* Makes it PROFILING, or puts it in the queue. The caller knows that it is beyond the threshold. */
void segment_promote(Segment *s, Now now);

/* STOPPED: no target, no slot; what it holds settles. */
void segment_halt(Segment *s, Now now);

/* The span is over since stop_mono_ns. `seen`: the client said so; else it may still say better. */
void segment_stop(Segment *s, uint64_t stop_mono_ns, bool seen, Now now);

/* It has delivered, and lives. */
void segment_tell_began(const Segment *s);

/* Does what is due. */
void segment_step(Segment *s, Now now);
void segment_schedule(Segment *s, Now now);

/* Forgets it. `cause` is counted for a segment that has delivered nothing. */
void segment_close(Segment *s, CounterId cause, Now now);
/* Why a PENDING one that ends at end_mono_ns was not profiled; `fast` if it is not beyond the
 * threshold. */
CounterId segment_cause(const Segment *s, uint64_t end_mono_ns, CounterId fast);
/* Hands out what there is and forgets it. */
void segment_flush(Segment *s, Now now);
/* Without a word to anyone, at the core's end. */
void segment_free(Segment *s);

/* Whether it is to be sampled, wherever it is. */
static inline bool segment_wanted(const Segment *s)
{
        return s->task && s->task->state == TASK_RUNNING && s->state != SEGMENT_STOPPED &&
               !s->request->abandoned;
}

/* ---- parked.c ---- */

/* The segment, which is not parked, waits on no thread since at_mono_ns. Takes its own reference
 * of the READY stack. */
void segment_park(Segment *s, Stack *stack, uint64_t at_mono_ns, Now now);
/* Its task runs: a parked segment has samples from there on. */
void segment_begin_parked(Segment *s, uint64_t from_mono_ns);
/* Makes the samples that are due before until_mono_ns. */
void segment_fill_parked(Segment *s, uint64_t until_mono_ns);
/* It goes on, or is not wanted any more, since at_mono_ns. */
void segment_end_parked(Segment *s, uint64_t at_mono_ns);
/* The same, but nothing is to come of it. */
void segment_drop_parked(Segment *s);

/* ---- target.c ---- */

/* Begins, moves or ends the sampling of the thread that carries the segment now, which does so
 * since at_mono_ns. Return: 0, -ENOMEM: it is not sampled. */
int segment_update_target(Segment *s, uint64_t at_mono_ns);
/* The segment left its thread at at_mono_ns already: samples from there on are not its own, also if
 * it was not sampled any more when that became known. */
void segment_end_stretch(Segment *s, uint64_t at_mono_ns);
void segment_free_targets(Segment *s);
SpanTimes segment_times(const Segment *s);

/* ---- deliver.c ---- */

/* Takes samples in that cannot be decided on yet. */
void segment_hold(Segment *s, const SampleRun *run);

/* When the next held sample can be decided on; UINT64_MAX: there is none. */
uint64_t segment_delivery_due(const Segment *s);
/* Whether the next held sample waits for its stack. */
bool segment_blocked(const Segment *s);
/* Hands out what can be decided. */
void segment_deliver(Segment *s, Now now);
/* Drops held samples at or after mono_ns. */
void segment_cut_held(Segment *s, uint64_t mono_ns);
