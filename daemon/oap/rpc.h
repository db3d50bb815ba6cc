/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * gRPC calls to one server: the only user of grpc's headers. A thread of its own pumps the completion queue and
 * posts what ended to a queue of our own with an eventfd; callbacks run on the main thread, in rpc_dispatch(). Names no
 * SkyWalking message. (gRPC's own allocations abort when out of memory: the one exception to our rule.)
 */

typedef struct RpcClient RpcClient;
typedef struct RpcCall RpcCall;

typedef struct RpcBytes {
        const void *data;
        size_t size;
} RpcBytes;

typedef struct RpcResult {
        int status;          /* grpc_status_code: 0 OK, 4 DEADLINE_EXCEEDED, 7 PERMISSION_DENIED, 8 RESOURCE_EXHAUSTED,
                              * 12 UNIMPLEMENTED, 14 UNAVAILABLE, 16 UNAUTHENTICATED, … */
        const char *message; /* borrowed for the callback */
        RpcBytes reply;      /* OK: the reply's bytes, borrowed for the callback */
        bool sent;           /* bytes of a message may have left: a failed call is ambiguous */
} RpcResult;

typedef void (*RpcDone)(void *userdata, const RpcResult *result);

/* `server`: host:port, plain text HTTP/2. Return: 0, -errno. */
int rpc_client_new(RpcClient **ret, const char *server);
/* Cancels all calls, whose callbacks are not called any more; joins the thread. */
RpcClient *rpc_client_free(RpcClient *c);
DEFINE_CLEANUP(RpcClient *, rpc_client_free)

/* Readable when rpc_dispatch() has something to do. */
int rpc_client_fd(const RpcClient *c);
/* Calls the callbacks of the calls that ended. They may start calls and free the client only after return. */
void rpc_dispatch(RpcClient *c);

/*
 * Starts a call with these request messages (1 for unary methods, any number for client streams), which are copied.
 * Never blocks; a server that is away gives UNAVAILABLE at once. Return: 0 (done will be called once), -ENOMEM.
 */
int rpc_call(RpcClient *c, const char *method, const RpcBytes *messages, size_t n_messages,
        uint32_t deadline_ms, RpcDone done, void *userdata);

unsigned rpc_calls_pending(const RpcClient *c);
