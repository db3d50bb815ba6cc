/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "oap/rpc-private.h"
#include "util/error.h"
#include "util/list.h"
#include "util/log.h"
#include "util/time.h"

typedef struct RpcCall RpcCall;

/* What a completion names: one of the two batches that a call may have outstanding. */
typedef struct RpcTag {
        RpcCall *call;
} RpcTag;

struct RpcCall {
        ListLink link;       /* client's calls */
        ListLink ended_link; /* client's ended */
        RpcClient *client;
        RpcChannel *channel;
        RpcTag send, receive;
        grpc_call *call;
        RpcDone done;
        void *userdata;

        /* What was received. The pump's until the call has ended, like the counters below. */
        grpc_metadata_array initial_metadata, trailing_metadata;
        grpc_byte_buffer *reply;
        grpc_status_code status;
        grpc_slice details;

        unsigned n_batches;                /* outstanding */
        bool closed;                       /* our half */
        size_t n_started;                  /* messages given to gRPC */
        _Atomic uint64_t progress_mono_ns; /* when it began, or a message left */
        size_t n_messages;
        grpc_byte_buffer *messages[];
};

struct RpcClient {
        grpc_completion_queue *queue;
        pthread_t thread;
        int fd;
        ListLink calls; /* the main thread's: started, callback not yet called */

        pthread_mutex_t lock;
        bool stopping;  /* under lock: no batch may be started any more */
        ListLink ended; /* under lock */
};

const char *rpc_status_name(int status)
{
        static const char *const names[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT",
                "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
                "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
                "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
                "UNTRUSTED", "NO_MEMORY"};

        if (status < 0 || (size_t)status >= sizeof(names) / sizeof(*names))
                return "unknown status";
        return names[status];
}

static void log_grpc(gpr_log_func_args *args)
{
        log_debug("grpc: %s", args->message);
}

static void call_free(RpcCall *call)
{
        for (size_t i = 0; i < call->n_messages; i++)
                grpc_byte_buffer_destroy(call->messages[i]);
        if (call->reply)
                grpc_byte_buffer_destroy(call->reply);
        grpc_metadata_array_destroy(&call->initial_metadata);
        grpc_metadata_array_destroy(&call->trailing_metadata);
        grpc_slice_unref(call->details);
        grpc_call_unref(call->call);
        rpc_channel_unref(call->channel);
        free(call);
}

static void call_start_batch(RpcCall *call, const grpc_op *ops, size_t n, RpcTag *tag)
{
        grpc_call_error e = grpc_call_start_batch(call->call, ops, n, tag, NULL);

        /* It refuses only what is forbidden in itself; all else is told by the completion. */
        assert(e == GRPC_CALL_OK);
        (void)e;
}

/* Goes on sending after a batch that was written. Return: whether there is another one outstanding
 * now. */
