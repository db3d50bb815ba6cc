/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/core.h"
#include "core/counter.h"
#include "util/log.h"

/* What of a task is accepted, and what is told about it; its life in time is in tests/sim. */

#define WALL_MS 1700000000000LL

static Config config = {
        .profile_max_parallel = 5,
        .profile_max_sub_parallel = 5,
        .profile_max_duration_ms = 600000,
        .profile_max_pending = 100,
        .profile_max_pending_samples = 100,
        .profile_settle_ms = 100,
        .limits_segments_per_client = 3,
};
static Core *core;
static Instance *instance;
static Now now = {.mono_ns = 1000 * NS_PER_S, .wall_ms = WALL_MS};
static unsigned n_finished, n_watch_changes, n_prepares, n_added, n_added_when_seen;
static int64_t seen_wall_ms;

static void on_target(void *userdata, TargetId id, const TargetSpec *spec)
{
}

static void on_target_remove(void *userdata, TargetId id)
{
}

static void on_watch_changed(void *userdata, Instance *i)
{
        n_watch_changes++;
}

static void on_prepare(void *userdata, Instance *i)
{
        n_prepares++;
}

static void on_task_finished(void *userdata, const TaskSource *source, const char *service,
        const char *name, const char *task_id)
{
        cr_assert_str_eq(service, "service");
        cr_assert_str_eq(name, "one");
        n_finished++;
}

static void on_task_added(void *userdata, const Task *task)
{
        n_added++;
}

static void on_command_seen(void *userdata, const Instance *i)
{
        seen_wall_ms = i->last_command_wall_ms;
        n_added_when_seen = n_added;
}

static const CoreOps ops = {
        .target_add = on_target,
        .target_remove = on_target_remove,
        .watch_changed = on_watch_changed,
        .prepare = on_prepare,
        .task_added = on_task_added,
        .command_seen = on_command_seen,
        .task_finished = on_task_finished,
};

static void setup(void)
{
        log_set_max_level(LOG_ERR);
        cr_assert_eq(core_new(&core, &config, &ops, NULL), 0);
        cr_assert_eq(core_instance_attach(core, &instance, "service", "one", false, now), 0);
}

static void teardown(void)
{
        core_free(core);
}

TestSuite(task, .init = setup, .fini = teardown);

static const TaskCommand good = {
        .task_id = "id",
        .endpoint = "/endpoint",
        .duration_min = 1,
        .threshold_ms = 0,
        .period_ms = 10,
        .max_sampling_count = 1,
        .start_wall_ms = WALL_MS,
        .create_wall_ms = 7,
};

static int add(TaskCommand command)
{
        return core_task_add(core, instance, &command, now);
}

static int add_at(const char *id, const char *endpoint, int64_t start_ms, int minutes)
{
        TaskCommand command = good;

        command.task_id = id;
        command.endpoint = endpoint;
        command.start_wall_ms = WALL_MS + start_ms;
        command.duration_min = minutes;
        return add(command);
}

Test(task, bounds)
{
        static const struct {
                size_t offset;
                int64_t low, high;
        } bounds[] = {
                {offsetof(TaskCommand, duration_min), 1, 15},
                {offsetof(TaskCommand, threshold_ms), 0, 3600000},
                {offsetof(TaskCommand, period_ms), 10, 60000},
                {offsetof(TaskCommand, max_sampling_count), 1, 9},
        };
        unsigned n_bad = 0;

        for (size_t i = 0; i < sizeof(bounds) / sizeof(*bounds); i++) {
                const int64_t bad[] = {bounds[i].low - 1, bounds[i].high + 1, INT64_MIN, INT64_MAX,
                        (int64_t)UINT_MAX + 1 + bounds[i].low};
                const int64_t fine[] = {bounds[i].low, bounds[i].high};

                for (size_t k = 0; k < 5; k++, n_bad++) {
                        TaskCommand command = good;

                        memcpy((char *)&command + bounds[i].offset, &bad[k], sizeof(*bad));
                        cr_assert_eq(
                                add(command), CORE_E_INVALID, "%zu: %lld", i, (long long)bad[k]);
                }
                for (size_t k = 0; k < 2; k++) {
                        TaskCommand command = good;
                        char id[16];

                        memcpy((char *)&command + bounds[i].offset, &fine[k], sizeof(*fine));
                        /* All of them one after the other. */
                        snprintf(id, sizeof(id), "%zu-%zu", i, k);
                        command.task_id = id;
                        command.start_wall_ms += (int64_t)(2 * i + k) * 15 * 60000;
                        cr_assert_eq(add(command), 0, "%zu: %lld", i, (long long)fine[k]);
                }
        }
        cr_assert_eq(counter_get(COUNTER_TASKS_REJECTED), n_bad);
        cr_assert_eq(counter_get(COUNTER_TASKS_ACCEPTED), 8);
        cr_assert_eq(n_prepares, 8);
}

