/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "control/connection.h"
#include "control/server.h"
#include "core/counter.h"
#include "util/error.h"
#include "util/log.h"
#include "util/unix-socket.h"

/* People and monitoring; each lasts for milliseconds, mostly. */
#define CONNECTIONS_MAX 16
/* Of those, so many serve peers that are not trusted. */
#define UNTRUSTED_MAX 4
/* And so many each of their users. */
#define UNTRUSTED_USER_MAX 2

/* While descriptors or memory are short, connections wait in the backlog for that long. */
#define ACCEPT_PAUSE_US 1000000ULL

/* The kernel's limit of the groups of a process. */
#define GROUPS_MAX 65536

struct ControlServer {
        int fd;
        char *path;  /* of the socket file that is ours to remove, or NULL */
        gid_t group; /* -1: none */
        sd_event_source *io, *pause;
        bool short_logged;
        ConnectionSet connections;
};

/* The group's id; -1: there is no such group. */
static gid_t group_find(const char *name)
{
        const struct group *g = name && *name ? getgrnam(name) : NULL;

        return g ? g->gr_gid : (gid_t)-1;
}

/*
 * The groups are those that the peer's process had when it connected, as for the socket file: the
 * kernel knows them, no directory service has to be asked. Return: whether it is one of them; false
 * as well when they cannot be had.
 */
static bool peer_in_group(int fd, gid_t group)
{
        _cleanup_(freep) gid_t *groups = NULL;
        socklen_t size = GROUPS_MAX * sizeof(*groups);

        groups = malloc(size);
        if (!groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
                return false;
        for (size_t i = 0; i < size / sizeof(*groups); i++)
                if (groups[i] == group)
                        return true;
        return false;
}

/* Return: 0, -errno. */
static int peer_identify(int fd, gid_t group, ControlPeer *ret)
{
        struct ucred cred;
        socklen_t size = sizeof(cred);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
                return error_origin(-errno);
        *ret = (ControlPeer){.uid = cred.uid};
        ret->trusted = cred.uid == 0 ||
                       (group != (gid_t)-1 && (cred.gid == group || peer_in_group(fd, group)));
        return 0;
}

static bool server_has_room(const ControlServer *s, const ControlPeer *peer)
{
        unsigned n_untrusted = 0, n_user = 0;
        Connection *c;

        list_for_each (c, &s->connections.connections, link) {
                n_untrusted += !c->peer.trusted;
                n_user += !c->peer.trusted && c->peer.uid == peer->uid;
        }
        return s->connections.n_connections < CONNECTIONS_MAX &&
               (peer->trusted || (n_untrusted < UNTRUSTED_MAX && n_user < UNTRUSTED_USER_MAX));
}

/* Takes the socket over. Return: 0, -errno. */
static int server_admit(ControlServer *s, int fd)
{
        _cleanup_(closep) int socket_fd = fd;
        ControlPeer peer;
        int r;

        r = peer_identify(fd, s->group, &peer);
        if (r)
                return error_trace(r);
        TAKE_FD(socket_fd);
        if (!server_has_room(s, &peer)) {
                counter_add(COUNTER_CONTROL_REFUSED, 1);
                connection_refuse(fd, "too many control connections");
                return 0;
        }
        return error_trace(connection_new(&s->connections, fd, &peer));
}

static int server_on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
        ControlServer *s = userdata;

        return sd_event_source_set_enabled(s->io, SD_EVENT_ON);
}

static void server_pause(ControlServer *s, int error)
{
        if (!s->short_logged)
                log_error("control connections cannot be accepted, for now: %s", strerror(error));
        s->short_logged = true;
        if (sd_event_source_set_time_relative(s->pause, ACCEPT_PAUSE_US) < 0 ||
                sd_event_source_set_enabled(s->pause, SD_EVENT_ONESHOT) < 0)
                return;
        (void)sd_event_source_set_enabled(s->io, SD_EVENT_OFF);
}

static int server_on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        ControlServer *s = userdata;
        int r, client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (client < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
                return 0;
        r = client < 0 ? -errno : server_admit(s, client);
        if (r)
                server_pause(s, -r);
        else
                s->short_logged = false;
        return 0;
}

/* Everyone may connect; the file's group tells people which one may ask all. Return: 0, -errno. */
static int server_listen(ControlServer *s, const char *path)
{
        int fd = unix_socket_listen(path, SOCK_STREAM, 0666, s->group);

        if (fd < 0)
                return error_trace(fd);
        s->fd = fd;
        s->path = strdup(path);
        if (!s->path) {
                unlink(path);
                return error_origin(-ENOMEM);
        }
        return 0;
}

int control_server_new(ControlServer **ret, sd_event *event, int fd, const Config *config,
        const ControlOps *ops, void *userdata)
{
        _cleanup_(control_server_freep) ControlServer *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return error_origin(-ENOMEM);
        s->fd = fd;
        s->group = group_find(config->control_group);
        connection_set_init(&s->connections, event, ops, userdata);
        if (fd < 0) {
                r = server_listen(s, config->control_socket);
                if (r)
                        return error_trace(r);
        }
        r = sd_event_add_io(event, &s->io, s->fd, EPOLLIN, server_on_io, s);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_description(s->io, "control-socket");
        r = sd_event_add_time_relative(
                event, &s->pause, CLOCK_MONOTONIC, ACCEPT_PAUSE_US, 0, server_on_pause_over, s);
        if (r < 0)
                return error_origin(r);
        r = sd_event_source_set_enabled(s->pause, SD_EVENT_OFF);
        if (r < 0)
                return error_origin(r);
        *ret = TAKE_PTR(s);
        return 0;
}

ControlServer *control_server_free(ControlServer *s)
{
        if (!s)
                return NULL;
        connection_set_deinit(&s->connections);
        sd_event_source_disable_unref(s->io);
        sd_event_source_disable_unref(s->pause);
        if (s->path)
                unlink(s->path);
        if (s->fd >= 0)
                close(s->fd);
        free(s->path);
        free(s);
        return NULL;
}
