/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <sys/types.h>

/*
 * Binds and listens on a Unix socket at `path`, close-on-exec and non-blocking. `type` is
 * SOCK_STREAM or SOCK_SEQPACKET; the file belongs to `group` (-1: as it is) and gets `mode`, and
 * never had a wider one. A socket file that nobody listens on is replaced. Return: the descriptor,
 * -EADDRINUSE when somebody listens, logged with who that is; -errno.
 */
int unix_socket_listen(const char *path, int type, mode_t mode, gid_t group);