Test(task, strings)
{
        char longest[1100];
        TaskCommand command = good;

        memset(longest, 'x', sizeof(longest));
        longest[513] = '\0';
        command.task_id = longest;
        cr_assert_eq(add(command), CORE_E_INVALID);
        longest[512] = '\0';
        cr_assert_eq(add(command), 0);
        command.task_id = "";
        cr_assert_eq(add(command), CORE_E_INVALID);
        command = good;
        command.start_wall_ms += 60000;
        command.endpoint = "";
        cr_assert_eq(add(command), CORE_E_INVALID);
        memset(longest, 'x', sizeof(longest));
        longest[1024] = '\0';
        command.endpoint = longest;
        cr_assert_eq(add(command), CORE_E_INVALID);
        longest[1023] = '\0';
        cr_assert_eq(add(command), 0);
}

Test(task, start_out_of_range)
{
        TaskCommand command = good;
        static const int64_t starts[] = {-1, INT64_MIN, INT64_MAX, WALL_MS + 31LL * 24 * 3600000};

        for (size_t i = 0; i < 4; i++) {
                command.start_wall_ms = starts[i];
                cr_assert_eq(add(command), CORE_E_INVALID);
        }
}

/* Also of what is rejected: it is not sent again. */
Test(task, last_command_time)
{
        TaskCommand command = good;

        cr_assert_eq(instance->last_command_wall_ms, -1);
        cr_assert_eq(add(command), 0);
        cr_assert_eq(instance->last_command_wall_ms, 7);
        command.create_wall_ms = 9;
        command.duration_min = 16;
        cr_assert_eq(add(command), CORE_E_INVALID);
        cr_assert_eq(instance->last_command_wall_ms, 9);
        command.create_wall_ms = 8;
        add(command);
        cr_assert_eq(instance->last_command_wall_ms, 9);
}

Test(task, overlap)
{
        /* Minutes 10 to 20. */
        cr_assert_eq(add_at("base", "/a", 600000, 10), 0);
        cr_assert_eq(add_at("same", "/b", 600000, 10), CORE_E_OVERLAP);
        cr_assert_eq(add_at("inside", "/b", 720000, 1), CORE_E_OVERLAP);
        cr_assert_eq(add_at("encloses", "/b", 540000, 15), CORE_E_OVERLAP);
        cr_assert_eq(add_at("into", "/b", 540001, 1), CORE_E_OVERLAP);
        cr_assert_eq(add_at("out of", "/b", 1199999, 5), CORE_E_OVERLAP);
        cr_assert_eq(add_at("before", "/b", 540000, 1), 0);
        cr_assert_eq(add_at("after", "/b", 1200000, 1), 0);
        cr_assert_eq(counter_get(COUNTER_TASKS_REJECTED), 5);
        cr_assert_eq(n_finished, 0);
}

