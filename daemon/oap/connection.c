/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oap/connection.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/time.h"

/* A look at home: the first one so long after it was left, ± 50 %; then half as often each time. */
#define RETURN_FIRST_MS      10000
#define RETURN_MAX_DOUBLINGS 5
#define RETURN_LOOK_MS       100
/* Who was home for so long had not come back in vain. */
#define RETURN_SETTLED_NS (60 * NS_PER_S)
#define UNSUPPORTED_NS    (3600 * NS_PER_S)

static void servers_free(Server *servers, size_t n)
{
        for (size_t i = 0; i < n; i++)
                free(servers[i].name);
        free(servers);
}

/* Return: 0, -ENOMEM. */
static int servers_parse(const char *text, Server **ret, size_t *ret_n)
{
        Server *servers;
        size_t n = 1;

        for (const char *s = text; *s; s++)
                n += *s == ',';
        servers = calloc(n, sizeof(*servers));
        if (!servers)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < n; i++) {
                size_t size = strcspn(text, ",");

                servers[i].name = strndup(text, size);
                if (!servers[i].name) {
                        servers_free(servers, n);
                        return error_origin(-ENOMEM);
                }
                text += size + 1;
        }
        *ret = servers;
        *ret_n = n;
        return 0;
}

static bool servers_equal(const Connection *a, const Connection *b)
{
        if (a->n_servers != b->n_servers)
                return false;
        for (size_t i = 0; i < a->n_servers; i++)
                if (strcmp(a->servers[i].name, b->servers[i].name) != 0)
                        return false;
        return true;
}

static int channel_new(const Connection *c, size_t server, RpcChannel **ret)
{
        const Credentials *credentials = &c->credentials;

        return error_trace(rpc_channel_new(ret, &(RpcTarget){.server = c->servers[server].name,
                                                        .tls = credentials->tls,
                                                        .ca = credentials->ca,
                                                        .certificate = credentials->certificate,
                                                        .key = credentials->key,
                                                        .server_name = credentials->server_name,
                                                        .authentication = credentials->token,
                                                        .compress = c->compress}));
}

/* What the configuration says, without a channel. */
static int connection_read(
        Connection *c, const Config *config, uint32_t (*random)(void), char **ret_error)
{
        int r;

        *c = (Connection){.random = random,
                .failover_ms = config->oap_failover_ms,
                .compress = config->oap_compression == COMPRESSION_GZIP,
                .return_mono_ns = UINT64_MAX};
        r = credentials_load(&c->credentials, config, ret_error);
        if (r)
                return r > 0 ? CONNECTION_E_INVALID : error_trace(r);
        r = servers_parse(config->oap_servers, &c->servers, &c->n_servers);
        if (r < 0)
                return error_trace(r);
        c->current = c->home = random() % c->n_servers;
        return 0;
}

int connection_init(Connection *c, const Config *config, uint32_t (*random)(void), char **ret_error)
{
        _cleanup_(connection_deinit) Connection new = {0};
        int r;

        r = connection_read(&new, config, random, ret_error);
        if (r == 0)
                r = rpc_client_new(&new.rpc);
        if (r == 0)
                r = channel_new(&new, new.current, &new.channel);
        if (r)
                return error_trace(r);
        *c = new;
        new = (Connection){0};
        return 0;
}

void connection_deinit(Connection *c)
{
        /* The calls hold on to their channels, and end with the client. */
        rpc_channel_unref(c->candidate);
        rpc_channel_unref(c->channel);
        rpc_client_free(c->rpc);
        servers_free(c->servers, c->n_servers);
        credentials_deinit(&c->credentials);
        *c = (Connection){0};
}

int connection_set_config(Connection *c, const Config *config, uint64_t now_mono_ns,
        bool *ret_changed, char **ret_error)
{
        _cleanup_(connection_deinit) Connection new = {0}, old = {0};
        bool same;
        int r;

        r = connection_read(&new, config, c->random, ret_error);
        if (r)
                return error_trace(r);
        same = servers_equal(c, &new) && credentials_equal(&c->credentials, &new.credentials) &&
               c->compress == new.compress;
        if (same) {
                c->failover_ms = new.failover_ms;
                *ret_changed = false;
                return 0;
        }
        r = channel_new(&new, new.current, &new.channel);
        if (r < 0)
                return error_trace(r);
        new.since_mono_ns = now_mono_ns;
        old = *c;
        *c = new;
        c->rpc = TAKE_PTR(old.rpc);
        new = (Connection){0};
        *ret_changed = true;
        return 0;
}

const char *connection_server(const Connection *c)
{
        return c->servers[c->current].name;
}

int connection_call(Connection *c, const char *method, const RpcBytes *messages, size_t n,
        uint32_t deadline_ms, RpcDone done, void *userdata)
{
        return error_trace(
                rpc_call(c->rpc, c->channel, method, messages, n, deadline_ms, done, userdata));
}

