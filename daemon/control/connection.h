/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "control/server.h"
#include "util/list.h"

/*
 * One connection of the control socket: reads the request, has it handled, sends the reply, and
 * frees itself. It never waits for its peer, and lives no longer than its time.
 */

#define CONTROL_PROTOCOL    1
#define CONTROL_REQUEST_MAX 4096
#define CONTROL_REPLY_MAX   (64U << 20)

typedef struct ConnectionSet {
        sd_event *event;
        const ControlOps *ops;
        void *userdata;
        uint64_t timeout_us;
        ListLink connections; /* Connection.link */
        unsigned n_connections;
} ConnectionSet;

typedef struct Connection {
        ConnectionSet *set;
        ListLink link;
        int fd;
        ControlPeer peer;
        bool waits;    /* for the answer of ops */
        bool handling; /* ops->request is being called */
        sd_event_source *io, *timer;
        uint8_t request[4 + CONTROL_REQUEST_MAX]; /* with its length in front */
        size_t n_request;
        uint8_t *reply; /* with its length in front; NULL: none yet */
        size_t n_reply, n_sent;
} Connection;

void connection_set_init(
        ConnectionSet *ret, sd_event *event, const ControlOps *ops, void *userdata);
void connection_set_deinit(ConnectionSet *s);

/* Takes the accepted socket over. Return: 0, -errno. */
int connection_new(ConnectionSet *s, int fd, const ControlPeer *peer);
Connection *connection_free(Connection *c);
DEFINE_CLEANUP(Connection *, connection_free)

/*
 * For a peer that is not served now: says why, as far as the socket takes it at once, and closes it.
 */
void connection_refuse(int fd, const char *error);
