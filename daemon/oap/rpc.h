/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * gRPC calls: the only user of grpc's headers, with rpc-channel.c. A thread of its own pumps the
 * completion queue and hands what ended over to a list of our own with an eventfd; callbacks run on
 * the main thread, in rpc_dispatch(). The list is bounded by the calls that were started. Names no
 * SkyWalking message. gRPC's own logs are debug messages of ours. (gRPC's own allocations abort
 * when out of memory: the one exception to our rule.)
 */

typedef struct RpcClient RpcClient;
typedef struct RpcChannel RpcChannel;

typedef struct RpcBytes {
        const void *data;
        size_t size;
} RpcBytes;

/* The values of grpc_status_code that callers tell apart, and two more. */
typedef enum RpcStatus {
        RPC_OK = 0,
        RPC_CANCELLED = 1,
        RPC_UNKNOWN = 2,
        RPC_DEADLINE_EXCEEDED = 4,
        RPC_PERMISSION_DENIED = 7,
        RPC_RESOURCE_EXHAUSTED = 8,
        RPC_UNIMPLEMENTED = 12,
        RPC_UNAVAILABLE = 14,
        RPC_UNAUTHENTICATED = 16,
        RPC_UNTRUSTED = 17, /* UNAVAILABLE, for its certificate was not taken */
        RPC_NO_MEMORY = 18, /* ours: no call was made */
} RpcStatus;

const char *rpc_status_name(int status);

typedef struct RpcResult {
        int status;          /* grpc_status_code, or RPC_UNTRUSTED */
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

/* Return: 0, -errno. */
int rpc_client_new(RpcClient **ret);
/* Cancels all calls, whose callbacks are not called any more; joins the thread. */
RpcClient *rpc_client_free(RpcClient *c);
DEFINE_CLEANUP(RpcClient *, rpc_client_free)

/* Readable when rpc_dispatch() has something to do. */
int rpc_client_fd(const RpcClient *c);
/* Calls the callbacks of the calls that ended. They may start calls, but not free the client. */
void rpc_dispatch(RpcClient *c);

/* Where a channel leads, copied: texts of PEM, NULL for none. */
typedef struct RpcTarget {
        const char *server; /* host:port; its name is resolved anew for each connection */
        bool tls;
        const char *ca; /* NULL: the system's */
        const char *certificate, *key;
        const char *server_name;    /* that its certificate is to have; NULL: that of `server` */
        const char *authentication; /* the token that goes with each call */
        bool compress;
} RpcTarget;

/*
 * A connection, made when first needed and again after it broke. Channels are of the main thread.
 *
 * Return: 0, -ENOMEM.
 */
int rpc_channel_new(RpcChannel **ret, const RpcTarget *target);
/* Calls under way go on, and keep what they need. */
RpcChannel *rpc_channel_unref(RpcChannel *ch);
DEFINE_CLEANUP(RpcChannel *, rpc_channel_unref)
/* Whether the server has answered to a connection, which is tried if there is none. */
bool rpc_channel_ready(RpcChannel *ch);

/*
 * How long a call of that channel has been without a sign of life: neither did the server answer to
 * any, nor could that one send a message. UINT64_MAX: since then there is no call.
 */
uint64_t rpc_quiet_since_mono_ns(const RpcClient *c, const RpcChannel *ch);
/* Ends all calls of that channel, with RPC_CANCELLED. */
void rpc_cancel(RpcClient *c, const RpcChannel *ch);

/*
 * Starts a call with these request messages (1 for unary methods, any number for client streams,
 * even none), which are copied. Never blocks; a server that is away gives RPC_UNAVAILABLE at once,
 * one that is being connected to is waited for until the deadline.
 *
 * Return: 0 (done will be called once), -ENOMEM.
 */
int rpc_call(RpcClient *c, RpcChannel *ch, const char *method, const RpcBytes *messages,
        size_t n_messages, uint32_t deadline_ms, RpcDone done, void *userdata);
