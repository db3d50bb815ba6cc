/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/sockios.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connection.h"

/*
 * The kernel allows twice that, for its own needs; no more is had by default. Packets that begin
 * something have the first half.
 */
#define SEND_BUFFER 212992

static bool connection_is_ours(const Connection *c)
{
        struct stat st;

        return c->fd >= 0 && fstat(c->fd, &st) == 0 && st.st_dev == c->device &&
               st.st_ino == c->inode;
}

int connection_open(Connection *ret, const struct sockaddr_un *address)
{
        struct stat st;
        int r, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0 ||
                connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){SEND_BUFFER}, sizeof(int));
        *ret = (Connection){.fd = fd, .device = st.st_dev, .inode = st.st_ino};
        return 0;
}

void connection_leave(Connection *c)
{
        if (connection_is_ours(c))
                close(c->fd);
        c->fd = -1;
}

void connection_close(Connection *c)
{
        if (connection_is_ours(c))
                shutdown(c->fd, SHUT_RDWR);
        connection_leave(c);
}

bool connection_has_room(const Connection *c)
{
        int used;

        return ioctl(c->fd, SIOCOUTQ, &used) < 0 || used < SEND_BUFFER;
}

static int condition(int error)
{
        switch (error) {
        case EAGAIN:
        case EINTR:
        case ENOBUFS:
        case ENOMEM:
                return CONNECTION_NOT_NOW;
        default:
                return CONNECTION_BROKEN;
        }
}

int connection_send(Connection *c, const void *packet, size_t size)
{
        if (!connection_is_ours(c))
                return CONNECTION_BROKEN;
        if (send(c->fd, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                return condition(errno);
        return CONNECTION_DONE;
}

int connection_receive(Connection *c, void *buffer, size_t size, size_t *ret_size, int *ret_fd)
{
        union {
                struct cmsghdr head;
                uint8_t bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = {.iov_base = buffer, .iov_len = size};
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                /* Not CMSG_SPACE: its padding has room for a second descriptor. */
                .msg_controllen = CMSG_LEN(sizeof(int)),
        };
        struct cmsghdr *head;
        ssize_t n;
        int fd = -1;

        if (!connection_is_ours(c))
                return CONNECTION_BROKEN;
        n = recvmsg(c->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return condition(errno);
        head = CMSG_FIRSTHDR(&message);
        if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
                head->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(&fd, CMSG_DATA(head), sizeof(fd));
        if (n == 0 || message.msg_flags & MSG_TRUNC) {
                if (fd >= 0)
                        close(fd);
                return CONNECTION_BROKEN;
        }
        *ret_size = (size_t)n;
        *ret_fd = fd;
        return CONNECTION_DONE;
}
