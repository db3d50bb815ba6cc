/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "core/config.h"
#include "util/cleanup.h"

/*
 * The control socket. One request, one reply per connection; bounded connections, sizes and time.
 * Main thread. What a request means is the handler's business, and who may make it: anyone can
 * connect.
 */

struct Swprof__Control__Request;
struct Swprof__Control__Reply;

typedef struct ControlServer ControlServer;
typedef struct Connection ControlCall;

typedef struct ControlPeer {
        uid_t uid;
        bool trusted; /* root, or a member of control_group */
} ControlPeer;

typedef struct ControlOps {
        /* A request with a verb and our protocol, borrowed. It is answered by one call of
         * control_call_respond(), at once or later. */
        void (*request)(
                void *userdata, ControlCall *call, const struct Swprof__Control__Request *request);
        /* Of a call that is not answered yet. `gone`: its connection has ended, and it is no more
         * after this; else its peer asks for what there is by now. */
        void (*hurry)(void *userdata, ControlCall *call, bool gone);
} ControlOps;

/* `reply` needs to live for the call only: it is encoded here, and sent as the peer takes it. */
void control_call_respond(ControlCall *call, const struct Swprof__Control__Reply *reply);
/* The same with an error. `refused`: the peer may not ask that. */
void control_call_fail(ControlCall *call, const char *error, bool refused);
const ControlPeer *control_call_peer(const ControlCall *call);
/* The answer will take that much longer than others; not the peer to read it. */
void control_call_expect(ControlCall *call, uint64_t more_us);

/*
 * `fd`: socket activation, or -1: binds config->control_socket. `config` is borrowed for the call,
 * `ops` for the server's life. Return: 0, -errno.
 */
int control_server_new(ControlServer **ret, sd_event *event, int fd, const Config *config,
        const ControlOps *ops, void *userdata);
ControlServer *control_server_free(ControlServer *s);
DEFINE_CLEANUP(ControlServer *, control_server_free)

/* Decoding of a request's bytes, apart for the fuzzer. NULL: malformed. Freed with
 * swprof__control__request__free_unpacked. */
struct Swprof__Control__Request *control_request_parse(const void *bytes, size_t size);
