/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "oap/backend.h"

/* The server is nobody's: calls are started, and the test says how they ended. */
static Config config = {.oap_servers = (char *)"127.0.0.1:1",
        .oap_ca_file = (char *)"",
        .oap_certificate_file = (char *)"",
        .oap_key_file = (char *)"",
        .oap_server_name = (char *)"",
        .oap_authentication = (char *)"",
        .oap_failover_ms = 3000,
        .oap_deadline_ms = 1000};
static uint32_t chance;

static uint32_t fixed_random(void)
{
        return chance;
}

static void ignore(void *userdata, const RpcResult *result)
{
}

static void start(Backend *b, LaneId id)
{
        cr_assert_eq(backend_call(b, id, "/x/y", NULL, 0, ignore, NULL), 0);
}

static bool end(Backend *b, LaneId id, uint64_t started_mono_ns, int status)
{
        return backend_ended(
                b, id, started_mono_ns, &(RpcResult){.status = status, .message = "test"});
}

static bool fail_once(Backend *b, LaneId id, int status)
{
        start(b, id);
        return end(b, id, b->now.mono_ns, status);
}

static Backend backend_at(uint64_t mono_ns)
{
        Backend b;

        cr_assert_eq(backend_init(&b, &config, fixed_random), 0);
        b.now.mono_ns = mono_ns;
        return b;
}

Test(backend, backs_off_with_full_jitter)
{
        static const uint64_t max_ms[] = {1000, 2000, 4000, 8000, 16000, 20000, 20000, 20000};
        Backend b = backend_at(5 * NS_PER_S);

        cr_expect(backend_open(&b, LANE_FINISH));
        for (size_t i = 0; i < sizeof(max_ms) / sizeof(*max_ms); i++) {
                /* The highest that the modulus lets through. */
                chance = (uint32_t)max_ms[i];
                fail_once(&b, LANE_FINISH, RPC_UNAVAILABLE);
                cr_expect_eq(backend_open_mono_ns(&b, LANE_FINISH),
                        b.now.mono_ns + max_ms[i] * NS_PER_MS, "%zu", i);
                cr_expect(!backend_open(&b, LANE_FINISH));
                cr_expect_str_eq(backend_state(&b), "failing");
                b.now.mono_ns += max_ms[i] * NS_PER_MS;
                cr_expect(backend_open(&b, LANE_FINISH));
        }
        chance = 0;
        fail_once(&b, LANE_FINISH, RPC_UNAVAILABLE);
        cr_expect(backend_open(&b, LANE_FINISH));
        cr_expect(fail_once(&b, LANE_FINISH, RPC_OK), "recovered");
        cr_expect_str_eq(backend_state(&b), "ready");
        cr_expect(!fail_once(&b, LANE_FINISH, RPC_OK), "not again");
        backend_deinit(&b);
}

Test(backend, calls_that_fail_together_count_once)
{
        Backend b = backend_at(5 * NS_PER_S);

        chance = 1000;
        for (int i = 0; i < 10; i++)
                start(&b, LANE_POLL);
        b.now.mono_ns += NS_PER_S;
        for (int i = 0; i < 10; i++)
                end(&b, LANE_POLL, 5 * NS_PER_S, RPC_UNAVAILABLE);
        cr_expect_eq(backend_open_mono_ns(&b, LANE_POLL), b.now.mono_ns + NS_PER_S);
        /* One at a time from now on. */
        b.now.mono_ns += NS_PER_S;
        start(&b, LANE_POLL);
        cr_expect_eq(backend_open_mono_ns(&b, LANE_POLL), UINT64_MAX);
        backend_deinit(&b);
}

Test(backend, recovery_of_one_lane_hurries_the_others)
{
        Backend b = backend_at(5 * NS_PER_S);

        cr_expect_str_eq(backend_state(&b), "connecting");
        chance = 900;
        fail_once(&b, LANE_SNAPSHOT, RPC_UNAVAILABLE);
        fail_once(&b, LANE_POLL, RPC_UNAVAILABLE);
        cr_expect(!backend_open(&b, LANE_SNAPSHOT));
        fail_once(&b, LANE_POLL, RPC_OK);
        cr_expect(backend_open(&b, LANE_SNAPSHOT));
        /* Its own failure is not over with that. */
        cr_expect(backend_lane_failing(&b, LANE_SNAPSHOT));
        cr_expect_str_eq(backend_state(&b), "failing");
        fail_once(&b, LANE_SNAPSHOT, RPC_OK);
        cr_expect_str_eq(backend_state(&b), "ready");
        backend_deinit(&b);
}

Test(backend, without_profiling)
{
        static const LaneId needed[] = {LANE_POLL, LANE_SNAPSHOT};

        for (int i = 0; i < 2; i++) {
                Backend b = backend_at(5 * NS_PER_S);
                LaneId lane = needed[i], other = needed[1 - i];

                fail_once(&b, lane, RPC_UNIMPLEMENTED);
                cr_expect(backend_unsupported(&b));
                cr_expect_str_eq(backend_state(&b), "unsupported");
                cr_expect_eq(backend_open_mono_ns(&b, lane), b.now.mono_ns + 3600 * NS_PER_S);
                cr_expect_eq(backend_open_mono_ns(&b, other), UINT64_MAX);
                cr_expect_eq(backend_open_mono_ns(&b, LANE_FINISH), UINT64_MAX);
                backend_hurry(&b);
                cr_expect(!backend_open(&b, lane), "no hurry helps");
                b.now.mono_ns += 3600 * NS_PER_S;
                cr_expect(backend_open(&b, lane));
                fail_once(&b, lane, RPC_OK);
                cr_expect_str_eq(backend_state(&b), "ready");
                cr_expect(backend_open(&b, other));
                backend_deinit(&b);
        }
}

Test(backend, without_trace_segments)
{
        Backend b = backend_at(5 * NS_PER_S);

        fail_once(&b, LANE_POLL, RPC_OK);
        fail_once(&b, LANE_SEGMENT, RPC_UNIMPLEMENTED);
        cr_expect(!backend_unsupported(&b));
        cr_expect(backend_lane_unsupported(&b, LANE_SEGMENT));
        cr_expect_str_eq(backend_state(&b), "ready");
        cr_expect(backend_open(&b, LANE_SNAPSHOT));
        backend_deinit(&b);
}

Test(backend, what_was_taken)
{
        cr_expect(backend_took_nothing(&(RpcResult){.status = RPC_UNAVAILABLE}));
        cr_expect(!backend_took_nothing(&(RpcResult){.status = RPC_UNAVAILABLE, .sent = true}));
        cr_expect(!backend_took_nothing(
                &(RpcResult){.status = RPC_RESOURCE_EXHAUSTED, .sent = true}));
        cr_expect(
                backend_took_nothing(&(RpcResult){.status = RPC_PERMISSION_DENIED, .sent = true}));
}
