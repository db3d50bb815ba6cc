/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "client/event.h"
#include "client/peer.h"
#include "core/counter.h"
#include "span.pb-c.h"
#include "util/error.h"
#include "util/owner.h"
#include "version.h"

#define HELLO_TIMEOUT_US (10 * 1000000ULL)

/* Of all users together. */
#define PEERS_MAX 4096

/* A peer that sends without pause gives way to the others after that many packets. */
#define PACKETS_PER_WAKEUP 16

/* No socket holds more of them, unless root has said so (SO_SNDBUFFORCE). */
#define PACKETS_UNREAD_MAX 1024

/* One packet, never blocking; `attach` is a descriptor for the client, or -1. Return: 0, -EAGAIN,
 * -errno. */
static int peer_send(Peer *p, const Swprof__DaemonPacket *packet, int attach)
{
        size_t size = swprof__daemon_packet__get_packed_size(packet);
        struct iovec iov = {.iov_base = p->set->reply, .iov_len = size};
        union {
                struct cmsghdr head;
                uint8_t bytes[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

        if (size > sizeof(p->set->reply))
                return error_origin(-EMSGSIZE);
        swprof__daemon_packet__pack(packet, p->set->reply);
        if (attach >= 0) {
                control.head = (struct cmsghdr){
                        .cmsg_len = CMSG_LEN(sizeof(int)),
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                };
                memcpy(CMSG_DATA(&control.head), &attach, sizeof(attach));
                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
        }
        if (sendmsg(p->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                return error_origin(-errno);
        return 0;
}

static void peer_send_error(Peer *p, const char *text)
{
        Swprof__Error error = SWPROF__ERROR__INIT;
        Swprof__DaemonPacket packet = SWPROF__DAEMON_PACKET__INIT;

        error.message = (char *)text;
        packet.event_case = SWPROF__DAEMON_PACKET__EVENT_ERROR;
        packet.error = &error;
        /* A close with packets unread would hide our text behind ECONNRESET. No more can come after
         * the shutdown. */
        shutdown(p->fd, SHUT_RD);
        while (recv(p->fd, NULL, 0, MSG_DONTWAIT | MSG_TRUNC) > 0)
                ;
        peer_send(p, &packet, -1);
}

static void peer_log(Peer *p, LogLimit *limit, const char *what)
{
        _cleanup_(closep) int fd = -1;
        char path[64], comm[32];
        unsigned suppressed;
        ssize_t n = -1;

        if (!log_limit(limit, &suppressed))
                return;
        snprintf(path, sizeof(path), "/proc/%d/comm", p->pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
                n = read(fd, comm, sizeof(comm) - 1);
        comm[n > 0 ? n - 1 : 0] = '\0';
        log_warning("client of pid %d (%s), uid %u: %s (%u more not logged)", p->pid, comm, p->uid,
                what, suppressed);
}

/* It broke the rules: says so to it and to us, and ends it. */
static void peer_break(Peer *p, const char *what)
{
        counter_add(COUNTER_CLIENTS_BROKEN, 1);
        peer_log(p, &p->set->log_broken, what);
        peer_send_error(p, what);
        peer_free(p);
}

/* It is not let in. */
static void peer_refuse(Peer *p, const char *what)
{
        counter_add(COUNTER_CLIENTS_REFUSED, 1);
        peer_log(p, &p->set->log_refused, what);
        peer_send_error(p, what);
        peer_free(p);
}

/* As many operations as a packet holds. */
static size_t list_fit(const Instance *instance)
{
        size_t size = 64, n; /* the generation and the message around it */

        for (n = 0; n < instance->n_watch; n++) {
                size += strlen(instance->watch[n]) + 4;
                if (size > DAEMON_PACKET_MAX)
                        break;
        }
        return n;
}

static void peer_set_writing(Peer *p, bool writing)
{
        sd_event_source_set_io_events(p->io, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* A failure other than "no room" also shows as the end of the connection, which is dealt with
 * there. */
static void peer_send_list(Peer *p)
{
        Swprof__WatchList list = SWPROF__WATCH_LIST__INIT;
        Swprof__DaemonPacket packet = SWPROF__DAEMON_PACKET__INIT;
        unsigned suppressed;
        bool dirty;
        int r;

        list.generation = p->generation;
        list.n_operations = list_fit(p->instance);
        list.operations = (char **)p->instance->watch;
        packet.event_case = SWPROF__DAEMON_PACKET__EVENT_WATCH;
        packet.watch = &list;
        if (list.n_operations < p->instance->n_watch && log_limit(&p->set->log_list, &suppressed))
                log_warning(
                        "%s/%s has more operations under tasks than clients can be told: %zu of %u",
                        p->instance->service, p->instance->name, list.n_operations,
                        p->instance->n_watch);
        r = peer_send(p, &packet, -1);
        if (r == 0)
                watch_page_set(&p->page, p->generation);
        dirty = r == -EAGAIN;
        if (dirty != p->dirty)
                peer_set_writing(p, dirty);
        p->dirty = dirty;
}

void peer_watch_changed(Peer *p)
{
        p->generation++;
        if (!p->dirty)
                peer_send_list(p);
}

/* Return: 0, -errno: the peer cannot be served. */
static int peer_welcome(Peer *p, const ClientHello *hello)
{
        _cleanup_(closep) int page_fd = -1;
        Swprof__Welcome welcome = SWPROF__WELCOME__INIT;
        Swprof__DaemonPacket packet = SWPROF__DAEMON_PACKET__INIT;
        int r;

        p->owned = owner_of(p->pid, p->uid) == OWNER_SELF;
        p->language = strdup(hello->language);
        p->client = strdup(hello->client);
        if (!p->language || !p->client)
                return error_origin(-ENOMEM);
        /* The word counts from 1, so that it differs from what a client without a list has. */
        p->generation = 1;
        r = watch_page_init(&p->page, p->generation, &page_fd);
        if (r)
                return error_trace(r);
        welcome.protocol = CLIENT_PROTOCOL;
        welcome.daemon = (char *)SWPROFD_VERSION;
        packet.event_case = SWPROF__DAEMON_PACKET__EVENT_WELCOME;
        packet.welcome = &welcome;
        r = peer_send(p, &packet, page_fd);
        if (r)
                return error_trace(r);
        r = core_instance_attach(p->set->core, &p->instance, hello->service, hello->instance,
                hello->agent, now_get());
        if (r)
                return error_fold(r);
        peer_send_list(p);
        p->hello_timer = sd_event_source_disable_unref(p->hello_timer);
        counter_add(COUNTER_CLIENTS_ACCEPTED, 1);
        log_debug("client of pid %d, uid %u: %s/%s, %s, %s", p->pid, p->uid, hello->service,
                hello->instance, p->language, p->client);
        p->set->ops->client_added(p->set->userdata, p->instance, p->pid);
        return 0;
}

/* Return: whether the peer is still there. */
static bool peer_packet(Peer *p, const void *bytes, size_t size)
{
        const char *error = NULL;
        ClientPacket packet;
        int r = client_packet_parse(&packet, &p->set->arena, bytes, size, &error);

        if (r == CLIENT_PACKET_E_HELLO && !p->instance) {
                peer_refuse(p, error);
                return false;
        }
        if (r) {
                peer_break(p, error);
                return false;
        }
        if (packet.type == CLIENT_PACKET_HELLO) {
                if (p->instance) {
                        peer_break(p, "second hello");
                        return false;
                }
                r = peer_welcome(p, &packet.hello);
        } else {
                if (!p->instance) {
                        peer_break(p, "event before the hello");
                        return false;
                }
                r = peer_event(p, packet.type, &packet.event, now_get());
        }
        if (r < 0) {
                peer_log(p, &p->set->log_broken, strerror(-r));
                peer_free(p);
                return false;
        }
        return true;
}

/* Pid of the process that sent the packet, 0: none told, or one that our pid namespace does not
 * see. */
static pid_t message_pid(struct msghdr *message)
{
        struct cmsghdr *c = CMSG_FIRSTHDR(message);
        struct ucred cred;

        if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS ||
                c->cmsg_len < CMSG_LEN(sizeof(cred)))
                return 0;
        memcpy(&cred, CMSG_DATA(c), sizeof(cred));
        return cred.pid;
}

/* Takes one packet. Return: whether the peer is still there and may have more. */
static bool peer_receive(Peer *p)
{
        /* Credentials fill it: there is no room for descriptors, the kernel drops those. */
        union {
                struct cmsghdr head;
                uint8_t bytes[CMSG_SPACE(sizeof(struct ucred))];
        } control;
        struct iovec iov = {.iov_base = p->set->packet, .iov_len = sizeof(p->set->packet)};
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n = recvmsg(p->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return false;
        /* It closed with a list unread. Told once, ahead of the packets that it had still sent. */
        if (n < 0 && errno == ECONNRESET)
                return true;
        /* An empty packet comes with credentials, the end does not. */
        if (n < 0 || (n == 0 && message.msg_controllen == 0)) {
                peer_free(p);
                return false;
        }
        if (message_pid(&message) != p->pid) {
                peer_break(p, "packet from another process than the one that connected");
                return false;
        }
        if (message.msg_flags & MSG_TRUNC) {
                peer_break(p, "packet larger than 32768 bytes");
                return false;
        }
        return peer_packet(p, p->set->packet, (size_t)n);
}

static int peer_on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        Peer *p = userdata;

        if (events & EPOLLOUT && p->dirty)
                peer_send_list(p);
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                for (unsigned i = 0; i < PACKETS_PER_WAKEUP && peer_receive(p); i++)
                        ;
        return 0;
}

void peer_catch_up(Peer *p)
{
        for (unsigned i = 0; i < PACKETS_UNREAD_MAX && peer_receive(p); i++)
                ;
}

static int peer_on_exit(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        peer_free(userdata);
        return 0;
}

static int peer_on_hello_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        peer_refuse(userdata, "no hello came in time");
        return 0;
}

static unsigned uid_peers(PeerSet *s, uid_t uid)
{
        unsigned n = 0;
        Peer *p;

        list_for_each (p, &s->peers, link)
                n += p->uid == uid;
        return n;
}

/* Takes the pidfd over, unless it fails. Return: 0, -errno. */
static int peer_watch(Peer *p, int pidfd)
{
        sd_event *event = p->set->event;
        int r;

        r = sd_event_add_io(event, &p->io, p->fd, EPOLLIN, peer_on_io, p);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_description(p->io, "client");
        r = sd_event_add_io(event, &p->exit, pidfd, EPOLLIN, peer_on_exit, p);
        if (r < 0)
                return error_origin(r);
        /* What the process had still sent is read before its end counts. */
        r = sd_event_source_set_priority(p->exit, SD_EVENT_PRIORITY_NORMAL + 1);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_description(p->exit, "client-exit");
        r = sd_event_add_time_relative(event, &p->hello_timer, CLOCK_MONOTONIC,
                p->set->hello_timeout_us, 0, peer_on_hello_timeout, p);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_description(p->hello_timer, "client-hello");
        r = sd_event_source_set_io_fd_own(p->exit, true);
        if (r < 0)
                return error_origin(r);
        return 0;
}

int peer_new(PeerSet *s, int fd)
{
        _cleanup_(peer_freep) Peer *p = NULL;
        _cleanup_(closep) int socket_fd = fd, pidfd = -1;
        struct ucred cred;
        socklen_t size = sizeof(cred);
        unsigned n_uid;
        char text[128];
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
                return error_origin(-errno);
        if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)) < 0)
                return error_origin(-errno);
        p = calloc(1, sizeof(*p));
        if (!p)
                return error_origin(-ENOMEM);
        p->set = s;
        stack_set_init(&p->stacks);
        p->fd = TAKE_FD(socket_fd);
        p->pid = cred.pid;
        p->uid = cred.uid;
        n_uid = uid_peers(s, p->uid);
        list_append(&s->peers, &p->link);
        s->n_peers++;
        p->id = ++s->last_id;
        if (p->pid == 0) {
                peer_refuse(
                        TAKE_PTR(p), "the client is in a pid namespace that the daemon cannot see");
                return 0;
        }
        if (n_uid >= s->config->limits_clients_per_uid) {
                snprintf(text, sizeof(text),
                        "this user has %u connections, as many as limits.clients_per_uid allows",
                        n_uid);
                peer_refuse(TAKE_PTR(p), text);
                return 0;
        }
        if (s->n_peers > s->max_peers) {
                peer_refuse(TAKE_PTR(p), "the daemon has as many connections as it can");
                return 0;
        }
        pidfd = pidfd_open(p->pid, 0);
        if (pidfd < 0) {
                /* ESRCH: it has ended already. */
                return errno == ESRCH ? 0 : error_origin(-errno);
        }
        r = thread_map_init(&p->threads, p->pid);
        if (r)
                return r == THREAD_MAP_E_UNKNOWN ? 0 : error_trace(r);
        r = peer_watch(p, pidfd);
        if (r)
                return error_trace(r);
        TAKE_FD(pidfd);
        TAKE_PTR(p);
        return 0;
}

Peer *peer_free(Peer *p)
{
        if (!p)
                return NULL;
        if (p->instance) {
                Now now = now_get();

                core_client_gone(p->set->core, p->id, now);
                p->set->ops->client_removed(p->set->userdata, p->instance, p->pid);
                core_instance_detach(p->set->core, p->instance, now);
        }
        watch_page_deinit(&p->page);
        sd_event_source_disable_unref(p->io);
        sd_event_source_disable_unref(p->exit);
        sd_event_source_disable_unref(p->hello_timer);
        thread_map_deinit(&p->threads);
        stack_set_deinit(&p->stacks);
        if (p->fd >= 0)
                close(p->fd);
        free(p->language);
        free(p->client);
        list_remove(&p->link);
        p->set->n_peers--;
        free(p);
        return NULL;
}

/* A peer holds two descriptors; half of all are left for the rest of the daemon. */
static unsigned peers_max(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur / 4 > PEERS_MAX)
                return PEERS_MAX;
        return (unsigned)(limit.rlim_cur / 4);
}

void peer_set_init(PeerSet *ret, sd_event *event, const Config *config, Core *core,
        const ListenerOps *ops, void *userdata)
{
        ret->event = sd_event_ref(event);
        ret->config = config;
        ret->core = core;
        ret->ops = ops;
        ret->userdata = userdata;
        ret->n_peers = 0;
        ret->last_id = 0;
        ret->max_peers = peers_max();
        ret->hello_timeout_us = HELLO_TIMEOUT_US;
        ret->log_broken = ret->log_refused = ret->log_thread = ret->log_list =
                (LogLimit)LOG_LIMIT_INIT;
        list_init(&ret->peers);
}

void peer_set_deinit(PeerSet *s)
{
        Peer *p, *next;

        list_for_each_safe (p, next, &s->peers, link)
                peer_free(p);
        s->event = sd_event_unref(s->event);
}
