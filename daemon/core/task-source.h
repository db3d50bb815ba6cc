/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"

/*
 * A backend, as the manager sees it: where tasks come from, and where that goes which they yield.
 * There may be several: each task names its own (TaskCommand.source), and its snapshots, segments
 * and end go there, and nowhere else.
 *
 * All calls come from the main thread, and none of them waits for a disk or for a network. Functions
 * that a source has no use for are NULL.
 */
struct TaskSource {
        const char *name; /* "oap", "local" */
        void *userdata;
        /* It knows after a restart what it had asked for: its tasks need no record but its own. */
        bool remembers;

        /* An instance came, or went, that may have tasks: of that moment, it has one client. */
        void (*instance_added)(void *userdata, Instance *i, Now now);
        void (*instance_removed)(void *userdata, Instance *i);

        /* As those of CoreOps, of its own tasks. `trace_wanted`: the trace segment of it, too. */
        bool (*snapshot)(void *userdata, const Snapshot *snapshot);
        void (*segment_began)(void *userdata, const SegmentReport *report, bool trace_wanted);
        void (*segment_done)(void *userdata, const SegmentReport *report, bool trace_wanted);
        void (*task_finished)(
                void *userdata, const char *service, const char *instance, const char *task_id);

        /* Does what is due, which next_mono_ns tells of; UINT64_MAX: nothing. */
        void (*step)(void *userdata, Now now);
        uint64_t (*next_mono_ns)(const void *userdata, Now now);
        /* At the end: all that there is leaves at once. */
        void (*flush)(void *userdata, Now now);
        /* Nothing is left, nothing under way. */
        bool (*idle)(const void *userdata);
};
