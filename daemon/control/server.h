/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

#include "core/config.h"
#include "util/cleanup.h"

/*
 * The control socket: root and the members of control_group. One request, one reply per connection;
 * bounded connections, sizes and time. Main thread. What a request means is the handler's business.
 */

struct Swprof__Control__Request;
struct Swprof__Control__Reply;

typedef struct ControlServer ControlServer;

/*
 * Answers a request by one call of respond() before it returns, with a reply whose strings and
 * lists need to live for that call only: it is encoded there, and sent as the peer takes it. The
 * request has a verb and our protocol.
 */
typedef void (*ControlHandler)(void *userdata, const struct Swprof__Control__Request *request,
        void (*respond)(void *cookie, const struct Swprof__Control__Reply *reply), void *cookie);

/*
 * `fd`: socket activation, or -1: binds config->control_socket (0660, root:control_group when that
 * group exists, else 0600). `config` is borrowed for the call. Return: 0, -errno.
 */
int control_server_new(ControlServer **ret, sd_event *event, int fd, const Config *config,
        ControlHandler handler, void *userdata);
ControlServer *control_server_free(ControlServer *s);
DEFINE_CLEANUP(ControlServer *, control_server_free)

/* Decoding of a request's bytes, apart for the fuzzer. NULL: malformed. Freed with
 * swprof__control__request__free_unpacked. */
struct Swprof__Control__Request *control_request_parse(const void *bytes, size_t size);
