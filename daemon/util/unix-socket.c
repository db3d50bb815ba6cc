/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/unix-socket.h"

#define BACKLOG 128

/* Only a socket that refuses connections is left over from a dead process. */
static int leftover_remove(const struct sockaddr_un *address, int type)
{
        _cleanup_(closep) int fd = -1;
        struct ucred peer;
        socklen_t size = sizeof(peer);
        struct stat st;

        if (lstat(address->sun_path, &st) < 0)
                return errno == ENOENT ? 0 : error_origin(-errno);
        if (!S_ISSOCK(st.st_mode)) {
                log_error("%s is there, and no socket", address->sun_path);
                return error_origin(-EADDRINUSE);
        }
        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return error_origin(-errno);
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
                if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
                        log_error("process %d listens on %s", (int)peer.pid, address->sun_path);
                return error_origin(-EADDRINUSE);
        }
        if (errno != ECONNREFUSED)
                return error_origin(-EADDRINUSE);
        if (unlink(address->sun_path) < 0 && errno != ENOENT)
                return error_origin(-errno);
        return 0;
}

int unix_socket_listen(const char *path, int type, mode_t mode, gid_t group)
{
        _cleanup_(closep) int fd = -1;
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int r;

        if (strlen(path) >= sizeof(address.sun_path))
                return error_origin(-ENAMETOOLONG);
        strcpy(address.sun_path, path);
        r = leftover_remove(&address, type);
        if (r)
                return error_trace(r);
        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return error_origin(-errno);
        /* The file that bind() makes takes its mode from the socket: nobody gets in before all is
         * set. */
        if (fchmod(fd, 0600) < 0)
                return error_origin(-errno);
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return error_origin(-errno);
        if (chown(path, (uid_t)-1, group) < 0 || chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0) {
                r = -errno;
                unlink(path);
                return error_origin(r);
        }
        return TAKE_FD(fd);
}
