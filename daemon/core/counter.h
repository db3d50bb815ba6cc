/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/*
 * Everything that is gained or lost is counted, by cause, under a stable name that `swprofctl
 * status` shows. One line a counter: enumerator, name, sentence. Any thread may add.
 */
#define COUNTERS(X)                                                                               \
        X(CLIENTS_ACCEPTED, "clients_accepted", "Span clients that said hello.")                  \
        X(CLIENTS_REFUSED, "clients_refused", "Connections refused: limits, bad hello.")          \
        X(CLIENTS_BROKEN, "clients_broken", "Clients dropped for breaking the protocol.")         \
        X(EVENTS_RECEIVED, "events_received", "Span events received.")                            \
        X(EVENTS_UNWATCHED, "events_unwatched", "Span starts of operations without a task.")      \
        X(EVENTS_UNKNOWN, "events_unknown", "Span events of segments that are not followed.")     \
        X(EVENTS_BAD_THREAD, "events_bad_thread",                                                 \
                "Span events of a thread that is not the client's.")                              \
        X(EVENTS_BAD_TIME, "events_bad_time", "Span times out of range, replaced by now.")        \
        X(EVENTS_DUPLICATE, "events_duplicate", "Span starts with a segment id already in use.")  \
        X(EVENTS_OVER_TAGS, "events_over_tags", "Tags beyond those that a segment may have.")     \
        X(SEGMENTS_MATCHED, "segments_matched", "Segments that a task wanted.")                   \
        X(SEGMENTS_FAST, "segments_fast", "Matched segments that ended below the threshold.")     \
        X(SEGMENTS_PROFILED, "segments_profiled", "Segments that delivered a first snapshot.")    \
        X(SEGMENTS_RESUMED, "segments_resumed",                                                   \
                "Segments announced again after a restart, and gone on with.")                    \
        X(SEGMENTS_NO_SLOT, "segments_no_slot", "Slow segments that found no profiling slot.")    \
        X(SEGMENTS_OVER_COUNT, "segments_over_count", "Segments beyond maxSamplingCount.")        \
        X(SEGMENTS_OVER_PENDING, "segments_over_pending",                                         \
                "Segments beyond those followed at a time of an instance or a client.")           \
        X(SEGMENTS_OVER_SUB, "segments_over_sub", "Continued segments beyond max_sub_parallel.")  \
        X(SEGMENTS_CUT, "segments_cut", "Segments cut at the maximum time per segment.")          \
        X(SEGMENTS_EMPTY, "segments_empty",                                                       \
                "Slow segments of which no snapshot could be delivered.")                         \
        X(SEGMENTS_UNDECIDED, "segments_undecided",                                               \
                "Matched segments let go below the threshold: renamed, or the task was over.")    \
        X(SEGMENTS_GONE, "segments_gone",                                                         \
                "Segments whose client or thread was gone before their stop.")                    \
        X(TASKS_ACCEPTED, "tasks_accepted", "Profile tasks accepted.")                            \
        X(TASKS_RESUMED, "tasks_resumed", "Profile tasks of a former swprofd gone on with.")      \
        X(TASKS_REJECTED, "tasks_rejected", "Profile tasks rejected: bad values or overlap.")     \
        X(TASKS_OVER, "tasks_over", "Profile tasks that were over when they arrived.")            \
        X(TASKS_FINISHED, "tasks_finished", "Profile tasks reported finished.")                   \
        X(COMMANDS_UNKNOWN, "commands_unknown", "Commands of the backend that are not for us.")   \
        X(COMMANDS_BAD, "commands_bad", "Commands of the backend that could not be read.")        \
        X(SAMPLES_DUE, "samples_due", "Samples that fell due.")                                   \
        X(SAMPLES_CAPTURED, "samples_captured", "Samples captured: repeated, pulled or shot.")    \
        X(SAMPLES_REPEATED, "samples_repeated", "Of these: the thread had not run, same stack.")  \
        X(SAMPLES_SHOT, "samples_shot",                                                           \
                "Of these: taken from the running thread by an interrupt.")                       \
        X(SAMPLES_EDGE, "samples_edge",                                                           \
                "Samples added: as of when a wait began or ended, between due ones.")             \
        X(SAMPLES_PARKED, "samples_parked",                                                       \
                "Samples made of segments on no thread, with the stack at which they left it.")   \
        X(SAMPLES_LATE, "samples_late",                                                           \
                "Due samples skipped: the sampler came a period too late.")                       \
        X(SAMPLES_UNSTABLE, "samples_unstable",                                                   \
                "Due samples lost: the thread ran while it was read.")                            \
        X(SAMPLES_FAULT, "samples_fault", "Due samples lost: stack memory could not be read.")    \
        X(SAMPLES_DENIED, "samples_denied",                                                       \
                "Due samples lost: the thread has another tracer (backend ptrace only).")         \
        X(SAMPLES_GONE, "samples_gone", "Due samples lost: the thread was gone.")                 \
        X(SAMPLES_AFTER_STOP, "samples_after_stop",                                               \
                "Samples dropped: taken when the span was not on that thread any more.")          \
        X(SAMPLES_UNNEEDED, "samples_unneeded", "Samples dropped: the segment was not profiled.") \
        X(SAMPLES_UNCLAIMED, "samples_unclaimed",                                                 \
                "Samples dropped: their segment was settled or let go before they came.")         \
        X(SAMPLES_PENDING_OVER, "samples_pending_over",                                           \
                "Held samples dropped: too many of a waiting segment.")                           \
        X(SAMPLES_QUEUE_FULL, "samples_queue_full",                                               \
                "Samples dropped: a queue between threads was full.")                             \
        X(SAMPLES_NO_STACK, "samples_no_stack",                                                   \
                "Samples dropped: the stack did not reach its root.")                             \
        X(STACKS_UNWOUND, "stacks_unwound", "Stacks unwound completely.")                         \
        X(STACKS_TRUNCATED, "stacks_truncated", "Stacks not unwound: larger than the copy.")      \
        X(STACKS_NO_MAPPING, "stacks_no_mapping",                                                 \
                "Stacks not unwound: code outside of any known mapping.")                         \
        X(STACKS_NO_CFI, "stacks_no_cfi", "Stacks not unwound: code without unwind information.") \
        X(STACKS_BROKEN, "stacks_broken", "Stacks not unwound: the values made no sense.")        \
        X(STACKS_NO_PYTHON, "stacks_no_python",                                                   \
                "Stacks without the frames of Python: these could not be read at that instant.")  \
        X(STACKS_PYTHON_MISMATCH, "stacks_python_mismatch",                                       \
                "Stacks dropped: the frames of Python were not those of the native stack.")       \
        X(STACKS_PYTHON_TORN, "stacks_python_torn",                                               \
                "Stacks dropped: a Python function was gone before its name was read.")           \
        X(PYTHONS_UNKNOWN, "pythons_unknown",                                                     \
                "Python interpreters of a version that is not known: native stacks.")             \
        X(PYTHONS_FREE_THREADED, "pythons_free_threaded",                                         \
                "Python interpreters without a GIL, not supported: native stacks.")               \
        X(STACKS_CUT, "stacks_cut", "Stacks deeper than max_depth, cut at the leaf.")             \
        X(STACKS_OVER, "stacks_over",                                                             \
                "Stacks of waiting segments not taken: too many of a client in use.")             \
        X(BINARIES_LOADED, "binaries_loaded",                                                     \
                "Binaries whose unwind tables and symbols were read.")                            \
        X(BINARIES_FAILED, "binaries_failed", "Binaries that could not be read.")                 \
        X(SNAPSHOTS_QUEUED, "snapshots_queued", "Snapshots given a sequence number.")             \
        X(SNAPSHOTS_SENT, "snapshots_sent",                                                       \
                "Snapshots in streams that the backend closed with OK.")                          \
        X(SNAPSHOTS_THINNED, "snapshots_thinned",                                                 \
                "Snapshots dropped inside runs of identical stacks: the buffer was full.")        \
        X(SNAPSHOTS_DROPPED, "snapshots_dropped",                                                 \
                "Snapshots dropped in tails: the buffer was full.")                               \
        X(SNAPSHOTS_AMBIGUOUS, "snapshots_ambiguous",                                             \
                "Snapshots in streams that failed midway: perhaps received.")                     \
        X(SNAPSHOTS_UNSUPPORTED, "snapshots_unsupported",                                         \
                "Snapshots dropped: the backend takes none.")                                     \
        X(SNAPSHOTS_KEPT, "snapshots_kept", "Snapshots put on disk, to be sent later.")           \
        X(SNAPSHOTS_KEPT_OVER, "snapshots_kept_over",                                             \
                "Snapshots dropped, segment by segment: the database was full.")                  \
        X(SNAPSHOTS_KEPT_LOST, "snapshots_kept_lost",                                             \
                "Snapshots on disk dropped: damaged, or others of their segment under way in a "  \
                "crash.")                                                                         \
        X(STORE_RECORDS_LOST, "store_records_lost",                                               \
                "Records of tasks and segments that could not be written.")                       \
        X(SNAPSHOTS_RECORDED, "snapshots_recorded",                                               \
                "Snapshots of swprofctl's tasks put on record.")                                  \
        X(RESULTS_REMOVED, "results_removed",                                                     \
                "Segments of swprofctl's tasks removed: too old, or the database was full.")      \
        X(TRACE_SEGMENTS_SENT, "trace_segments_sent",                                             \
                "Trace segments reported for apps without an agent.")                             \
        X(TRACE_SEGMENTS_LOST, "trace_segments_lost",                                             \
                "Trace segments that could not be reported.")                                     \
        X(TRACE_PARENTS_BAD, "trace_parents_bad",                                                 \
                "Trace segments reported without their parent: no sw8 header was given.")         \
        X(CALLS_OK, "calls_ok", "Calls that the backend answered with OK.")                       \
        X(CALLS_FAILED, "calls_failed", "Calls that failed.")                                     \
        X(CONTROL_REFUSED, "control_refused", "Control connections refused.")

typedef enum CounterId {
#define X(id, name, help) COUNTER_##id,
        COUNTERS(X)
#undef X
                N_COUNTERS,
} CounterId;

extern _Atomic uint64_t counter_values[N_COUNTERS];

static inline void counter_add(CounterId id, uint64_t n)
{
        atomic_fetch_add_explicit(&counter_values[id], n, memory_order_relaxed);
}

static inline uint64_t counter_get(CounterId id)
{
        return atomic_load_explicit(&counter_values[id], memory_order_relaxed);
}

const char *counter_name(CounterId id);
const char *counter_help(CounterId id);
