/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "client/listener.h"
#include "client/peer.h"
#include "util/error.h"
#include "util/unix-socket.h"

/* While descriptors or memory are short, connections wait in the backlog for that long. */
#define ACCEPT_PAUSE_US 1000000ULL

#define ACCEPTS_PER_WAKEUP 16

struct Listener {
        int fd;
        char *path; /* of the socket file that is ours to remove, or NULL */
        sd_event_source *io, *pause;
        bool short_logged;
        PeerSet peers;
};

static int listener_on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
        Listener *l = userdata;

        return sd_event_source_set_enabled(l->io, SD_EVENT_ON);
}

static void listener_pause(Listener *l, int error)
{
        if (!l->short_logged)
                log_error(
                        "connections of clients cannot be accepted, for now: %s", strerror(error));
        l->short_logged = true;
        if (sd_event_source_set_time_relative(l->pause, ACCEPT_PAUSE_US) < 0 ||
                sd_event_source_set_enabled(l->pause, SD_EVENT_ONESHOT) < 0)
                return;
        (void)sd_event_source_set_enabled(l->io, SD_EVENT_OFF);
}

static int listener_on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        Listener *l = userdata;

        for (unsigned i = 0; i < ACCEPTS_PER_WAKEUP; i++) {
                int r, client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (client < 0 && errno == EAGAIN)
                        break;
                if (client < 0 && (errno == EINTR || errno == ECONNABORTED))
                        continue;
                r = client < 0 ? -errno : peer_new(&l->peers, client);
                if (r) {
                        listener_pause(l, -r);
                        break;
                }
                l->short_logged = false;
        }
        return 0;
}

int listener_new(Listener **ret, sd_event *event, int fd, const Config *config, Core *core,
        const ListenerOps *ops, void *userdata)
{
        _cleanup_(listener_freep) Listener *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return error_origin(-ENOMEM);
        l->fd = fd;
        peer_set_init(&l->peers, event, config, core, ops, userdata);
        if (fd < 0) {
                l->fd = unix_socket_listen(config->span_socket, SOCK_SEQPACKET, 0666, (gid_t)-1);
                if (l->fd < 0)
                        return error_trace(l->fd);
                l->path = strdup(config->span_socket);
                if (!l->path) {
                        unlink(config->span_socket);
                        return error_origin(-ENOMEM);
                }
        }
        /* Accepted sockets inherit it: packets sent before the accept carry credentials, too. */
        if (setsockopt(l->fd, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)) < 0)
                return error_origin(-errno);
        r = sd_event_add_io(event, &l->io, l->fd, EPOLLIN, listener_on_io, l);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_description(l->io, "span-socket");
        r = sd_event_add_time_relative(
                event, &l->pause, CLOCK_MONOTONIC, ACCEPT_PAUSE_US, 0, listener_on_pause_over, l);
        if (r < 0)
                return error_origin(r);
        r = sd_event_source_set_enabled(l->pause, SD_EVENT_OFF);
        if (r < 0)
                return error_origin(r);
        *ret = TAKE_PTR(l);
        return 0;
}

Listener *listener_free(Listener *l)
{
        if (!l)
                return NULL;
        peer_set_deinit(&l->peers);
        sd_event_source_disable_unref(l->io);
        sd_event_source_disable_unref(l->pause);
        if (l->path)
                unlink(l->path);
        if (l->fd >= 0)
                close(l->fd);
        free(l->path);
        free(l);
        return NULL;
}

void listener_set_config(Listener *l, const Config *config)
{
        l->peers.config = config;
}

void listener_watch_changed(Listener *l, Instance *instance)
{
        Peer *p;

        list_for_each (p, &l->peers.peers, link)
                if (p->instance == instance)
                        peer_watch_changed(p);
}

void listener_catch_up(Listener *l)
{
        Peer *p, *next;

        list_for_each_safe (p, next, &l->peers.peers, link)
                if (core_client_segments(l->peers.core, p->id) > 0)
                        peer_catch_up(p);
}

void listener_clients(
        Listener *l, void (*each)(void *userdata, const ClientInfo *info), void *userdata)
{
        Peer *p;

        list_for_each (p, &l->peers.peers, link) {
                ClientInfo info = {
                        .pid = p->pid,
                        .uid = p->uid,
                        .language = p->language ?: "",
                        .client = p->client ?: "",
                        .instance = p->instance,
                };

                each(userdata, &info);
        }
}
