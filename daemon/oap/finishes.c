/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oap/codec.h"
#include "oap/finishes.h"
#include "util/error.h"
#include "util/log.h"

#define METHOD_FINISH "/skywalking.v3.ProfileTask/reportTaskFinish"

#define QUEUE_MAX 1024
#define REPEAT_NS (3600 * NS_PER_S)

struct Finish {
        ListLink link;
        char *service, *instance, *task_id;
        uint64_t expires_mono_ns;
};

void finishes_init(Finishes *f, Backend *backend, const Buffer *buffer, const Keep *keep)
{
        *f = (Finishes){.backend = backend, .buffer = buffer, .keep = keep};
        list_init(&f->queue);
}

static void finish_free(Finish *finish)
{
        free(finish->service);
        free(finish->instance);
        free(finish->task_id);
        free(finish);
}

static void finishes_remove(Finishes *f, Finish *finish)
{
        list_remove(&finish->link);
        finish_free(finish);
        f->n--;
}

void finishes_deinit(Finishes *f)
{
        Finish *finish, *next;

        list_for_each_safe (finish, next, &f->queue, link)
                finishes_remove(f, finish);
}

int finishes_add(Finishes *f, const char *service, const char *instance, const char *task_id)
{
        Finish *finish;

        if (f->n == QUEUE_MAX)
                return error_origin(-ENOBUFS);
        finish = calloc(1, sizeof(*finish));
        if (!finish)
                return error_origin(-ENOMEM);
        finish->service = strdup(service);
        finish->instance = strdup(instance);
        finish->task_id = strdup(task_id);
        if (!finish->service || !finish->instance || !finish->task_id) {
                finish_free(finish);
                return error_origin(-ENOMEM);
        }
        finish->expires_mono_ns = f->backend->now.mono_ns + REPEAT_NS;
        list_append(&f->queue, &finish->link);
        f->n++;
        return 0;
}

bool finishes_idle(const Finishes *f)
{
        return f->n == 0;
}

static bool finish_ready(const Finishes *f, const Finish *finish)
{
        return !buffer_has_task(f->buffer, finish->service, finish->instance, finish->task_id);
}

uint64_t finishes_next_mono_ns(const Finishes *f)
{
        uint64_t open_ns = backend_open_mono_ns(f->backend, LANE_FINISH), next_ns = UINT64_MAX;
        const Finish *finish;

        if (f->calling)
                return UINT64_MAX;
        list_for_each (finish, &f->queue, link) {
                if (open_ns < next_ns && finish_ready(f, finish))
                        next_ns = open_ns;
                if (finish->expires_mono_ns < next_ns)
                        next_ns = finish->expires_mono_ns;
        }
        return next_ns;
}

/* There is nothing more to be done about it, also after a restart. */
static void finishes_settle(Finishes *f, Finish *finish)
{
        if (f->keep)
                f->keep->task_reported(
                        f->keep->userdata, finish->service, finish->instance, finish->task_id);
        finishes_remove(f, finish);
}

static void finish_done(void *userdata, const RpcResult *result)
{
        Finishes *f = userdata;

        backend_ended(f->backend, LANE_FINISH, f->started_mono_ns, result);
        if (result->status == RPC_OK)
                finishes_settle(f, f->calling);
        f->calling = NULL;
}

static void finish_call(Finishes *f, Finish *finish)
{
        _cleanup_(freep) void *message = NULL;
        size_t size;
        int r;

        r = codec_task_finish(finish->service, finish->instance, finish->task_id, &message, &size);
        if (r < 0) {
                backend_failed(f->backend, LANE_FINISH, r);
                return;
        }
        r = backend_call(f->backend, LANE_FINISH, METHOD_FINISH, &(RpcBytes){message, size}, 1,
                finish_done, f);
        if (r < 0)
                return;
        f->calling = finish;
        f->started_mono_ns = f->backend->now.mono_ns;
}

void finishes_step(Finishes *f)
{
        Finish *finish, *next;

        if (f->calling)
                return;
        list_for_each_safe (finish, next, &f->queue, link)
                if (finish->expires_mono_ns <= f->backend->now.mono_ns) {
                        log_warning("The end of task %s could not be reported", finish->task_id);
                        finishes_settle(f, finish);
                }
        if (list_empty(&f->queue))
                backend_lane_rest(f->backend, LANE_FINISH);
        if (!backend_open(f->backend, LANE_FINISH))
                return;
        list_for_each (finish, &f->queue, link)
                if (finish_ready(f, finish)) {
                        finish_call(f, finish);
                        return;
                }
}
