/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "control.pb-c.h"
#include "control/connection.h"
#include "util/error.h"

/* A peer has that long to send its request and to take the reply. */
#define TIMEOUT_US (5 * 1000000ULL)

typedef Swprof__Control__Request Request;
typedef Swprof__Control__Reply Reply;

static void length_put(uint8_t *bytes, uint32_t n)
{
        for (unsigned i = 0; i < 4; i++)
                bytes[i] = (uint8_t)(n >> (8 * i));
}

static uint32_t length_get(const uint8_t *bytes)
{
        uint32_t n = 0;

        for (unsigned i = 0; i < 4; i++)
                n |= (uint32_t)bytes[i] << (8 * i);
        return n;
}

/* The reply with its length in front, malloc'ed. Return: 0, -EMSGSIZE: larger than the protocol
 * allows, -ENOMEM. */
static int reply_encode(const Reply *reply, uint8_t **ret, size_t *ret_size)
{
        Reply copy = *reply;
        size_t size;
        uint8_t *bytes;

        copy.protocol = CONTROL_PROTOCOL;
        size = swprof__control__reply__get_packed_size(&copy);
        if (size > CONTROL_REPLY_MAX)
                return error_origin(-EMSGSIZE);
        bytes = malloc(4 + size);
        if (!bytes)
                return error_origin(-ENOMEM);
        length_put(bytes, (uint32_t)size);
        swprof__control__reply__pack(&copy, bytes + 4);
        *ret = bytes;
        *ret_size = 4 + size;
        return 0;
}

void control_call_fail(ControlCall *c, const char *error, bool refused)
{
        Reply reply = SWPROF__CONTROL__REPLY__INIT;

        reply.error = (char *)error;
        reply.refused = refused;
        control_call_respond(c, &reply);
}

const ControlPeer *control_call_peer(const ControlCall *c)
{
        return &c->peer;
}

void control_call_expect(ControlCall *c, uint64_t more_us)
{
        (void)sd_event_source_set_time_relative(c->timer, c->set->timeout_us + more_us);
}

Request *control_request_parse(const void *bytes, size_t size)
{
        if (size > CONTROL_REQUEST_MAX)
                return NULL;
        return swprof__control__request__unpack(NULL, size, bytes);
}

