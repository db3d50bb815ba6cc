/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

/* Instead of rpc.c. */

const char *rpc_status_name(int status)
{
        return "status";
}

int rpc_channel_new(RpcChannel **ret, const RpcTarget *target)
{
        static RpcChannel channel;

        *ret = &channel;
        return 0;
}

RpcChannel *rpc_channel_unref(RpcChannel *channel)
{
        return NULL;
}

bool rpc_channel_ready(RpcChannel *channel)
{
        return true;
}

uint64_t rpc_quiet_since_mono_ns(const RpcClient *client, const RpcChannel *channel)
{
        return UINT64_MAX;
}

/* There is but one server. */
void rpc_cancel(RpcClient *client, const RpcChannel *channel)
{
}

int rpc_client_new(RpcClient **ret)
{
        static RpcClient client;

        *ret = &client;
        return 0;
}

static void call_free(Call *c)
{
        for (size_t i = 0; i < c->n; i++)
                free((void *)c->messages[i].data);
        free(c->messages);
        free(c->reply);
}

/* What is under way may arrive all the same, or some of it. */
RpcClient *rpc_client_free(RpcClient *client)
{
        for (unsigned i = 0; i < w.n_calls; i++) {
                if (!w.calls[i].received && random_n(2) && !w.outage)
                        oap_receive(&w.calls[i], random_n(w.calls[i].n + 1));
                call_free(&w.calls[i]);
        }
        w.n_calls = 0;
        return NULL;
}

int rpc_client_fd(const RpcClient *c)
{
        return -1;
}

int rpc_call(RpcClient *client, RpcChannel *channel, const char *method, const RpcBytes *messages,
        size_t n_messages, uint32_t deadline_ms, RpcDone done, void *userdata)
{
        uint64_t latency_ms = random_n(50) == 0 ? random_n(3000) : 1 + random_n(60);
        Call *c = &w.calls[w.n_calls++];

        cr_assert_leq(w.n_calls, CALLS_MAX);
        *c = (Call){.n = n_messages,
                .done = done,
                .userdata = userdata,
                .receive_ns = w.now_ns + latency_ms / 2 * NS_PER_MS,
                .deadline_ns = w.now_ns + deadline_ms * NS_PER_MS,
                .status = RPC_UNAVAILABLE,
                .done_ns = w.now_ns + latency_ms * NS_PER_MS};
        snprintf(c->method, sizeof(c->method), "%s", method);
        c->messages = calloc(n_messages + 1, sizeof(*c->messages));
        cr_assert(c->messages);
        for (size_t i = 0; i < n_messages; i++) {
                void *copy = malloc(messages[i].size + 1);

                memcpy(copy, messages[i].data, messages[i].size);
                c->messages[i] = (RpcBytes){copy, messages[i].size};
        }
        /* Some hang. */
        if (w.outage && random_n(4) == 0)
                c->done_ns = c->deadline_ns;
        return 0;
}

static void call_meet(Call *c, Fate fate)
{
        c->failed = true;
        c->sent = fate != FATE_NOT_SENT;
        if (fate == FATE_HALF_ARRIVES)
                oap_receive(c, c->n / 2);
        if (fate == FATE_ANSWER_IS_LOST || fate == FATE_NO_ANSWER)
                oap_receive(c, c->n);
        if (fate == FATE_HANGS || fate == FATE_NO_ANSWER) {
                c->status = RPC_DEADLINE_EXCEEDED;
                c->done_ns = c->deadline_ns;
        }
        if (fate == FATE_EXHAUSTED)
                c->status = RPC_RESOURCE_EXHAUSTED;
}

static bool call_is_next(const Call *c)
{
        return w.fault.fate != FATE_GOOD && strstr(c->method, w.fault.method) && c->n > 0 &&
               w.fault.n_before-- == 0;
}

static void call_receive(Call *c)
{
        c->received = true;
        if (call_is_next(c)) {
                call_meet(c, w.fault.fate);
                w.fault.fate = FATE_GOOD;
                w.outage = true;
                w.outage_end_ns = w.now_ns + 20 * NS_PER_S;
                return;
        }
        if (w.unsupported && strstr(c->method, w.unsupported)) {
                c->failed = c->sent = true;
                c->status = RPC_UNIMPLEMENTED;
                w.n_refused++;
                return;
        }
        c->failed = w.outage || (!w.calm && random_n(100) == 0);
        if (!c->failed) {
                oap_receive(c, c->n);
                return;
        }
        c->sent = random_n(3) == 0;
        if (c->sent)
                oap_receive(c, random_n(c->n + 1));
}

void network_break(void)
{
        for (unsigned i = 0; i < w.n_calls; i++) {
                Call *c = &w.calls[i];

                if (!c->received)
                        call_meet(c, random_n(2) ? FATE_NOTHING_ARRIVES : FATE_HALF_ARRIVES);
                c->received = c->failed = c->sent = true;
                c->done_ns = w.now_ns;
        }
}

void rpc_dispatch(RpcClient *client)
{
        for (unsigned i = 0; i < w.n_calls; i++)
                if (!w.calls[i].received && w.calls[i].receive_ns <= w.now_ns)
                        call_receive(&w.calls[i]);
        for (unsigned i = 0; i < w.n_calls;) {
                Call c = w.calls[i];
                RpcResult result = {.status = RPC_OK, .message = ""};

                if (c.done_ns > w.now_ns) {
                        i++;
                        continue;
                }
                memmove(&w.calls[i], &w.calls[i + 1], (--w.n_calls - i) * sizeof(*w.calls));
                /* The answer may get lost, too. */
                if (!c.failed && w.outage) {
                        c.failed = true;
                        c.sent = true;
                }
                if (c.failed) {
                        result.status = c.status;
                        result.sent = c.sent;
                } else {
                        result.sent = true;
                        result.reply = (RpcBytes){c.reply, c.reply_size};
                        oap_answered(&c);
                }
                c.done(c.userdata, &result);
                call_free(&c);
        }
}
