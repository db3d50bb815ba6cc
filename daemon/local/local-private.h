/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "local/local.h"
#include "util/hash.h"
#include "util/list.h"

/* What local.c (tasks) and sink.c (what they yield) share. */

/* One that is not over. */
typedef struct LocalTask {
        ListLink link;
        ResultTask task;
        char id[RESULT_TASK_ID_SIZE];
        unsigned n_done; /* segments that are over */
} LocalTask;

/* A segment that may still get snapshots. */
typedef struct LocalSegment {
        HashLink by_name;
        ResultSegment segment;
        int64_t owner_wall_ms; /* when its owner was looked at */
} LocalSegment;

/* Batches on their way to be kept. */
typedef struct Sink {
        const Results *results;
        uint64_t last_id;
        HashTable segments;                  /* LocalSegment.by_name */
        ResultBatch *filling;                /* NULL: nothing */
        ResultBatch *waiting;                /* is to be handed over, or again */
        size_t n_under_way, under_way_bytes; /* of the batch that was handed over */
        bool under_way, failed;
        uint64_t due_mono_ns; /* of what is there; UINT64_MAX: to be set at the next step */
} Sink;

struct Local {
        TaskSource source;
        const Config *config;
        Core *core;
        ListLink tasks; /* LocalTask.link */
        uint64_t last_number;
        Sink sink;
};

void sink_init(Sink *s, const Results *results);
/* Hands over what it has, and forgets what cannot be. */
void sink_deinit(Sink *s);
bool sink_snapshot(Sink *s, const Snapshot *snapshot);
void sink_segment_done(Sink *s, const SegmentReport *report);
void sink_task(Sink *s, const ResultTask *task);
/* One that a former daemon has left. Return: 0, -ENOMEM. */
int sink_restore_segment(Sink *s, const ResultSegment *segment);
void sink_step(Sink *s, Now now);
/* When it has something to do; UINT64_MAX: never. */
uint64_t sink_next_mono_ns(const Sink *s);
/* Hands over what it has, unless something is under way. */
void sink_flush(Sink *s);
bool sink_idle(const Sink *s);
size_t sink_n_pending(const Sink *s);
