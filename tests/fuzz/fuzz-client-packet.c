/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "client/packet.h"
#include "fuzz.h"

static void check_string(const char *s, size_t max)
{
        if (s && strlen(s) > max)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static PacketArena arena;
        ClientPacket packet;
        const char *error = NULL;
        int r = client_packet_parse(&packet, &arena, data, size, &error);

        if ((r != 0) != (error != NULL))
                abort();
        if (r)
                return 0;
        if (packet.type == CLIENT_PACKET_HELLO) {
                check_string(packet.hello.service, 255);
                check_string(packet.hello.instance, 255);
        } else {
                check_string(packet.event.segment, 255);
                check_string(packet.event.operation, 1023);
                check_string(packet.event.trace, 255);
                check_string(packet.event.parent, 255);
                if (packet.event.n_stack > CLIENT_STACK_MAX)
                        abort();
                for (size_t i = 0; i < packet.event.n_stack; i++)
                        check_string(packet.event.stack[i], 1023);
        }
        return 0;
}