Test(task, duplicates)
{
        char id[16];

        cr_assert_eq(add_at("id", "/a", 0, 1), 0);
        cr_assert_eq(add_at("id", "/a", 120000, 1), CORE_E_DUPLICATE);
        /* The last 256 that are over are known, too. */
        for (int n = 0; n < 256; n++) {
                snprintf(id, sizeof(id), "over%d", n);
                cr_assert_eq(add_at(id, "/a", -60000, 1), CORE_E_OVER);
        }
        cr_assert_eq(n_finished, 256);
        cr_assert_eq(add_at("over0", "/a", -60000, 1), CORE_E_DUPLICATE);
        cr_assert_eq(add_at("over256", "/a", -60000, 1), CORE_E_OVER);
        cr_assert_eq(add_at("over0", "/a", -60000, 1), CORE_E_OVER);
        cr_assert_eq(add_at("over256", "/a", -60000, 1), CORE_E_DUPLICATE);
        cr_assert_eq(n_finished, 258);
        cr_assert_eq(counter_get(COUNTER_TASKS_FINISHED), 258);
}

Test(task, so_many)
{
        char id[16], endpoint[16];

        for (int n = 0; n < 64; n++) {
                snprintf(id, sizeof(id), "%d", n);
                snprintf(endpoint, sizeof(endpoint), "/%d", n % 50);
                cr_assert_eq(add_at(id, endpoint, n * 60000, 1), 0);
        }
        cr_assert_eq(instance->n_watch, 50);
        cr_assert_eq(add_at("64", "/64", 64 * 60000, 1), CORE_E_LIMIT);
        cr_assert_eq(n_watch_changes, 50);
        /* "/0" is wanted by a later task, too: the list stays as it is. */
        now.mono_ns += 60 * NS_PER_S;
        now.wall_ms += 60000;
        core_step(core, now);
        cr_assert_eq(n_finished, 1);
        cr_assert_eq(n_watch_changes, 50);
        cr_assert_eq(instance->n_watch, 50);
}

Test(task, looked_at_each_second)
{
        cr_assert_eq(core_next_mono_ns(core, now), UINT64_MAX);
        cr_assert_eq(add_at("id", "/a", 500, 1), 0);
        cr_assert_eq(core_next_mono_ns(core, now), now.mono_ns + 500 * NS_PER_MS);
        now.wall_ms -= 60000;
        cr_assert_eq(core_next_mono_ns(core, now), now.mono_ns + NS_PER_S);
}

Test(instance, shared, .init = setup, .fini = teardown)
{
        Instance *same, *other;

        cr_assert_eq(core_instance_attach(core, &same, "service", "one", true, now), 0);
        cr_assert_eq(same, instance);
        cr_assert(instance->agent);
        cr_assert_eq(core_instance_attach(core, &same, "service", "one", false, now), 0);
        cr_assert(instance->agent);
        cr_assert_eq(core_instance_attach(core, &other, "servic", "eone", false, now), 0);
        cr_assert_neq(other, instance);
        cr_assert_eq(core_instance_next(core, core_instance_first(core)), other);
        cr_assert_null(core_instance_next(core, other));
        core_instance_detach(core, other, now);
        core_instance_detach(core, instance, now);
        core_instance_detach(core, instance, now);
        cr_assert_eq(core_instance_first(core), instance);
        core_instance_detach(core, instance, now);
        cr_assert_null(core_instance_first(core));
}

/* ---- what is followed ---- */

static int start(uint64_t client, const char *id, const char *operation)
{
        return core_span_start(core, instance, client,
                &(SpanStartEvent){.segment_id = id,
                        .operation = operation,
                        .trace_id = "",
                        .pid = 1,
                        .tid = 1,
                        .start_mono_ns = now.mono_ns},
                now);
}

