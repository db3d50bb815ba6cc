/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "oap/buffer.h"
#include "util/hash.h"
#include "util/list.h"

/* What buffer.c (memory, batches) and buffer-keep.c (disk) share. */

typedef struct BufferSegment {
        ListLink link; /* Buffer.segments, or retired */
        HashLink by_id, by_name;
        uint64_t id;
        char *service, *instance, *task_id, *segment_id;
        int32_t next_sequence; /* behind those of the batch */
        int32_t used_sequence; /* numbers before this one may be in use at the backend */
        size_t n_taken;        /* by the batch */
        ListLink entries;      /* Entry.segment_link: those in memory that were never on disk */
        size_t n_fresh;        /* of these, those that neither are taken nor go to the disk */
        size_t n_kept;         /* on disk, or on their way there */
        uint64_t left_id;      /* of the last one that left */
        int64_t first_wall_ms, last_wall_ms;
        bool recorded; /* has a record */
        bool dropped;  /* its snapshots on disk are gone, or are to go: it gets no more */
        bool done;
        bool left;   /* by a former daemon, and not heard of since */
        bool listed; /* while a record is made */
        RpcBytes report;
        RpcBytes draft; /* of that, while it lives */
} BufferSegment;

typedef struct Entry {
        ListLink link;         /* of one of the buffer's lists */
        ListLink segment_link; /* of no list if it was read from the disk */
        BufferSegment *segment;
        uint64_t id;
        Stack *stack;
        int64_t time_wall_ms;
        size_t size;
        bool kept;  /* read from the disk */
        bool fixed; /* may have been received under its number: not thinned */
        bool busy;  /* in the batch, or on its way to the disk: not thinned either */
} Entry;

struct Buffer {
        const Keep *keep;
        uint64_t last_id;
        HashTable segments_by_id, segments_by_name;
        ListLink segments;
        ListLink retired; /* BufferSegment.link: done and empty, with a report */

        ListLink fresh;   /* Entry.link: in order */
        ListLink read;    /* from the disk, first in order there */
        ListLink writing; /* on their way to the disk */
        ListLink taken;   /* the batch */
        bool taken_kept;  /* it is of those read */
        bool fresh_last;  /* the batch before was fresh */

        size_t n;       /* in memory */
        size_t n_kept;  /* all segments' */
        size_t n_fresh; /* of segments that have none on disk */
        size_t n_read, n_writing, n_taken, bytes;
        bool exhausted; /* thinning again is not worth the while */

        bool reading;
        uint64_t mark_id;      /* fresh ones up to this go to the disk next */
        uint64_t mark_mono_ns; /* when; 0: to be set */
        uint64_t read_retry_mono_ns;
        void (*reserved)(void *userdata);
        void *reserved_userdata;
};

BufferSegment *buffer_segment_new(Buffer *b, uint64_t id, const char *service, const char *instance,
        const char *task_id, const char *segment_id);
BufferSegment *buffer_segment_find(const Buffer *b, const char *service, const char *instance,
        const char *task_id, const char *segment_id);
/* It is done, and nobody will tell its end: what is known of it becomes its report. */
void buffer_segment_give_up(BufferSegment *s);
/* Lets it go if it is done and has nothing left to send. */
void buffer_segment_retire(Buffer *b, BufferSegment *s);
/* What is on disk of it has become more or less. */
void buffer_segment_set_kept(Buffer *b, BufferSegment *s, size_t n_kept);
/* Drops its fresh ones. Return: how many. */
size_t buffer_segment_drop(Buffer *b, BufferSegment *s);

void buffer_entry_free(Buffer *b, Entry *e);
/* It is one of those that can be sent, or not any more. */
void buffer_entry_set_fresh(Buffer *b, Entry *e, bool fresh);
/* Memory that a snapshot takes when it is encoded. */
size_t buffer_snapshot_size(const char *task_id, const char *segment_id, const Stack *stack);

/* ---- buffer-keep.c ---- */

/* Puts the segment on record as it is now. */
void buffer_record_segment(Buffer *b, BufferSegment *s);
/* What became of the batch, whose entries are still there; `removed`: they are not on disk any more. */
void buffer_record_batch(Buffer *b, bool removed);
/* All that is in memory, without waiting for the answer. */
void buffer_keep_all(Buffer *b);