/* Return: whether there is more to send, and the connection still there. */
static bool connection_send(Connection *c)
{
        ssize_t n = send(
                c->fd, c->reply + c->n_sent, c->n_reply - c->n_sent, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        if (n > 0)
                c->n_sent += (size_t)n;
        if (n < 0 || c->n_sent == c->n_reply) {
                connection_free(c);
                return false;
        }
        return true;
}

/* The reply is there, or there is no memory for one: the connection ends. */
static void connection_flush(Connection *c)
{
        if (!c->reply) {
                connection_free(c);
                return;
        }
        if (connection_send(c))
                (void)sd_event_source_set_io_events(c->io, EPOLLOUT);
}

void control_call_respond(ControlCall *c, const Reply *reply)
{
        c->waits = false;
        if (reply_encode(reply, &c->reply, &c->n_reply) == -EMSGSIZE) {
                Reply error = SWPROF__CONTROL__REPLY__INIT;

                error.error = (char *)"the reply is larger than 64 MiB";
                (void)reply_encode(&error, &c->reply, &c->n_reply);
        }
        if (c->handling)
                return;
        (void)sd_event_source_set_time_relative(c->timer, c->set->timeout_us);
        connection_flush(c);
}

static void connection_handle(Connection *c)
{
        Request *request = NULL;

        if (length_get(c->request) <= CONTROL_REQUEST_MAX)
                request = control_request_parse(c->request + 4, c->n_request - 4);
        c->waits = c->handling = true;
        if (!request)
                control_call_fail(c, "malformed request", false);
        else if (request->protocol != CONTROL_PROTOCOL)
                control_call_fail(c, "this daemon speaks control protocol 1 only", false);
        else if (request->verb_case == SWPROF__CONTROL__REQUEST__VERB__NOT_SET)
                control_call_fail(c, "this daemon does not know that request", false);
        else
                c->set->ops->request(c->set->userdata, c, request);
        c->handling = false;
        swprof__control__request__free_unpacked(request, NULL);
}

/* Reads what is there. Return: whether the request can be handled, and the connection is still
 * there. */
static bool connection_receive(Connection *c)
{
        size_t want = 4;
        ssize_t n;

        if (c->n_request >= 4)
                want += length_get(c->request);
        n = recv(c->fd, c->request + c->n_request, want - c->n_request, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return false;
        if (n <= 0) {
                connection_free(c);
                return false;
        }
        c->n_request += (size_t)n;
        if (c->n_request < 4)
                return false;
        /* One that is too long is answered as soon as it says so. */
        return length_get(c->request) > CONTROL_REQUEST_MAX ||
               c->n_request == 4 + length_get(c->request);
}

/* Nothing is to come any more but the end of what the peer sends. */
static void connection_on_hurry(Connection *c, uint32_t events)
{
        char byte;
        ssize_t n = recv(c->fd, &byte, 1, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n != 0 || (events & (EPOLLHUP | EPOLLERR))) {
                connection_free(c);
                return;
        }
        (void)sd_event_source_set_io_events(c->io, 0);
        c->set->ops->hurry(c->set->userdata, c, false);
}

static int connection_on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        Connection *c = userdata;

        if (c->waits) {
                connection_on_hurry(c, events);
                return 0;
        }
        if (!c->reply) {
                if (!connection_receive(c))
                        return 0;
                connection_handle(c);
                if (c->waits)
                        return 0;
        }
        connection_flush(c);
        return 0;
}

static int connection_on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        connection_free(userdata);
        return 0;
}

int connection_new(ConnectionSet *s, int fd, const ControlPeer *peer)
{
        _cleanup_(connection_freep) Connection *c = NULL;
        _cleanup_(closep) int socket_fd = fd;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return error_origin(-ENOMEM);
        c->set = s;
        c->peer = *peer;
        c->fd = TAKE_FD(socket_fd);
        list_append(&s->connections, &c->link);
        s->n_connections++;
        r = sd_event_add_io(s->event, &c->io, c->fd, EPOLLIN, connection_on_io, c);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_description(c->io, "control");
        r = sd_event_add_time_relative(
                s->event, &c->timer, CLOCK_MONOTONIC, s->timeout_us, 0, connection_on_timeout, c);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_description(c->timer, "control-timeout");
        TAKE_PTR(c);
        return 0;
}

Connection *connection_free(Connection *c)
{
        if (!c)
                return NULL;
        if (c->waits)
                c->set->ops->hurry(c->set->userdata, c, true);
        sd_event_source_disable_unref(c->io);
        sd_event_source_disable_unref(c->timer);
        if (c->fd >= 0)
                close(c->fd);
        free(c->reply);
        list_remove(&c->link);
        c->set->n_connections--;
        free(c);
        return NULL;
}

void connection_refuse(int fd, const char *error)
{
        _cleanup_(closep) int socket_fd = fd;
        _cleanup_(freep) uint8_t *bytes = NULL;
        Reply reply = SWPROF__CONTROL__REPLY__INIT;
        size_t size;

        reply.error = (char *)error;
        if (reply_encode(&reply, &bytes, &size) < 0)
                return;
        (void)!send(socket_fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void connection_set_init(ConnectionSet *ret, sd_event *event, const ControlOps *ops, void *userdata)
{
        *ret = (ConnectionSet){
                .event = sd_event_ref(event),
                .ops = ops,
                .userdata = userdata,
                .timeout_us = TIMEOUT_US,
        };
        list_init(&ret->connections);
}

void connection_set_deinit(ConnectionSet *s)
{
        Connection *c;

        /* The end of one may be the answer to another, which ends with that. */
        while ((c = list_first(&s->connections, Connection, link)))
                connection_free(c);
        s->event = sd_event_unref(s->event);
}