Test(task, spans)
{
        cr_assert_eq(start(1, "a", "/a"), CORE_E_UNWATCHED);
        cr_assert_eq(add_at("id", "/a", 0, 1), 0);
        cr_assert_eq(start(1, "a", "/A"), CORE_E_UNWATCHED);
        cr_assert_eq(start(1, "a", "/a"), 0);
        cr_assert_eq(start(2, "a", "/a"), CORE_E_DUPLICATE);
        cr_assert_eq(counter_get(COUNTER_EVENTS_DUPLICATE), 1);
        /* Another client's segment is none of its business. */
        cr_assert_eq(core_span_stop(core, 2, "a", now.mono_ns, false, now), CORE_E_UNKNOWN);
        cr_assert_eq(core_span_switch(core, 2, "a", 0, NULL, now.mono_ns, now), CORE_E_UNKNOWN);
        cr_assert_eq(core_span_rename(core, 2, "a", "/b", now), CORE_E_UNKNOWN);
        cr_assert_eq(counter_get(COUNTER_EVENTS_UNKNOWN), 3);
        cr_assert_eq(start(1, "b", "/a"), 0);
        cr_assert_eq(start(1, "c", "/a"), 0);
        cr_assert_eq(start(1, "d", "/a"), CORE_E_LIMIT);
        cr_assert_eq(start(2, "d", "/a"), 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_OVER_PENDING), 1);
        cr_assert_eq(core_client_segments(core, 1), 3);
        core_client_gone(core, 1, now);
        cr_assert_eq(core_client_segments(core, 1), 0);
        cr_assert_eq(instance->n_segments, 1);
}

Test(task, trace_details)
{
        cr_assert_eq(add_at("id", "/a", 0, 1), 0);
        cr_assert_eq(start(1, "a", "/a"), 0);
        cr_assert_eq(core_span_parent(core, 1, "a", "x"), 0);
        cr_assert_eq(core_span_parent(core, 1, "a", "y"), 0);
        cr_assert_eq(core_span_parent(core, 2, "a", "z"), CORE_E_UNKNOWN);
        for (int i = 0; i < 16; i++)
                cr_assert_eq(core_span_tag(core, 1, "a", "key", "value"), 0);
        cr_assert_eq(core_span_tag(core, 1, "a", "key", "value"), CORE_E_LIMIT);
        cr_assert_eq(counter_get(COUNTER_EVENTS_OVER_TAGS), 1);
        cr_assert_eq(core_span_tag(core, 2, "a", "key", "value"), CORE_E_UNKNOWN);
        core_client_gone(core, 1, now);
}

/* Times that make no sense do no harm. */
Test(task, span_times)
{
        cr_assert_eq(add_at("id", "/a", 0, 1), 0);
        cr_assert_eq(core_span_start(core, instance, 1,
                             &(SpanStartEvent){.segment_id = "future",
                                     .operation = "/a",
                                     .trace_id = "",
                                     .tid = 1,
                                     .start_mono_ns = UINT64_MAX},
                             now),
                0);
        cr_assert_eq(core_span_switch(core, 1, "future", 2, NULL, UINT64_MAX, now), 0);
        cr_assert_eq(core_span_switch(core, 1, "future", 3, NULL, 0, now), 0);
        cr_assert_eq(core_span_stop(core, 1, "future", 0, false, now), 0);
        cr_assert_eq(counter_get(COUNTER_SEGMENTS_FAST), 1);
        core_samples(core, 12345, &(SampleRun){.n = 1}, (ThreadTimes){0}, now);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_UNCLAIMED), 1);
        core_target_gone(core, 12345, now);
}

/* ---- segments that a former daemon has left ---- */

static void on_segment(void *userdata, const SegmentInfo *info)
{
        *(SegmentState *)userdata = info->state;
}

/* One of which nothing was delivered takes no count, which is its own. */
Test(task, restored_segments)
{
        SegmentState state = SEGMENT_STOPPED;
        RestoredSegment left = {.task_id = "id", .segment_id = "s", .continues = true};

        cr_assert_eq(add(good), 0);
        cr_assert_eq(core_restore_segment(core, instance, &left), 0);
        cr_assert_eq(start(1, "s", "/endpoint"), 0);
        core_step(core, (Now){.mono_ns = now.mono_ns + NS_PER_MS, .wall_ms = WALL_MS + 1});
        core_segments(core, now, on_segment, &state);
        cr_expect_eq(state, SEGMENT_PROFILING);
        core_client_gone(core, 1, now);
        /* What may have arrived does. */
        left.continues = false;
        cr_assert_eq(core_restore_segment(core, instance, &left), 0);
        cr_expect_eq(start(1, "s", "/endpoint"), CORE_E_DUPLICATE);
        cr_expect_eq(start(1, "another", "/endpoint"), CORE_E_LIMIT);
}
