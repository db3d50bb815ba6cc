/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "oap/connection.h"
#include "util/log.h"
#include "util/time.h"

/*
 * The backend as the session's parts see it: calls to it, how it takes them, method by method, and
 * when the next attempt may be made. The log gets the changes of the whole: ready, failing (again
 * when the status changes), unsupported.
 *
 * A lane is what succeeds and fails together. A failed one is closed for a full-jitter exponential
 * back-off; then one call at a time is tried until one succeeds. A lane of client streams tries
 * with an empty stream, which is harmless and tells whether the real one would be taken.
 * UNIMPLEMENTED closes a lane for an hour, and if it is one that profiling cannot do without, the
 * others as well. When the connection goes on to another server instead, the lanes are tried there
 * at once.
 */

typedef enum LaneId {
        LANE_POLL,
        LANE_SNAPSHOT,
        LANE_SEGMENT,
        LANE_FINISH,
        N_LANES,
} LaneId;

typedef struct Lane {
        unsigned n_calls; /* outstanding */
        unsigned n_failures;
        bool unsupported;
        uint64_t failed_mono_ns;
        uint64_t retry_mono_ns;
} Lane;

typedef struct Backend {
        const Config *config;
        Connection connection;
        uint32_t (*random)(void);
        Now now; /* of the current step or dispatch */
        Lane lanes[N_LANES];
        bool logged_ready;
        char error[512];
        uint64_t last_success_mono_ns;
        LogLimit limit;
} Backend;

/* Return: 0; BACKEND_E_INVALID: the configuration names files that do not do, logged; -errno. */
enum {
        _BACKEND_E_SUCCESS,
        BACKEND_E_INVALID,
};
int backend_init(Backend *b, const Config *config, uint32_t (*random)(void));
void backend_deinit(Backend *b);
/* Servers and credentials that are new replace the old; if they do not do, that is logged, and the
 * old ones stay. */
void backend_set_config(Backend *b, const Config *config);

/* Watches over the connection. */
void backend_step(Backend *b);

/* When a call of that lane may start; UINT64_MAX: not before another has ended. */
uint64_t backend_open_mono_ns(const Backend *b, LaneId id);
bool backend_open(const Backend *b, LaneId id);
/* The last call of the lane failed. */
bool backend_lane_failing(const Backend *b, LaneId id);

/*
 * A call to the server of the moment, counted to the lane; `done` calls backend_ended() first. When there is no memory for
 * it, the lane is closed for a while.
 *
 * Return: 0, -ENOMEM.
 */
int backend_call(Backend *b, LaneId id, const char *method, const RpcBytes *messages, size_t n,
        RpcDone done, void *userdata);
/* No memory to encode a message: as if the call had failed. */
void backend_failed(Backend *b, LaneId id, int r);
/* Return: whether the lane has recovered with it. */
bool backend_ended(Backend *b, LaneId id, uint64_t started_mono_ns, const RpcResult *result);

/* The backend has certainly taken nothing of that call, which may be sent again. */
bool backend_took_nothing(const RpcResult *result);

/* Nothing of that lane is to be sent any more: its failures say nothing about the backend. */
void backend_lane_rest(Backend *b, LaneId id);
/* Lets lanes that back off try at once, for the last words. */
void backend_hurry(Backend *b);

/* The backend has no profiling. */
bool backend_unsupported(const Backend *b);
bool backend_lane_unsupported(const Backend *b, LaneId id);
/* "connecting", "ready", "failing", "unsupported" */
const char *backend_state(const Backend *b);

/* Less than n; n is positive. */
uint64_t backend_random(const Backend *b, uint64_t n);
