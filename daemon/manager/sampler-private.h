/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "manager/realtime.h"
#include "manager/sampler.h"
#include "runtime/cpython-code.h"
#include "unwind/unwind.h"
#include "util/hash.h"
#include "util/list.h"

/*
 * The sampler's inside. sampler.c: thread, commands, events; sampler-target.c: when and how a
 * thread is captured; sampler-process.c: maps, unwinding, parked copies. All of it runs in the
 * sampler's thread.
 */

/* Deeper than any real stack: 64 KiB of stack hold fewer frames. */
#define SAMPLER_MAX_FRAMES 16384

typedef struct Target Target;
typedef struct Process Process;

/* Samples of a stack that was announced, each due a period after the one before, that are to be
 * announced together. */
typedef struct TargetRun {
        unsigned n;
        uint64_t mono_ns;       /* when the first one was due */
        int64_t wall_offset_ns; /* as it was then */
        ThreadTimes times;      /* at the last one */
} TargetRun;

typedef struct SampleTime {
        uint64_t mono_ns;         /* as reported */
        uint64_t capture_mono_ns; /* when it was true beyond doubt */
        ThreadTimes times;        /* the thread's then; zero: not known */
        ThreadState state;
} SampleTime;

/* An event that the mailbox had no room for. */
typedef struct EventNode {
        ListLink link;
        SamplerEvent event;
} EventNode;

typedef struct HeapNode {
        uint64_t wake_mono_ns; /* when to look at it again */
        Target *target;
} HeapNode;

struct Sampler {
        Worker *worker;
        Capture *capture;
        UnwindMode unwind_mode;
        size_t max_stack_bytes;
        bool blocked_on;   /* stacks say what the thread waits for */
        bool python_mixed; /* native frames between those of Python */

        pthread_t thread;
        bool has_thread;
        int stop_fd, epoll_fd;
        struct Mailbox *commands;
        struct Mailbox *events;
        ListLink backlog; /* EventNode: they have to arrive, and later events behind them */
        EventNode *spare; /* for the STACK of the next SAMPLE, so that no memory is needed once that
                             is out */
        atomic_uint n_targets;
        _Atomic uint64_t busy_since_mono_ns;
        bool may_realtime;
        Realtime realtime;
        RealtimeNeed realtime_need;
        atomic_bool needs_realtime;

        HashTable targets, processes;
        HeapNode *heap; /* earliest first */
        size_t n_heap, max_targets;
        Target **batch; /* scratch of one pull */
        CaptureThread **batch_threads;
        CaptureResult *batch_results;

        ListLink process_list;
        unsigned n_loads_unsent; /* processes whose request the worker had no room for */
        uint64_t last_ticket, last_stack_id;
        size_t n_parked, parked_bytes;
        Frame *frames, *merged; /* scratch: SAMPLER_MAX_FRAMES */
        int64_t wall_offset_ns; /* wall = mono + offset */
};

/* ---- sampler.c ---- */

/* A sample that names a stack id which main knows or will be told. Return: false: there was no
 * room, counted. */
bool sampler_emit_sample(Sampler *s, Target *t, const SampleTime *time, uint64_t stack_id);
/* One of the newest sample's stack that was taken on time: it waits for others, in t->run. */
void sampler_repeat_sample(Sampler *s, Target *t, const SampleTime *time);
/* Sends what waits. What follows of the target is sent after it. */
void sampler_flush_run(Sampler *s, Target *t);
/* Whether it has waited for long enough. */
bool sampler_run_is_due(const Target *t, uint64_t now_mono_ns);
/* What became of a stack id whose sample went out. Takes n frames of s->frames, whose modules are
 * of `map`; NULL: failed. `node` (or NULL: the spare one) is taken over. */
void sampler_emit_stack(Sampler *s, EventNode *node, TargetId target, uint64_t stack_id,
        ProcMap *map, CpythonCodes *codes, size_t n_frames);
void sampler_emit_times(Sampler *s, TargetId target, const CaptureResult *r);
/* `node` is taken over. */
void sampler_emit_gone(Sampler *s, EventNode *node, TargetId target);

/* ---- sampler-target.c ---- */

struct Target {
        /* What each sample of a sleeping thread needs comes first: its cache lines are cold by then. */
        Sampler *sampler;
        CaptureThread *thread; /* NULL: gone */
        size_t heap_index;     /* SIZE_MAX: in no heap */
        uint64_t first_mono_ns, period_ns;
        uint64_t due_mono_ns; /* the sample that is due next, or being taken */
        bool taking;          /* due, and counted as such */
        bool shot_out;
        bool other_asked;  /* for a copy of another stack, for this sample */
        bool python_asked; /* the same for the frames of Python */
        unsigned n_unstable;
        uint64_t
                waited_until_mono_ns; /* see CaptureResult; as the first pull for this sample told */
        uint64_t stack_id;            /* of its newest sample, 0: none yet */
        TargetRun run;                /* the newest ones, not yet sent */
        SampleTime sample;            /* its newest one */