bool connection_is_stale(const Connection *c, uint64_t started_mono_ns)
{
        return started_mono_ns < c->since_mono_ns;
}

void connection_succeeded(Connection *c)
{
        c->n_failed = 0;
}

/* ---- away, and back ---- */

static void connection_schedule_return(Connection *c, uint64_t now_mono_ns)
{
        unsigned doublings =
                c->n_returns < RETURN_MAX_DOUBLINGS ? c->n_returns : RETURN_MAX_DOUBLINGS;
        uint64_t ms = (uint64_t)RETURN_FIRST_MS << doublings;

        c->return_mono_ns = now_mono_ns + NS_PER_MS * (ms / 2 + c->random() % (ms + 1));
}

static void connection_use(Connection *c, size_t server, RpcChannel *channel, uint64_t now_mono_ns)
{
        bool was_home = c->current == c->home;

        rpc_channel_unref(c->channel);
        c->channel = channel;
        c->current = server;
        if (server == c->home) {
                c->candidate = rpc_channel_unref(c->candidate);
                c->return_mono_ns = UINT64_MAX;
        } else if (was_home) {
                if (now_mono_ns > c->since_mono_ns + RETURN_SETTLED_NS)
                        c->n_returns = 0;
                connection_schedule_return(c, now_mono_ns);
        }
        c->since_mono_ns = now_mono_ns;
}

/* Of a server, not of what was sent. */
static bool is_failure_of_server(int status)
{
        switch (status) {
        case RPC_CANCELLED:
        case RPC_UNKNOWN:
        case RPC_DEADLINE_EXCEEDED:
        case RPC_PERMISSION_DENIED:
        case RPC_RESOURCE_EXHAUSTED:
        case RPC_UNIMPLEMENTED:
        case RPC_UNAVAILABLE:
        case RPC_UNAUTHENTICATED:
        case RPC_UNTRUSTED:
                return true;
        default:
                return false;
        }
}

ConnectionNext connection_failed(Connection *c, int status, uint64_t now_mono_ns)
{
        size_t next = c->current, n_others = 0;
        RpcChannel *channel;

        if (!is_failure_of_server(status))
                return CONNECTION_WAIT;
        c->servers[c->current].unsupported_until_mono_ns =
                status == RPC_UNIMPLEMENTED ? now_mono_ns + UNSUPPORTED_NS : 0;
        for (size_t i = c->n_servers; i > 0; i--) {
                size_t k = (c->current + i) % c->n_servers;

                if (c->servers[k].unsupported_until_mono_ns > now_mono_ns)
                        continue;
                n_others += k != c->current;
                next = k;
        }
        /* gRPC itself connects again to one that went away, but holds on to one that hangs. */
        if (next == c->current && status != RPC_DEADLINE_EXCEEDED)
                return CONNECTION_WAIT;
        if (channel_new(c, next, &channel) < 0)
                return CONNECTION_WAIT;
        connection_use(c, next, channel, now_mono_ns);
        if (c->n_servers == 1)
                return CONNECTION_WAIT;
        if (++c->n_failed <= n_others)
                return CONNECTION_SWITCHED;
        c->n_failed = 0;
        return CONNECTION_ROUND;
}

static uint64_t stall_mono_ns(const Connection *c)
{
        uint64_t quiet_ns = UINT64_MAX;

        if (c->n_servers > 1)
                quiet_ns = rpc_quiet_since_mono_ns(c->rpc, c->channel);
        return quiet_ns == UINT64_MAX ? UINT64_MAX : quiet_ns + c->failover_ms * NS_PER_MS;
}

bool connection_stalled(Connection *c, uint64_t now_mono_ns)
{
        if (stall_mono_ns(c) > now_mono_ns)
                return false;
        rpc_cancel(c->rpc, c->channel);
        return true;
}

bool connection_step(Connection *c, uint64_t now_mono_ns)
{
        if (now_mono_ns < c->return_mono_ns)
                return false;
        if (!c->candidate) {
                c->n_returns++;
                if (c->servers[c->home].unsupported_until_mono_ns > now_mono_ns ||
                        channel_new(c, c->home, &c->candidate) < 0) {
                        connection_schedule_return(c, now_mono_ns);
                        return false;
                }
                c->candidate_until_mono_ns = now_mono_ns + c->failover_ms * NS_PER_MS;
        }
        if (rpc_channel_ready(c->candidate)) {
                connection_use(c, c->home, TAKE_PTR(c->candidate), now_mono_ns);
                return true;
        }
        c->return_mono_ns = now_mono_ns + RETURN_LOOK_MS * NS_PER_MS;
        if (now_mono_ns >= c->candidate_until_mono_ns) {
                c->candidate = rpc_channel_unref(c->candidate);
                connection_schedule_return(c, now_mono_ns);
        }
        return false;
}

uint64_t connection_next_mono_ns(const Connection *c)
{
        uint64_t stall_ns = stall_mono_ns(c);

        return stall_ns < c->return_mono_ns ? stall_ns : c->return_mono_ns;
}
