/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "oap/backend.h"
#include "util/error.h"

#define BACKOFF_BASE_MS 1000
/* The shortest task lasts a minute: a backend that is back is found in good time. */
#define BACKOFF_MAX_MS        20000
#define BACKOFF_MAX_DOUBLINGS 5 /* 2^5 seconds are more than the maximum */
#define UNSUPPORTED_RETRY_MS  3600000

int backend_init(Backend *b, const Config *config, uint32_t (*random)(void))
{
        Backend new = {.config = config, .random = random, .status = -1, .limit = LOG_LIMIT_INIT};
        int r;

        new.server = strdup(config->oap_server);
        if (!new.server)
                return error_origin(-ENOMEM);
        r = rpc_client_new(&new.rpc, new.server);
        if (r < 0) {
                backend_deinit(&new);
                return error_trace(r);
        }
        *b = new;
        return 0;
}

void backend_deinit(Backend *b)
{
        b->rpc = rpc_client_free(b->rpc);
        free(b->server);
        b->server = NULL;
}

uint64_t backend_random(const Backend *b, uint64_t n)
{
        return b->random() % n;
}

bool backend_lane_unsupported(const Backend *b, LaneId id)
{
        return b->lanes[id].unsupported;
}

bool backend_lane_failing(const Backend *b, LaneId id)
{
        return b->lanes[id].n_failures > 0;
}

bool backend_unsupported(const Backend *b)
{
        return b->lanes[LANE_POLL].unsupported || b->lanes[LANE_SNAPSHOT].unsupported;
}

static bool backend_failing(const Backend *b)
{
        for (int i = 0; i < N_LANES; i++)
                if (b->lanes[i].n_failures > 0 && !b->lanes[i].unsupported)
                        return true;
        return false;
}

const char *backend_state(const Backend *b)
{
        if (backend_unsupported(b))
                return "unsupported";
        if (backend_failing(b))
                return "failing";
        return b->last_success_mono_ns > 0 ? "ready" : "connecting";
}

uint64_t backend_open_mono_ns(const Backend *b, LaneId id)
{
        const Lane *lane = &b->lanes[id];

        /* Whoever finds out that profiling has come back is the lane that found it missing. */
        if (backend_unsupported(b) && !lane->unsupported)
                return UINT64_MAX;
        if (lane->n_failures > 0 && lane->n_calls > 0)
                return UINT64_MAX;
        return lane->n_failures > 0 ? lane->retry_mono_ns : 0;
}

bool backend_open(const Backend *b, LaneId id)
{
        return backend_open_mono_ns(b, id) <= b->now.mono_ns;
}

bool backend_took_nothing(const RpcResult *result)
{
        return !result->sent || result->status == RPC_PERMISSION_DENIED ||
               result->status == RPC_UNAUTHENTICATED;
}

static void backend_log_state(Backend *b, int status)
{
        unsigned suppressed;

        if (status == b->status || !log_limit(&b->limit, &suppressed))
                return;
        b->status = status;
        if (status == RPC_OK)
                log_info("OAP %s is ready", b->server);
        else if (status == RPC_UNIMPLEMENTED)
                log_warning("OAP %s has no trace profiling (%s); looking again every hour",
                        b->server, b->error);
        else if (status == RPC_PERMISSION_DENIED || status == RPC_UNAUTHENTICATED)
                log_warning("OAP %s refuses us, does it ask for a token? %s; trying again",
                        b->server, b->error);
        else
                log_warning("OAP %s is failing: %s; trying again", b->server, b->error);
}

static void lane_succeeded(Backend *b, Lane *lane)
{
        bool recovered = lane->n_failures > 0;

        lane->n_failures = 0;
        lane->unsupported = false;
        b->last_success_mono_ns = b->now.mono_ns;
        /* What kept this lane away may have kept the others away, too. */
        for (int i = 0; i < N_LANES && recovered; i++)
                if (!b->lanes[i].unsupported)
                        b->lanes[i].retry_mono_ns = b->now.mono_ns;
        if (!backend_failing(b) && !backend_unsupported(b))
                backend_log_state(b, RPC_OK);
}

static void lane_failed(Backend *b, LaneId id, int status, const char *message)
{
        Lane *lane = &b->lanes[id];
        uint64_t max_ms = BACKOFF_MAX_MS;
        bool was_unsupported = lane->unsupported;

        if (lane->n_failures < BACKOFF_MAX_DOUBLINGS)
                max_ms = BACKOFF_BASE_MS << lane->n_failures;
        lane->n_failures++;
        lane->failed_mono_ns = b->now.mono_ns;
        lane->unsupported = status == RPC_UNIMPLEMENTED && id != LANE_FINISH;
        lane->retry_mono_ns =
                b->now.mono_ns + NS_PER_MS * (lane->unsupported ? UNSUPPORTED_RETRY_MS
                                                                : backend_random(b, max_ms + 1));
        snprintf(b->error, sizeof(b->error), "%s%s%s", rpc_status_name(status),
                *message ? ": " : "", message);
        if (id != LANE_SEGMENT || !lane->unsupported)
                backend_log_state(b, status);
        else if (!was_unsupported)
                log_warning("OAP %s takes no trace segments; looking again every hour", b->server);
}

void backend_failed(Backend *b, LaneId id, int r)
{
        lane_failed(b, id, RPC_RESOURCE_EXHAUSTED, strerror(-r));
}

int backend_call(Backend *b, LaneId id, const char *method, const RpcBytes *messages, size_t n,
        RpcDone done, void *userdata)
{
        int r = rpc_call(b->rpc, method, messages, n, b->config->oap_deadline_ms, done, userdata);

        if (r < 0) {
                backend_failed(b, id, r);
                return error_trace(r);
        }
        b->lanes[id].n_calls++;
        return 0;
}

bool backend_ended(Backend *b, LaneId id, uint64_t started_mono_ns, const RpcResult *result)
{
        Lane *lane = &b->lanes[id];
        bool failing = lane->n_failures > 0;

        assert(lane->n_calls > 0);
        lane->n_calls--;
        counter_add(result->status == RPC_OK ? COUNTER_CALLS_OK : COUNTER_CALLS_FAILED, 1);
        if (result->status == RPC_OK) {
                lane_succeeded(b, lane);
                return failing;
        }
        /* Calls that went together fail together: that counts once. */
        if (!failing || started_mono_ns >= lane->failed_mono_ns)
                lane_failed(b, id, result->status, result->message);
        return false;
}

void backend_lane_rest(Backend *b, LaneId id)
{
        if (!b->lanes[id].unsupported)
                b->lanes[id].n_failures = 0;
}

void backend_hurry(Backend *b)
{
        for (int i = 0; i < N_LANES; i++)
                if (!b->lanes[i].unsupported)
                        b->lanes[i].retry_mono_ns = 0;
}
