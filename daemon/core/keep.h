/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"

/*
 * What outlives the daemon, as those who have it (core, oap) and the one who keeps it (store) say
 * it to each other. All calls come from the main thread, and none of them waits for a disk: what is
 * handed over is copied (of stacks a reference is taken), and the answer comes later, on the main
 * thread too. Everything is done in the order in which it was handed over.
 */

/*
 * A segment of which snapshots got numbers, or are kept.
 *
 * Numbers before `next_sequence` are done with: the backend took the snapshots, or they are given
 * up. Those from there to `reserved_sequence` are in a stream that is under way: if the daemon is
 * killed now, nobody knows whether they arrived. They are reserved, and that is known to be on
 * record, before the first of them leaves.
 */
typedef struct KeptSegment {
        uint64_t id; /* the oap's, from keep->last_id on; never reused */
        const char *service, *instance, *task_id, *segment_id;
        int32_t next_sequence, reserved_sequence;
        uint64_t
                left_id; /* snapshots up to this id have left: where they are still on disk, for want
                             of a record of that, they are of no use */
        bool reserved_kept;                  /* the reserved ones are kept snapshots */
        int64_t first_wall_ms, last_wall_ms; /* of its snapshots */
        bool done;                           /* gets no more */
        const void *report;                  /* its trace segment, to be sent; NULL: none */
        size_t report_size;
} KeptSegment;

/* In order of their ids, those of one segment are in order of time. */
typedef struct KeptSnapshot {
        uint64_t id, segment;
        int64_t time_wall_ms;
        Stack *stack;
} KeptSnapshot;

/* Removed to make room: all kept snapshots of a segment. */
typedef struct KeptLoss {
        uint64_t segment;
        size_t n_snapshots;
} KeptLoss;

/* The trace segment of a segment that is on record. Without data: it is not to be sent any more. */
typedef struct KeptReport {
        uint64_t segment;
        const void *data;
        size_t size;
} KeptReport;

/* What is to be put on record, all or nothing. */
typedef struct KeepRecord {
        const KeptSegment *segments; /* as they are now */
        size_t n_segments;
        const KeptSnapshot *snapshots; /* to be kept */
        size_t n_snapshots;
        const KeptSnapshot *removed; /* to be kept no more; no stacks needed */
        size_t n_removed;
        uint64_t emptied; /* all snapshots of that segment, too; 0: none */
        const KeptReport *reports;
        size_t n_reports;
        uint64_t in_use; /* segments up to this id are not removed to make room */
} KeepRecord;

/* `failed`: nothing of it was put on record. */
typedef void (*KeepRecorded)(void *userdata, bool failed, const KeptLoss *losses, size_t n_losses);
/* The stacks are borrowed for the call; NULL for one that is damaged. `failed`: none can be read
 * now; none at all: there are none, or not any more. */
typedef void (*KeepLoaded)(
        void *userdata, bool failed, const KeptSnapshot *snapshots, size_t n_snapshots);

typedef struct Keep {
        void *userdata;
        uint64_t last_id; /* of a segment or snapshot, ever; counted on by the oap */
        /* Whether records are likely to succeed. While not, all stays in memory. */
        bool (*works)(void *userdata);
        /* `done` may be NULL, and is called just once otherwise. Return: 0, -ENOMEM or -EBUSY (too
         * much waits): then it is not called. */
        int (*record)(
                void *userdata, const KeepRecord *record, KeepRecorded done, void *done_userdata);
        /* The first n kept snapshots, by segment, then by id. Return: as record. */
        int (*load)(void *userdata, size_t n, KeepLoaded done, void *done_userdata);
        /* The backend knows that the task is over. */
        void (*task_reported)(
                void *userdata, const char *service, const char *instance, const char *task_id);
} Keep;
