/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config.h"
#include "oap/credentials.h"
#include "oap/rpc.h"

/*
 * Which of the backend's servers is spoken to. One is drawn as home, so that many daemons spread
 * over them; from one that fails, or gives no sign of life, all goes on to the next; home is looked
 * at again after a while, and returned to once it answers to a connection. Calls under way end
 * where they began, but for those of a server that gives no sign of life, which are cancelled.
 *
 * No pings: a call that hangs is what shows a server that does. Where there is but one server, its
 * calls have until their deadline.
 */

typedef struct Server {
        char *name; /* host:port */
        uint64_t unsupported_until_mono_ns;

        /* Of the backend: what was logged since all was well, RPC_OK: nothing. */
        int logged_status;
        uint64_t logged_error; /* hash */
} Server;

typedef struct Connection {
        RpcClient *rpc;
        RpcChannel *channel;
        uint32_t (*random)(void);
        uint32_t failover_ms;

        Server *servers;
        size_t n_servers, current, home;
        Credentials credentials;
        bool compress;

        uint64_t since_mono_ns; /* of the current one */
        unsigned n_failed;      /* servers in a row, since one did not */

        RpcChannel *candidate;   /* to home; NULL: not looked at */
        unsigned n_returns;      /* attempts in a row */
        uint64_t return_mono_ns; /* to look at home next, or at the candidate; UINT64_MAX: never */
        uint64_t candidate_until_mono_ns;
} Connection;

enum {
        _CONNECTION_E_SUCCESS,
        CONNECTION_E_INVALID,
};

/*
 * There must be a server. Return: 0; CONNECTION_E_INVALID: the configuration names files that do
 * not do, *ret_error says which (malloc'ed); -errno.
 */
int connection_init(
        Connection *c, const Config *config, uint32_t (*random)(void), char **ret_error);
void connection_deinit(Connection *c);

/*
 * Takes new servers and credentials over; what is under way ends with the old. *ret_changed: there
 * is a new connection. Return: 0; CONNECTION_E_INVALID and -ENOMEM, and all stays as it was.
 */
int connection_set_config(Connection *c, const Config *config, uint64_t now_mono_ns,
        bool *ret_changed, char **ret_error);

const char *connection_server(const Connection *c);

/* rpc_call() to the current server. */
int connection_call(Connection *c, const char *method, const RpcBytes *messages, size_t n,
        uint32_t deadline_ms, RpcDone done, void *userdata);

/* What a call that began before says is not about the current server. */
bool connection_is_stale(const Connection *c, uint64_t started_mono_ns);
/* The current server took a call. */
void connection_succeeded(Connection *c);

typedef enum ConnectionNext {
        CONNECTION_WAIT,     /* the same server, later */
        CONNECTION_SWITCHED, /* another one, now */
        CONNECTION_ROUND,    /* another one, but all have failed: later */
} ConnectionNext;
/* A call to the current server ended with that status. */
ConnectionNext connection_failed(Connection *c, int status, uint64_t now_mono_ns);

/* The calls under way get no sign of life, and were cancelled: say so to connection_failed(). */
bool connection_stalled(Connection *c, uint64_t now_mono_ns);
/* Return: whether home was returned to. */
bool connection_step(Connection *c, uint64_t now_mono_ns);
uint64_t connection_next_mono_ns(const Connection *c);
