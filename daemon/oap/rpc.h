/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * gRPC calls to one server: the only user of grpc's headers. A thread of its own pumps the
 * completion queue and hands what ended over to a list of our own with an eventfd; callbacks run on
 * the main thread, in rpc_dispatch(). The list is bounded by the calls that were started. Names no
 * SkyWalking message. gRPC's own logs are debug messages of ours. (gRPC's own allocations abort
 * when out of memory: the one exception to our rule.)
 */

typedef struct RpcClient RpcClient;

typedef struct RpcBytes {
        const void *data;
        size_t size;
} RpcBytes;

/* The values of grpc_status_code that callers tell apart. */
typedef enum RpcStatus {
        RPC_OK = 0,
        RPC_PERMISSION_DENIED = 7,
        RPC_RESOURCE_EXHAUSTED = 8,
        RPC_UNIMPLEMENTED = 12,
        RPC_UNAVAILABLE = 14,
        RPC_UNAUTHENTICATED = 16,
} RpcStatus;

const char *rpc_status_name(int status);

typedef struct RpcResult {
        int status;          /* grpc_status_code */
        const char *message; /* borrowed for the callback */
        RpcBytes reply;      /* OK: the reply's bytes, borrowed for the callback */

        /*
         * Bytes of a message may have left: a failed call is ambiguous. A message is handed to gRPC
         * only after the call's initial metadata was written to a connection that stood, so false
         * is certain; true may also mean that the first message got stuck on its way.
         */
        bool sent;
} RpcResult;

typedef void (*RpcDone)(void *userdata, const RpcResult *result);

/* `server`: host:port, plain text HTTP/2. Return: 0, -errno. */
int rpc_client_new(RpcClient **ret, const char *server);
/* Cancels all calls, whose callbacks are not called any more; joins the thread. */
RpcClient *rpc_client_free(RpcClient *c);
DEFINE_CLEANUP(RpcClient *, rpc_client_free)

/* Readable when rpc_dispatch() has something to do. */
int rpc_client_fd(const RpcClient *c);
/* Calls the callbacks of the calls that ended. They may start calls, but not free the client. */
void rpc_dispatch(RpcClient *c);

/*
 * Starts a call with these request messages (1 for unary methods, any number for client streams,
 * even none), which are copied. Never blocks; a server that is away gives RPC_UNAVAILABLE at once,
 * one that is being connected to is waited for until the deadline.
 *
 * Return: 0 (done will be called once), -ENOMEM.
 */
int rpc_call(RpcClient *c, const char *method, const RpcBytes *messages, size_t n_messages,
        uint32_t deadline_ms, RpcDone done, void *userdata);
