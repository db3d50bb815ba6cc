/* SPDX-License-Identifier: Apache-2.0 */
#include "oap/source.h"

static void source_instance_added(void *userdata, Instance *i, Now now)
{
        session_instance_added(userdata, i, now);
}

static void source_instance_removed(void *userdata, Instance *i)
{
        session_instance_removed(userdata, i);
}

static bool source_snapshot(void *userdata, const Snapshot *snapshot)
{
        return session_snapshot(userdata, snapshot);
}

static void source_segment_began(void *userdata, const SegmentReport *report, bool trace_wanted)
{
        if (trace_wanted)
                session_segment_began(userdata, report);
}

static void source_segment_done(void *userdata, const SegmentReport *report, bool trace_wanted)
{
        if (trace_wanted)
                session_segment_done(userdata, report);
        else
                session_segment_unwanted(userdata, report);
}

static void source_task_finished(
        void *userdata, const char *service, const char *instance, const char *task_id)
{
        session_task_finished(userdata, service, instance, task_id);
}

static void source_step(void *userdata, Now now)
{
        session_step(userdata, now);
}

static uint64_t source_next_mono_ns(const void *userdata, Now now)
{
        return session_next_mono_ns(userdata);
}

static void source_flush(void *userdata, Now now)
{
        session_flush(userdata, now);
}

static bool source_idle(const void *userdata)
{
        return session_idle(userdata);
}

void session_source_init(TaskSource *ret, Session *s)
{
        *ret = (TaskSource){
                .name = "oap",
                .userdata = s,
                .instance_added = source_instance_added,
                .instance_removed = source_instance_removed,
                .snapshot = source_snapshot,
                .segment_began = source_segment_began,
                .segment_done = source_segment_done,
                .task_finished = source_task_finished,
                .step = source_step,
                .next_mono_ns = source_next_mono_ns,
                .flush = source_flush,
                .idle = source_idle,
        };
}