        TargetId id;
        HashLink by_id;
        Process *process;
        ListLink process_link;
        EventNode *gone_node;
        bool blocked_on; /* its stacks say what it waits for */
        bool end_moves;  /* the stack does not always end where it did */
        /* That stack, if it was unwound in full, for comparing. */
        ProcMap *stack_map;
        size_t n_pcs;
        uint64_t *pcs;
};

/* Announces a thread that cannot be followed as gone. Return: 0, -ENOMEM. */
int target_new(Sampler *s, TargetId id, const TargetSpec *spec, uint64_t now_mono_ns);
Target *target_free(Target *t);
Target *target_find(Sampler *s, TargetId id);
/* Captures all that are due by now. */
void targets_serve(Sampler *s, uint64_t now_mono_ns);
/* Takes the shots that were answered. */
void targets_collect(Sampler *s);
/* When targets_serve is needed next. UINT64_MAX: never. */
uint64_t targets_next_mono_ns(const Sampler *s);
/* Copies are as large as they may be while the process has no map, since they cannot be taken anew
 * when that is there; else small at first, and grow. */
void target_size(Target *t);
/* Has captures bring what unwinding needs with such a map. */
void target_set_map(Target *t, const ProcMap *map);
/* From now on copies are larger, if they may be. Return: whether. */
bool target_grow(Target *t, uint64_t need_bytes);
/*
 * Waits begin and end between the times at which samples are due. Where that is known, one more
 * sample as of then, between the newest one and the next one, gives the wait its full time: the
 * backend takes it from the first and the last sample of a stack. Return: whether one was sent.
 */
bool target_add_edge(Target *t, uint64_t mono_ns, uint64_t next_mono_ns, uint64_t stack_id);
/* Its last sample has been taken: the wait that was met then may be over, and the thread's
 * counters tell the rest. */
void target_finish(Target *t);
void target_forget_stack(Target *t);
/* Remembers the n first of s->frames as the newest stack of the target; without memory it is just
 * not compared. */
void target_set_stack(Target *t, ProcMap *map, size_t n_frames);
bool target_has_stack(const Target *t, const ProcMap *map, size_t n_frames);

/* ---- sampler-process.c ---- */

struct Process {
        Sampler *sampler;
        pid_t pid;
        HashLink by_pid;
        ListLink link;
        ListLink targets;
        ListLink parked;
        ProcMap *map;                  /* NULL: none yet */
        CaptureSpace map_space, space; /* when it was asked for; at the newest capture */
        CaptureSpace load_space;
        uint64_t map_mono_ns, load_mono_ns; /* when they were asked for */
        uint64_t load_ticket;               /* in flight, 0: none */
        bool load_full;                     /* that one reads all */
        bool load_wanted, load_wanted_full; /* one more */
        bool load_unsent;                   /* counted in n_loads_unsent */
        uint64_t unused_since_mono_ns;
        const struct CpythonBinary *python; /* of a module of `map`; NULL: it runs no Python */
        uint64_t python_interpreters;
        ModulePython early_python; /* before there is a map; interpreters 0: not known */
        CpythonCodes *codes;       /* with python */
        CaptureSpace codes_space;
};

/* The entry of that process, made if need be. NULL: no memory. */
Process *process_get(Sampler *s, pid_t pid);
/* Threads of it may be targets soon. */
void process_prepare(Sampler *s, pid_t pid, uint64_t now_mono_ns);
/* The target is added or taken out; an entry without targets is kept for some time. */
void process_add_target(Process *p, Target *t);
void process_remove_target(Process *p, Target *t, uint64_t now_mono_ns);
void processes_expire(Sampler *s, uint64_t now_mono_ns);
void processes_free(Sampler *s);

/* Asks for a map that is read after this call, `full`: without lazy tables. Return: the least ticket
 * that its answer can have. */
uint64_t process_want_map(Process *p, bool full);
/* Sends requests that had to wait. */
void processes_send_loads(Sampler *s);
/* The worker's answer; takes the reference over. */
void process_take_map(Sampler *s, const WorkerMap *answer);
typedef enum SampleFate {
        SAMPLE_DONE,   /* announced, its stack too or on its way */
        SAMPLE_LOST,   /* counted */
        SAMPLE_LARGER, /* the copy was too small; copies are larger now: pull again */
} SampleFate;

/* A capture of status TAKEN, to be announced as of `time`. */
SampleFate process_take_sample(
        Process *p, Target *t, const CaptureResult *result, const SampleTime *time);

/* ---- sampler-python.c ---- */

/* The map is another one: looks for an interpreter, and tells the captures of its targets. */
void process_find_python(Process *p);
/* It will have that one, when its map is there. */
void process_expect_python(Process *p, const ModulePython *python);
/* What captures of the target have to know of the process' interpreter. */
void target_set_python(Target *t);
/* Replaces the interpreter's native frames by those of Python's functions. Of s->frames the first
 * n_inner are none of the program. */
void process_add_python(Process *p, const CaptureResult *c, size_t n_inner, UnwindResult *u);
