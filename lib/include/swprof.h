/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SWPROF_H
#define SWPROF_H

#include <stddef.h>
#include <stdint.h>

/*
 * libswprof tells swprofd, the profiling daemon of this host, when a request starts and stops on
 * which thread, so that the daemon can profile it. See libswprof(3), swprofd-protocol(7).
 *
 * Functions return 1 when the daemon was told (or the answer is yes), 0 when nobody is interested
 * or there is no daemon, and -EINVAL for arguments that are wrong at any time. Programs need not
 * look: everything goes on without a daemon, and also with a client that is NULL.
 *
 * What it costs. While no profile task is there, a span costs a load or two from memory, and while
 * there is no daemon a look at the clock: no system call, no lock. The daemon's crash (its orderly
 * end is seen at once) is looked for every 10 seconds, and its coming back 1 second later, then 2,
 * 4, up to 60: a few system calls each time, made by one of the calls below. Spans of operations
 * that no task is for are not sent.
 *
 * What it does not do: wait for the daemon, print, abort, start a thread, install a handler, raise
 * a signal, or change errno.
 *
 * Threads. All functions may be called from any thread at any time, with two exceptions: calls on
 * the same span come one after the other, and swprof_close() comes last. None may be called from a
 * signal handler. A span may go on in another thread, see swprof_span_switch().
 *
 * fork(2). The child has the client, too, with a connection of its own that is made at need. Spans
 * that are live in the parent are the parent's: the child may stop them, which does nothing.
 */

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* The connection of this process to the daemon. */
struct swprof;

/* Members that are NULL or 0 have the default that is named. Nothing is kept of the caller's. */
struct swprof_options {
        size_t size;             /* sizeof(struct swprof_options) */
        const char *socket_path; /* $SWPROFD_SOCKET, or /run/swprofd/span.sock */
        const char *service;     /* must be given: as the OAP knows it */
        const char *instance;    /* "PID@HOSTNAME", also in the child of a fork */
        const char *language;    /* "c" */
        int agent; /* not 0: a SkyWalking agent reports the trace segments of this instance */
};

/*
 * A request on a thread: in SkyWalking's words, a segment with its first span. In the caller's
 * memory, from its start to its stop; what is inside is the library's. A span that is not stopped
 * stays live for the daemon until its thread ends or executes another program, or the client is
 * closed.
 */
struct swprof_span {
        uint64_t priv[48];
};

/*
 * Longest texts, in bytes without the terminating NUL. All must be UTF-8 without control
 * characters.
 */
#define SWPROF_NAME_MAX      255  /* service, instance, language, segment ids */
#define SWPROF_OPERATION_MAX 1023 /* and values of tags */
#define SWPROF_SW8_MAX       1535

/*
 * Makes a client, which connects now, or later by itself. The caller closes it with swprof_close().
 * Return: 1 connected, 0 there is no daemon, so far; -EINVAL for wrong options, -ENOMEM, or another
 * -errno when the system does not have what is needed; then *ret is untouched.
 */
int swprof_open(struct swprof **ret, const struct swprof_options *options);

/*
 * Closes the client: for the daemon, its live spans end now. They may be stopped with the client
 * NULL afterwards, which does nothing. No other call may use the client at the same time. Return:
 * NULL.
 */
struct swprof *swprof_close(struct swprof *c);

/*
 * Is there a profile task for the operation? NULL: for any. Return: 1 yes, 0 no; -EINVAL if it is
 * empty or too long.
 */
int swprof_watched(struct swprof *c, const char *operation);

/*
 * A request starts on this thread. The span is initialised, whatever is returned. `segment_id` is
 * any string that no other segment has: a program with a SkyWalking agent gives the one of its
 * trace segment; NULL: a random one of 32 hexadecimal digits, made when it is needed.
 * Return: 1 the daemon was told; 0; -EINVAL if a text is missing, empty, too long or not UTF-8.
 */
int swprof_span_start(
        struct swprof *c, struct swprof_span *span, const char *segment_id, const char *operation);

/*
 * A further thread, this one, works on the request of a span that is live in any thread of this
 * process; `parent_segment_id` is that span's. The new span is a segment of its own. `operation`
 * NULL: the parent's. Otherwise as swprof_span_start(). Return: 1 the daemon was told; 0, also if
 * it has not been told of the parent; -EINVAL.
 */
int swprof_span_continue(struct swprof *c, struct swprof_span *span, const char *parent_segment_id,
        const char *segment_id, const char *operation);

/*
 * The span has another operation now. If a task is for that one, the daemon learns of the span with
 * its true start, if any operation was watched then, else as one that starts now.
 * Return: 1 the daemon was told; 0; -EINVAL, and the span keeps its operation.
 */
int swprof_span_rename(struct swprof *c, struct swprof_span *span, const char *operation);

/*
 * The span goes on in the thread that calls (`on_this_thread` not 0), or on none for now: for
 * requests that move between threads, or wait as a coroutine while its thread does something else.
 * Return: 1 the daemon was told; 0; -EINVAL if span is NULL.
 */
int swprof_span_switch(struct swprof *c, struct swprof_span *span, int on_this_thread);

/*
 * For the trace segment that the daemon reports of a profiled request, unless an agent does: the
 * request came from another process, which sent this text as its header `sw8`; and a tag, of which
 * a span has up to 16. Say so after the start. A daemon that is not told of the span now, or comes
 * back later, never learns of it. Return: 1 the daemon was told; 0; -EINVAL.
 */
int swprof_span_parent(struct swprof *c, struct swprof_span *span, const char *sw8);
int swprof_span_tag(struct swprof *c, struct swprof_span *span, const char *key, const char *value);

/*
 * The request is over, `error` not 0: it failed. The span's memory is the caller's again. Stopping
 * it again does nothing. Return: 1 the daemon was told; 0; -EINVAL if span is NULL.
 */
int swprof_span_stop(struct swprof *c, struct swprof_span *span, int error);

/*
 * The span's segment id, for logs and swprof_span_continue(): what was given at its start, or else
 * a random one, which is made now if it was not needed before. It is part of the span's memory.
 * NULL for NULL.
 */
const char *swprof_span_segment_id(struct swprof_span *span);

/* The version of the library that runs, as in "0.1.0". */
const char *swprof_version(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
