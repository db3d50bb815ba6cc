/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "client/listener.h"
#include "client/packet.h"
#include "client/stack-set.h"
#include "client/thread-map.h"
#include "client/watch-page.h"
#include "util/list.h"
#include "util/log.h"

/*
 * One connection of the span socket, from accept to close. A peer lives in its set, which holds
 * what all share, and frees itself when its socket, its process or its own mistake ends it; only
 * ever from its own event sources or peer_catch_up(), never while core calls us.
 */

/* span.proto: the largest packet from the daemon. */
#define DAEMON_PACKET_MAX 65536

typedef struct PeerSet {
        sd_event *event;
        const Config *config;
        Core *core;
        const ListenerOps *ops;
        void *userdata;
        ListLink peers; /* Peer.link */
        unsigned n_peers, max_peers;
        uint64_t last_id;
        uint64_t hello_timeout_us;
        LogLimit log_broken, log_refused, log_thread, log_list;
        PacketArena arena;                 /* of the packet at hand */
        uint8_t packet[CLIENT_PACKET_MAX]; /* its bytes */
        uint8_t reply[DAEMON_PACKET_MAX];
} PeerSet;

typedef struct Peer {
        PeerSet *set;
        ListLink link;
        uint64_t id; /* core's name for the client; never reused */
        int fd;
        pid_t pid;
        uid_t uid;
        bool owned; /* the process is that user's alone, who may look at it */
        sd_event_source *io, *exit, *hello_timer;
        ThreadMap threads;
        StackSet stacks;
        Instance *instance; /* NULL: no hello yet */
        char *language, *client;
        WatchPage page;
        uint64_t generation; /* of the newest list */
        bool dirty;          /* the newest list waits for room in the socket */
} Peer;

void peer_set_init(PeerSet *ret, sd_event *event, const Config *config, Core *core,
        const ListenerOps *ops, void *userdata);
void peer_set_deinit(PeerSet *s);

/* Takes the accepted socket over. One that is refused is told why, logged, counted and closed.
 * Return: 0, -errno. */
int peer_new(PeerSet *s, int fd);
Peer *peer_free(Peer *p);
DEFINE_CLEANUP(Peer *, peer_free)

/* Reads what it has sent before the call. It may be gone then. */
void peer_catch_up(Peer *p);

/* The instance has another watch list: sends it as soon as the socket takes it. */
void peer_watch_changed(Peer *p);
