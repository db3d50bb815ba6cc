/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "client/packet.h"
#include "span.pb-c.h"

static PacketArena arena;

static int parse(ClientPacket *ret, const Swprof__ClientPacket *m, const char **ret_error)
{
        uint8_t bytes[CLIENT_PACKET_MAX * 2];

        return client_packet_parse(
                ret, &arena, bytes, swprof__client_packet__pack(m, bytes), ret_error);
}

static int parse_hello(
        const char *service, const char *instance, uint32_t protocol, const char **ret_error)
{
        Swprof__Hello hello = SWPROF__HELLO__INIT;
        Swprof__ClientPacket m = SWPROF__CLIENT_PACKET__INIT;
        ClientPacket packet;

        hello.protocol = protocol;
        hello.service = (char *)service;
        hello.instance = (char *)instance;
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_HELLO;
        m.hello = &hello;
        return parse(&packet, &m, ret_error);
}

static int parse_start(const char *segment, const char *operation, int32_t tid)
{
        Swprof__SpanStart start = SWPROF__SPAN_START__INIT;
        Swprof__ClientPacket m = SWPROF__CLIENT_PACKET__INIT;
        const char *error = NULL;
        ClientPacket packet;
        int r;

        start.segment = (char *)segment;
        start.operation = (char *)operation;
        start.tid = tid;
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_START;
        m.start = &start;
        r = parse(&packet, &m, &error);
        cr_assert_eq(r != 0, error != NULL);
        return r;
}

static const char *repeat(size_t n)
{
        static char s[2000];

        memset(s, 'x', n);
        s[n] = '\0';
        return s;
}

Test(packet, hello)
{
        const char *error;
        char service[300];

        cr_assert_eq(parse_hello("s", "i", 1, &error), 0);
        cr_assert_eq(parse_hello("", "i", 1, &error), CLIENT_PACKET_E_HELLO);
        cr_assert_eq(parse_hello("s", "", 1, &error), CLIENT_PACKET_E_HELLO);
        cr_assert_eq(parse_hello("s", "i", 2, &error), CLIENT_PACKET_E_HELLO);
        cr_assert(strstr(error, "protocol 1"));
        strcpy(service, repeat(255));
        cr_assert_eq(parse_hello(service, repeat(255), 1, &error), 0);
        cr_assert_eq(parse_hello(service, repeat(256), 1, &error), CLIENT_PACKET_E_HELLO);
}

Test(packet, fields)
{
        Swprof__SpanContinue m = SWPROF__SPAN_CONTINUE__INIT;
        Swprof__ClientPacket envelope = SWPROF__CLIENT_PACKET__INIT;
        const char *error;
        ClientPacket p;

        m.parent = (char *)"p";
        m.segment = (char *)"s";
        m.tid = 7;
        m.start_mono_ns = 8;
        envelope.event_case = SWPROF__CLIENT_PACKET__EVENT_CONTINUED;
        envelope.continued = &m;
        cr_assert_eq(parse(&p, &envelope, &error), 0);
        cr_assert_eq(p.type, CLIENT_PACKET_CONTINUE);
        cr_assert_str_eq(p.event.parent, "p");
        cr_assert_str_eq(p.event.segment, "s");
        cr_assert_str_eq(p.event.operation, "");
        cr_assert_null(p.event.trace);
        cr_assert_eq(p.event.tid, 7);
        cr_assert_eq(p.event.mono_ns, 8);
}