static bool call_send_next(RpcCall *call)
{
        grpc_op ops[2] = {0};
        size_t n = 0;
        bool stopping;

        if (call->closed)
                return false;
        pthread_mutex_lock(&call->client->lock);
        stopping = call->client->stopping;
        if (!stopping) {
                if (call->n_started < call->n_messages) {
                        ops[n].op = GRPC_OP_SEND_MESSAGE;
                        ops[n++].data.send_message.send_message = call->messages[call->n_started++];
                }
                if (call->n_started == call->n_messages) {
                        ops[n++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
                        call->closed = true;
                }
                call_start_batch(call, ops, n, &call->send);
        }
        pthread_mutex_unlock(&call->client->lock);
        return !stopping;
}

/* These come from gRPC itself, too. */
static bool call_was_answered(const RpcCall *call)
{
        return call->status != GRPC_STATUS_CANCELLED &&
               call->status != GRPC_STATUS_DEADLINE_EXCEEDED &&
               call->status != GRPC_STATUS_UNAVAILABLE;
}

static void call_completed(RpcCall *call, RpcTag *tag, bool success)
{
        RpcClient *c = call->client;

        if (tag == &call->send && success) {
                if (call->n_started > 0)
                        atomic_store(&call->progress_mono_ns, mono_now_ns());
                if (call_send_next(call))
                        return;
        }
        if (--call->n_batches > 0)
                return;
        if (call_was_answered(call))
                atomic_store(&call->channel->heard_mono_ns, mono_now_ns());
        pthread_mutex_lock(&c->lock);
        list_append(&c->ended, &call->ended_link);
        pthread_mutex_unlock(&c->lock);
        eventfd_write(c->fd, 1);
}

static void *client_pump(void *userdata)
{
        RpcClient *c = userdata;

        for (;;) {
                grpc_event event = grpc_completion_queue_next(
                        c->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

                if (event.type == GRPC_QUEUE_SHUTDOWN)
                        return NULL;
                RpcTag *tag = event.tag;
                call_completed(tag->call, tag, event.success);
        }
}

int rpc_client_new(RpcClient **ret)
{
        RpcClient *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return error_origin(-ENOMEM);
        c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (c->fd < 0) {
                r = -errno;
                free(c);
                return error_origin(r);
        }
        list_init(&c->calls);
        list_init(&c->ended);
        pthread_mutex_init(&c->lock, NULL);
        gpr_set_log_function(log_grpc);
        grpc_init();
        c->queue = grpc_completion_queue_create_for_next(NULL);
        r = -pthread_create(&c->thread, NULL, client_pump, c);
        if (r < 0) {
                c->thread = 0;
                rpc_client_free(c);
                return error_origin(r);
        }
        pthread_setname_np(c->thread, "oap");
        *ret = c;
        return 0;
}

RpcClient *rpc_client_free(RpcClient *c)
{
        RpcCall *call, *next;

        if (!c)
                return NULL;
        /* The pump starts batches under the lock: none comes after the queue's shutdown. */
        pthread_mutex_lock(&c->lock);
        c->stopping = true;
        pthread_mutex_unlock(&c->lock);
        list_for_each (call, &c->calls, link)
                grpc_call_cancel(call->call, NULL);
        grpc_completion_queue_shutdown(c->queue);
        if (c->thread)
                pthread_join(c->thread, NULL);
        list_for_each_safe (call, next, &c->calls, link)
                call_free(call);
        grpc_completion_queue_destroy(c->queue);
        grpc_shutdown_blocking();
        pthread_mutex_destroy(&c->lock);
        close(c->fd);
        free(c);
        return NULL;
}

int rpc_client_fd(const RpcClient *c)
{
        return c->fd;
}

static void call_deliver(RpcCall *call)
{
        char *message = grpc_slice_to_c_string(call->details);
        char distrust[256];
        /* The verdict may be of an earlier connection. */
        bool distrusted = call->status == GRPC_STATUS_UNAVAILABLE &&
                          rpc_channel_distrusts(call->channel, distrust, sizeof(distrust)) &&
                          strstr(message, distrust);
        grpc_slice reply = grpc_empty_slice();
        grpc_byte_buffer_reader reader;

        if (call->reply && grpc_byte_buffer_reader_init(&reader, call->reply)) {
                reply = grpc_byte_buffer_reader_readall(&reader);
                grpc_byte_buffer_reader_destroy(&reader);
        }
        call->done(call->userdata,
                &(RpcResult){
                        .status = distrusted ? RPC_UNTRUSTED : (int)call->status,
                        .message = distrusted ? distrust : message,
                        .reply = {GRPC_SLICE_START_PTR(reply), GRPC_SLICE_LENGTH(reply)},
                        .sent = call->n_started > 0,
                });
        grpc_slice_unref(reply);
        gpr_free(message);
}

void rpc_dispatch(RpcClient *c)
{
        eventfd_t n;

        eventfd_read(c->fd, &n);
        for (;;) {
                RpcCall *call;

                pthread_mutex_lock(&c->lock);
                call = list_first(&c->ended, RpcCall, ended_link);
                if (call)
                        list_remove(&call->ended_link);
                pthread_mutex_unlock(&c->lock);
                if (!call)
                        return;
                list_remove(&call->link);
                call_deliver(call);
                call_free(call);
        }
}

uint64_t rpc_quiet_since_mono_ns(const RpcClient *c, const RpcChannel *ch)
{
        uint64_t heard_ns = atomic_load(&ch->heard_mono_ns), first_ns = UINT64_MAX;
        RpcCall *call;

        list_for_each (call, &c->calls, link) {
                uint64_t ns = atomic_load(&call->progress_mono_ns);

                ns = ns > heard_ns ? ns : heard_ns;
                if (call->channel == ch && ns < first_ns)
                        first_ns = ns;
        }
        return first_ns;
}

void rpc_cancel(RpcClient *c, const RpcChannel *ch)
{
        RpcCall *call;

        list_for_each (call, &c->calls, link)
                if (call->channel == ch)
                        grpc_call_cancel(call->call, NULL);
}

int rpc_call(RpcClient *c, RpcChannel *ch, const char *method, const RpcBytes *messages,
        size_t n_messages, uint32_t deadline_ms, RpcDone done, void *userdata)
{
        RpcCall *call = calloc(1, sizeof(*call) + n_messages * sizeof(*call->messages));
        gpr_timespec deadline = gpr_time_add(
                gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(deadline_ms, GPR_TIMESPAN));
        grpc_op send = {.op = GRPC_OP_SEND_INITIAL_METADATA};
        grpc_metadata token = {0};
        grpc_slice name;

        if (!call)
                return error_origin(-ENOMEM);
        call->client = c;
        call->channel = ch;
        ch->n_refs++;
        atomic_init(&call->progress_mono_ns, mono_now_ns());
        call->send.call = call->receive.call = call;
        call->done = done;
        call->userdata = userdata;
        call->details = grpc_empty_slice();
        call->n_messages = n_messages;
        for (size_t i = 0; i < n_messages; i++) {
                grpc_slice slice =
                        grpc_slice_from_copied_buffer(messages[i].data, messages[i].size);

                call->messages[i] = grpc_raw_byte_buffer_create(&slice, 1);
                grpc_slice_unref(slice);
        }
        grpc_metadata_array_init(&call->initial_metadata);
        grpc_metadata_array_init(&call->trailing_metadata);
        name = grpc_slice_from_copied_string(method);
        call->call = grpc_channel_create_call(
                ch->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->queue, name, NULL, deadline, NULL);
        grpc_slice_unref(name);
        list_append(&c->calls, &call->link);

        grpc_op receive[] = {
                {.op = GRPC_OP_RECV_INITIAL_METADATA,
                        .data.recv_initial_metadata.recv_initial_metadata =
                                &call->initial_metadata},
                {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->reply},
                {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                        .data.recv_status_on_client = {.trailing_metadata =
                                                               &call->trailing_metadata,
                                .status = &call->status,
                                .status_details = &call->details}},
        };

        /* Both count from the start: the pump may see the first end before the second is started.
         */
        call->n_batches = 2;
        call_start_batch(call, receive, sizeof(receive) / sizeof(*receive), &call->receive);
        if (ch->authentication) {
                token.key = grpc_slice_from_static_string("authentication");
                token.value = grpc_slice_from_copied_string(ch->authentication);
                send.data.send_initial_metadata.count = 1;
                send.data.send_initial_metadata.metadata = &token;
        }
        call_start_batch(call, &send, 1, &call->send);
        if (ch->authentication)
                grpc_slice_unref(token.value);
        return 0;
}
