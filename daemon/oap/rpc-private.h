/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <grpc/grpc.h>
#include <stdatomic.h>

#include "oap/rpc.h"

/* What rpc.c needs of a channel. Main thread, but for `heard_mono_ns`. */

typedef struct RpcTrust RpcTrust;

struct RpcChannel {
        unsigned n_refs; /* the owner's, and one for each call */
        grpc_channel *channel;
        RpcTrust *trust;                /* NULL: no TLS */
        char *authentication;           /* NULL: none */
        _Atomic uint64_t heard_mono_ns; /* when the server last answered, 0: never */
};

/* Why the server's certificate was not taken when last looked at, into *ret; false: it was. */
bool rpc_channel_distrusts(RpcChannel *ch, char *ret, size_t size);