Test(packet, strings)
{
        static const char *const bad[] = {
                "a\x01",
                "\x7f",
                "\xc2\x85",
                "\x80",
                "\xc0\x80",
                "\xe0\x80\x80",
                "\xe2\x82",
                "\xed\xa0\x80",
                "\xf4\x90\x80\x80",
                "\xf8\x88\x80\x80\x80",
                "\xff",
        };

        cr_assert_eq(parse_start("s", "GET:/\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 1), 0);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                cr_assert_eq(parse_start("s", bad[i], 1), CLIENT_PACKET_E_BROKEN, "%zu", i);
        cr_assert_eq(parse_start("", "o", 1), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(parse_start("s", "", 1), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(parse_start(repeat(255), "o", 1), 0);
        cr_assert_eq(parse_start(repeat(256), "o", 1), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(parse_start("s", repeat(1023), 1), 0);
        cr_assert_eq(parse_start("s", repeat(1024), 1), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(parse_start("s", "o", 0), 0);
        cr_assert_eq(parse_start("s", "o", -1), CLIENT_PACKET_E_BROKEN);
}

static int parse_switch(int32_t tid, size_t n, const char *signature, ClientPacket *ret)
{
        static char *stack[CLIENT_STACK_MAX + 1];
        Swprof__SpanSwitch switched = SWPROF__SPAN_SWITCH__INIT;
        Swprof__ClientPacket m = SWPROF__CLIENT_PACKET__INIT;
        const char *error = NULL;

        for (size_t i = 0; i < n; i++)
                stack[i] = (char *)signature;
        switched.segment = (char *)"s";
        switched.tid = tid;
        switched.stack = stack;
        switched.n_stack = n;
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_SWITCHED;
        m.switched = &switched;
        return parse(ret, &m, &error);
}

Test(packet, stack)
{
        ClientPacket p;

        cr_assert_eq(parse_switch(0, 2, "app.py.main: 3", &p), 0);
        cr_assert_eq(p.event.n_stack, 2);
        cr_assert_str_eq(p.event.stack[1], "app.py.main: 3");
        cr_assert_eq(parse_switch(7, 0, NULL, &p), 0);
        cr_assert_eq(p.event.n_stack, 0);
        cr_assert_eq(parse_switch(7, 1, "a", &p), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(parse_switch(0, 3, "", &p), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(parse_switch(0, 3, "a\n", &p), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(parse_switch(0, 3, repeat(1023), &p), 0);
        cr_assert_eq(parse_switch(0, 3, repeat(1024), &p), CLIENT_PACKET_E_BROKEN);
        /* The largest ones that are good, by number and by size. */
        cr_assert_eq(parse_switch(0, CLIENT_STACK_MAX, repeat(29), &p), 0);
        cr_assert_eq(p.event.n_stack, CLIENT_STACK_MAX);
        cr_assert_eq(parse_switch(0, 31, repeat(1023), &p), 0);
        cr_assert_eq(parse_switch(0, CLIENT_STACK_MAX + 1, "a", &p), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(parse_switch(0, 33, repeat(1023), &p), CLIENT_PACKET_E_BROKEN);
}

/* The decoder ends strings with a NUL and forgets their length; one within must not go unnoticed.
 */
Test(packet, nul_within)
{
        static const uint8_t rename[] = {0x1a, 8, 0x0a, 1, 's', 0x12, 3, 'a', 0, 'b'};
        static const uint8_t good[] = {0x1a, 8, 0x0a, 1, 's', 0x12, 3, 'a', 'a', 'b'};
        const char *error;
        ClientPacket p;

        cr_assert_eq(client_packet_parse(&p, &arena, rename, sizeof(rename), &error),
                CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(client_packet_parse(&p, &arena, good, sizeof(good), &error), 0);
        cr_assert_str_eq(p.event.operation, "aab");
}

Test(packet, garbage)
{
        uint8_t unknown[CLIENT_PACKET_MAX + 1];
        const char *error;
        ClientPacket p;

        cr_assert_eq(client_packet_parse(&p, &arena, "", 0, &error), CLIENT_PACKET_E_BROKEN);
        cr_assert_eq(client_packet_parse(&p, &arena, "\xff", 1, &error), CLIENT_PACKET_E_BROKEN);
        /* Fields that we do not know, more of them than the arena takes. */
        for (size_t i = 0; i < sizeof(unknown); i++)
                unknown[i] = i % 2 ? 1 : 15 << 3;
        cr_assert_eq(client_packet_parse(&p, &arena, unknown, CLIENT_PACKET_MAX, &error),
                CLIENT_PACKET_E_BROKEN);
        cr_assert_str_eq(error, "malformed packet");
        cr_assert_eq(client_packet_parse(&p, &arena, unknown, CLIENT_PACKET_MAX + 1, &error),
                CLIENT_PACKET_E_BROKEN);
        /* A few are allowed: protocol 1 may grow. */
        cr_assert_eq(client_packet_parse(&p, &arena, "\x78\x01\x22\x03\x0a\x01s", 7, &error), 0);
        cr_assert_eq(p.type, CLIENT_PACKET_STOP);
}
