/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "core/core.h"
#include "util/cleanup.h"

/*
 * The span socket: accepts apps of any user, checks who they are (SO_PEERCRED, pidfd) and what they
 * say, and turns their packets into core events. Main thread, on the given event loop. A peer that
 * breaks the protocol gets an Error packet, one log line and a close. Everything a peer causes is
 * bounded: connections per uid, segments per client. A few packets per wake-up and peer, so that no
 * peer starves the others.
 */

typedef struct Listener Listener;

typedef struct ListenerOps {
        /* A client of the instance said hello, or is gone (its segments are gone already). */
        void (*client_added)(void *userdata, Instance *instance, pid_t pid);
        void (*client_removed)(void *userdata, Instance *instance, pid_t pid);
} ListenerOps;

/*
 * `fd`: a bound and listening SOCK_SEQPACKET socket (socket activation), or -1: binds
 * config->span_socket itself with mode 0666, replacing a socket file that nobody listens on
 * (listening one: -EADDRINUSE). Return: 0, -errno.
 */
int listener_new(Listener **ret, sd_event *event, int fd, const Config *config, Core *core,
        const ListenerOps *ops, void *userdata);
/* Closes all connections (their segments stop) and removes the socket file that it made. */
Listener *listener_free(Listener *l);
DEFINE_CLEANUP(Listener *, listener_free)
void listener_set_config(Listener *l, const Config *config);

/* CoreOps.watch_changed: sends the new list to the instance's clients and bumps their generation
 * pages. */
void listener_watch_changed(Listener *l, Instance *instance);

/* Reads what clients with live segments have sent before the call, at once and not a few packets at
 * a time. Not from within a call of ours. */
void listener_catch_up(Listener *l);

/* Visits each client, for the status. */
typedef struct ClientInfo {
        pid_t pid;
        uid_t uid;
        const char *language, *client;
        Instance *instance; /* NULL: no hello yet */
} ClientInfo;
void listener_clients(
        Listener *l, void (*each)(void *userdata, const ClientInfo *info), void *userdata);
