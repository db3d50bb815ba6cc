/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "oap/connection.h"
#include "util/time.h"

/* The servers are nobody's: the test says how calls to them ended. */
static Config config = {.oap_servers = (char *)"a:1,b:2,c:3",
        .oap_ca_file = (char *)"",
        .oap_certificate_file = (char *)"",
        .oap_key_file = (char *)"",
        .oap_server_name = (char *)"",
        .oap_authentication = (char *)"",
        .oap_failover_ms = 3000};
static uint32_t chance;

static uint32_t fixed_random(void)
{
        return chance;
}

static Connection connection_to(const char *servers)
{
        char *error = NULL;
        Connection c;

        config.oap_servers = (char *)servers;
        cr_assert_eq(connection_init(&c, &config, fixed_random, &error), 0);
        return c;
}

static void expect(Connection *c, int status, ConnectionNext next, const char *server)
{
        cr_expect_eq(connection_failed(c, status, 5 * NS_PER_S), next);
        cr_expect_str_eq(connection_server(c), server);
}

Test(connection, chance_decides_who_is_first)
{
        static const char *const names[] = {"a:1", "b:2", "c:3"};

        for (chance = 0; chance < 6; chance++) {
                Connection c = connection_to("a:1,b:2,c:3");

                cr_expect_str_eq(connection_server(&c), names[chance % 3]);
                connection_deinit(&c);
        }
}

Test(connection, goes_round)
{
        Connection c;

        chance = 1;
        c = connection_to("a:1,b:2,c:3");
        expect(&c, RPC_UNAVAILABLE, CONNECTION_SWITCHED, "c:3");
        expect(&c, RPC_RESOURCE_EXHAUSTED, CONNECTION_SWITCHED, "a:1");
        expect(&c, RPC_PERMISSION_DENIED, CONNECTION_ROUND, "b:2");
        expect(&c, RPC_UNTRUSTED, CONNECTION_SWITCHED, "c:3");
        connection_succeeded(&c);
        expect(&c, RPC_DEADLINE_EXCEEDED, CONNECTION_SWITCHED, "a:1");
        expect(&c, RPC_CANCELLED, CONNECTION_SWITCHED, "b:2");
        connection_deinit(&c);
}

Test(connection, stays_when_the_server_is_not_to_blame)
{
        Connection c;

        chance = 0;
        c = connection_to("a:1,b:2");
        expect(&c, 3 /* INVALID_ARGUMENT */, CONNECTION_WAIT, "a:1");
        expect(&c, RPC_NO_MEMORY, CONNECTION_WAIT, "a:1");
        connection_deinit(&c);
}

Test(connection, avoids_those_without_profiling)
{
        Connection c;

        chance = 0;
        c = connection_to("a:1,b:2,c:3");
        expect(&c, RPC_UNIMPLEMENTED, CONNECTION_SWITCHED, "b:2");
        expect(&c, RPC_UNAVAILABLE, CONNECTION_ROUND, "c:3");
        expect(&c, RPC_UNIMPLEMENTED, CONNECTION_SWITCHED, "b:2");
        expect(&c, RPC_UNAVAILABLE, CONNECTION_WAIT, "b:2");
        /* An hour later they are asked again. */
        connection_failed(&c, RPC_UNAVAILABLE, 3606 * NS_PER_S);
        cr_expect_str_neq(connection_server(&c), "b:2");
        connection_deinit(&c);
}

Test(connection, only_one)
{
        Connection c;

        chance = 7;
        c = connection_to("a:1");
        RpcChannel *before = c.channel;
        expect(&c, RPC_UNAVAILABLE, CONNECTION_WAIT, "a:1");
        cr_expect_eq(c.channel, before, "gRPC connects again");
        expect(&c, RPC_DEADLINE_EXCEEDED, CONNECTION_WAIT, "a:1");
        cr_expect(connection_is_stale(&c, 5 * NS_PER_S - 1), "one that hangs is left");
        expect(&c, RPC_UNIMPLEMENTED, CONNECTION_WAIT, "a:1");
        connection_deinit(&c);
}

Test(connection, looks_at_home_again_ever_less_often)
{
        uint64_t now_ns = 100 * NS_PER_S, last_ns = 0;
        Connection c;

        chance = 0;
        c = connection_to("127.0.0.1:1,b:2");
        cr_expect_eq(connection_next_mono_ns(&c), UINT64_MAX, "it is at home");
        connection_failed(&c, RPC_UNAVAILABLE, now_ns);
        cr_expect_str_eq(connection_server(&c), "b:2");
        for (int i = 0; i < 8; i++) {
                uint64_t wait_ns = connection_next_mono_ns(&c) - now_ns;

                cr_expect_geq(wait_ns, last_ns);
                cr_expect_leq(wait_ns, 160 * NS_PER_S);
                last_ns = wait_ns;
                now_ns += wait_ns;
                cr_expect_not(connection_step(&c, now_ns));
                cr_expect_neq(c.candidate, NULL);
                now_ns += 3 * NS_PER_S;
                cr_expect_not(connection_step(&c, now_ns), "nobody is there");
                cr_expect_eq(c.candidate, NULL);
        }
        cr_expect_eq(last_ns, 160 * NS_PER_S);
        connection_deinit(&c);
}

Test(connection, new_configuration)
{
        char *error = NULL;
        bool changed = true;
        Connection c;

        chance = 1;
        c = connection_to("a:1,b:2");
        cr_expect_eq(connection_set_config(&c, &config, NS_PER_S, &changed, &error), 0);
        cr_expect_not(changed);
        config.oap_servers = (char *)"c:3,d:4";
        cr_expect_eq(connection_set_config(&c, &config, NS_PER_S, &changed, &error), 0);
        cr_expect(changed);
        cr_expect_str_eq(connection_server(&c), "d:4");
        setenv("SWPROFD_TEST_TOKEN", "t", 1);
        config.oap_authentication = (char *)"env:SWPROFD_TEST_TOKEN";
        cr_expect_eq(connection_set_config(&c, &config, NS_PER_S, &changed, &error), 0);
        cr_expect(changed);
        cr_expect_str_eq(c.credentials.token, "t");
        setenv("SWPROFD_TEST_TOKEN", "a\nb", 1);
        cr_expect_eq(connection_set_config(&c, &config, NS_PER_S, &changed, &error),
                CONNECTION_E_INVALID);
        cr_expect_str_eq(error, "oap.authentication: the environment variable SWPROFD_TEST_TOKEN "
                                "holds no token of printable ASCII");
        cr_expect_str_eq(c.credentials.token, "t", "the old one stays");
        free(error);
        connection_deinit(&c);
}
