/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "oap/backend.h"
#include "util/error.h"
#include "util/hash.h"

#define BACKOFF_BASE_MS 1000
/* The shortest task lasts a minute: a backend that is back is found in good time. */
#define BACKOFF_MAX_MS        20000
#define BACKOFF_MAX_DOUBLINGS 5 /* 2^5 seconds are more than the maximum */
#define UNSUPPORTED_RETRY_MS  3600000
/* Daemons that lose a server together do not turn to the next one in the same moment. */
#define SWITCH_JITTER_MS 200

int backend_init(Backend *b, const Config *config, uint32_t (*random)(void))
{
        _cleanup_(freep) char *error = NULL;
        Backend new = {.config = config, .random = random, .limit = LOG_LIMIT_INIT};
        int r;

        r = connection_init(&new.connection, config, random, &error);
        if (r > 0) {
                log_error("%s", error);
                return BACKEND_E_INVALID;
        }
        if (r < 0)
                return error_trace(r);
        *b = new;
        return 0;
}

void backend_deinit(Backend *b)
{
        connection_deinit(&b->connection);
}

void backend_set_config(Backend *b, const Config *config)
{
        _cleanup_(freep) char *error = NULL;
        bool changed = false;
        int r;

        r = connection_set_config(&b->connection, config, b->now.mono_ns, &changed, &error);
        if (r)
                log_error("%s; the old connection to the OAP stays", error ?: strerror(-r));
        b->config = config;
        if (!changed)
                return;
        for (int i = 0; i < N_LANES; i++)
                b->lanes[i] = (Lane){.n_calls = b->lanes[i].n_calls};
        b->logged_ready = false;
        b->error[0] = '\0';
        b->last_success_mono_ns = 0;
        log_info("Connecting to OAP %s", connection_server(&b->connection));
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

/* Whoever set it up has something to mend. */
static bool is_refusal(int status)
{
        return status == RPC_PERMISSION_DENIED || status == RPC_UNAUTHENTICATED ||
               status == RPC_UNTRUSTED;
}

/* What the message of gRPC does not say: servers that want something else just hang up. */
static const char *hint(const Backend *b, int status, const char *message)
{
        const Credentials *credentials = &b->connection.credentials;

        if (status != RPC_UNAVAILABLE)
                return "";
        if (credentials->tls && strstr(message, "wrong version number"))
                return " (oap.tls is true: does it speak TLS?)";
        if (!strstr(message, "Socket closed") && !strstr(message, "onnection reset"))
                return "";
        if (!credentials->tls)
                return " (does it ask for oap.tls?)";
        return credentials->certificate ? " (does it take oap.certificate_file?)"
                                        : " (does it ask for oap.certificate_file?)";
}

/* Whether that was not said of the server since all was well; one that refuses may do so for
 * another reason. */
static bool is_news(const Backend *b, Server *server, int status)
{
        uint64_t error = is_refusal(status) ? hash_string(b->error) : 0;

        if (server->logged_status == status && server->logged_error == error)
                return false;
        server->logged_status = status;
        server->logged_error = error;
        return true;
}

static void backend_log_ready(Backend *b)
{
        unsigned suppressed;

        if (b->logged_ready || !log_limit(&b->limit, &suppressed))
                return;
        b->logged_ready = true;
        for (size_t i = 0; i < b->connection.n_servers; i++)
                b->connection.servers[i].logged_status = RPC_OK;
        log_info("OAP %s is ready", connection_server(&b->connection));
}

/* `next`: the server that all goes on with, NULL: later, with whichever. */
static void backend_log_failure(Backend *b, Server *server, int status, const char *next)
{
        const char *then = next ? "going on with " : "trying again";
        unsigned suppressed;

        b->logged_ready = false;
        if (!is_news(b, server, status) || !log_limit(&b->limit, &suppressed))
                return;
        next = next ?: "";
        if (status == RPC_UNIMPLEMENTED)
                log_warning("OAP %s has no trace profiling (%s); looking again every hour",
                        server->name, b->error);
        else if (status == RPC_UNTRUSTED)
                log_error("OAP %s is not trusted: %s; %s%s", server->name, b->error, then, next);
        else if (is_refusal(status))
                log_error("OAP %s refuses us, %s: %s; %s%s", server->name,
                        b->connection.credentials.token
                                ? "is the token of oap.authentication wrong?"
                                : "does it ask for oap.authentication?",
                        b->error, then, next);
        else
                log_warning("OAP %s is failing: %s; %s%s", server->name, b->error, then, next);
}

/* Another server: nothing is known about how it takes what. */
static void backend_restart_lanes(Backend *b, ConnectionNext next)
{
        for (int i = 0; i < N_LANES; i++) {
                Lane *lane = &b->lanes[i];

                if (lane->unsupported)
                        lane->n_failures = 0;
                lane->unsupported = false;
                /* Snapshots and trace segments follow once an empty stream was taken. */
                if (lane->n_failures == 0 && (i == LANE_SNAPSHOT || i == LANE_SEGMENT))
                        lane->n_failures = 1;
                if (next == CONNECTION_SWITCHED)
                        lane->retry_mono_ns = b->now.mono_ns +
                                              backend_random(b, SWITCH_JITTER_MS + 1) * NS_PER_MS;
        }
}

/* Lets the connection go on to another server if it will. */
static ConnectionNext backend_fail_over(Backend *b, int status)
{
        Server *left = &b->connection.servers[b->connection.current];
        ConnectionNext next = connection_failed(&b->connection, status, b->now.mono_ns);

        backend_log_failure(b, left, status,
                next == CONNECTION_SWITCHED ? connection_server(&b->connection) : NULL);
        return next;
}

static void lane_succeeded(Backend *b, Lane *lane)
{
        bool recovered = lane->n_failures > 0;

        connection_succeeded(&b->connection);
        lane->n_failures = 0;
        lane->unsupported = false;
        b->last_success_mono_ns = b->now.mono_ns;
        /* What kept this lane away may have kept the others away, too. */
        for (int i = 0; i < N_LANES && recovered; i++)
                if (!b->lanes[i].unsupported)
                        b->lanes[i].retry_mono_ns = b->now.mono_ns;
        if (!backend_failing(b) && !backend_unsupported(b))
                backend_log_ready(b);
}

static void lane_failed(Backend *b, LaneId id, int status, const char *message)
{
        Lane *lane = &b->lanes[id];
        uint64_t max_ms = BACKOFF_MAX_MS;
        bool needed = id == LANE_POLL || id == LANE_SNAPSHOT;
        ConnectionNext next = CONNECTION_WAIT;

        if (lane->n_failures < BACKOFF_MAX_DOUBLINGS)
                max_ms = BACKOFF_BASE_MS << lane->n_failures;
        lane->n_failures++;
        lane->failed_mono_ns = b->now.mono_ns;
        lane->retry_mono_ns = b->now.mono_ns + backend_random(b, max_ms + 1) * NS_PER_MS;
        snprintf(b->error, sizeof(b->error), "%s%s%s%s", rpc_status_name(status),
                *message ? ": " : "", message, hint(b, status, message));
        if (id == LANE_SEGMENT && status == RPC_UNIMPLEMENTED) {
                if (!lane->unsupported)
                        log_warning("OAP %s takes no trace segments; looking again every hour",
                                connection_server(&b->connection));
        } else if (!needed && status == RPC_UNIMPLEMENTED) {
                backend_log_failure(b, &b->connection.servers[b->connection.current], status, NULL);
        } else {
                next = backend_fail_over(b, status);
        }
        if (next != CONNECTION_WAIT) {
                backend_restart_lanes(b, next);
                return;
        }
        lane->unsupported = status == RPC_UNIMPLEMENTED && id != LANE_FINISH;
        if (lane->unsupported)
                lane->retry_mono_ns = b->now.mono_ns + NS_PER_MS * UNSUPPORTED_RETRY_MS;
}

void backend_failed(Backend *b, LaneId id, int r)
{
        lane_failed(b, id, RPC_NO_MEMORY, strerror(-r));
}

int backend_call(Backend *b, LaneId id, const char *method, const RpcBytes *messages, size_t n,
        RpcDone done, void *userdata)
{
        int r = connection_call(
                &b->connection, method, messages, n, b->config->oap_deadline_ms, done, userdata);

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
        if (connection_is_stale(&b->connection, started_mono_ns)) {
                /* It says nothing about the server of now, which may take no more than that one. */
                if (result->status != RPC_OK && lane->n_failures == 0)
                        lane->n_failures = id == LANE_SNAPSHOT || id == LANE_SEGMENT;
                return false;
        }
        if (result->status == RPC_OK) {
                lane_succeeded(b, lane);
                return failing;
        }
        /* Calls that went together fail together: that counts once. */
        if (!failing || started_mono_ns >= lane->failed_mono_ns)
                lane_failed(b, id, result->status, result->message);
        return false;
}

void backend_step(Backend *b)
{
        char message[64];

        if (connection_stalled(&b->connection, b->now.mono_ns)) {
                snprintf(message, sizeof(message), "no sign of life for %u ms",
                        b->connection.failover_ms);
                lane_failed(b, LANE_POLL, RPC_DEADLINE_EXCEEDED, message);
        }
        if (connection_step(&b->connection, b->now.mono_ns))
                log_info("OAP %s is back: returning to it", connection_server(&b->connection));
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
