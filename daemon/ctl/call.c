/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "ctl/call.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/time.h"

/* control.proto */
#define REQUEST_MAX 4096
#define REPLY_MAX   (64U << 20)
#define TICK_MS     250

static CallTick call_tick;
static void *call_tick_userdata;

void call_set_tick(CallTick tick, void *userdata)
{
        call_tick = tick;
        call_tick_userdata = userdata;
}

static int call_connect(const char *path, unsigned timeout_s, int *ret_fd)
{
        _cleanup_(closep) int fd = -1;
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct timeval timeout = {.tv_sec = timeout_s};

        if (strlen(path) >= sizeof(address.sun_path))
                return error_origin(-ENAMETOOLONG);
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return error_origin(-errno);
        /* It holds for connect(), which waits while the daemon has many connections to accept. */
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
                return error_origin(-errno);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                switch (errno) {
                case ENOENT:
                case ECONNREFUSED:
                        return CALL_E_NOT_RUNNING;
                case EACCES:
                case EPERM:
                        return CALL_E_DENIED;
                case EAGAIN:
                        return CALL_E_TIMEOUT;
                default:
                        return error_origin(-errno);
                }
        *ret_fd = TAKE_FD(fd);
        return 0;
}

static int call_send(int fd, const Swprof__Control__Request *request)
{
        uint8_t bytes[4 + REQUEST_MAX];
        size_t size = swprof__control__request__get_packed_size(request);

        if (size > REQUEST_MAX)
                return error_origin(-EMSGSIZE);
        for (unsigned i = 0; i < 4; i++)
                bytes[i] = (uint8_t)(size >> (8 * i));
        swprof__control__request__pack(request, bytes + 4);
        /* A daemon that refuses us may have closed already: the reply says why. */
        if (send(fd, bytes, 4 + size, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
                return error_origin(-errno);
        return 0;
}

/* Until something is there, or it is time to look. */
static int call_wait(int fd, uint64_t deadline_mono_ns, uint64_t now_mono_ns)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t wait_ms = (deadline_mono_ns - now_mono_ns) / NS_PER_MS + 1;

        if (call_tick && !call_tick(call_tick_userdata)) {
                call_tick = NULL;
                shutdown(fd, SHUT_WR);
        }
        if (call_tick && wait_ms > TICK_MS)
                wait_ms = TICK_MS;
        if (poll(&p, 1, (int)wait_ms) < 0 && errno != EINTR)
                return error_origin(-errno);
        return 0;
}

static int call_receive(int fd, uint64_t deadline_mono_ns, uint8_t *bytes, size_t size)
{
        while (size > 0) {
                uint64_t now = mono_now_ns();
                ssize_t n;
                int r;

                if (now >= deadline_mono_ns)
                        return CALL_E_TIMEOUT;
                r = call_wait(fd, deadline_mono_ns, now);
                if (r)
                        return error_trace(r);
                n = recv(fd, bytes, size, MSG_DONTWAIT);
                if (n < 0 && errno == EAGAIN)
                        continue;
                if (n <= 0)
                        return CALL_E_BROKEN;
                bytes += n;
                size -= (size_t)n;
        }
        return 0;
}

int daemon_call(const char *path, unsigned timeout_s, const Swprof__Control__Request *request,
        Swprof__Control__Reply **ret_reply)
{
        _cleanup_(closep) int fd = -1;
        _cleanup_(freep) uint8_t *bytes = NULL;
        uint64_t deadline_mono_ns = mono_now_ns() + timeout_s * NS_PER_S;
        Swprof__Control__Reply *reply;
        uint8_t head[4];
        uint32_t size = 0;
        int r;

        r = call_connect(path, timeout_s, &fd);
        if (r)
                return error_trace(r);
        r = call_send(fd, request);
        if (r)
                return error_trace(r);
        r = call_receive(fd, deadline_mono_ns, head, sizeof(head));
        if (r)
                return error_trace(r);
        for (unsigned i = 0; i < 4; i++)
                size |= (uint32_t)head[i] << (8 * i);
        if (size > REPLY_MAX)
                return CALL_E_BROKEN;
        bytes = malloc(size ?: 1);
        if (!bytes)
                return error_origin(-ENOMEM);
        r = call_receive(fd, deadline_mono_ns, bytes, size);
        if (r)
                return error_trace(r);
        reply = swprof__control__reply__unpack(NULL, size, bytes);
        if (!reply)
                return CALL_E_BROKEN;
        *ret_reply = reply;
        return 0;
}
