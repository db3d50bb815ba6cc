/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "client/packet.h"
#include "span.pb-c.h"

/* Each block is preceded by its size, which tells the length of strings that hold a NUL from their
 * C length. */
#define BLOCK_HEAD 16

static void *arena_alloc(void *data, size_t size)
{
        PacketArena *a = data;
        uint8_t *block = a->bytes + a->used;
        size_t n;

        if (size > sizeof(a->bytes))
                return NULL;
        n = BLOCK_HEAD + ((size + 15) & ~(size_t)15);
        if (n > sizeof(a->bytes) - a->used)
                return NULL;
        memcpy(block, &size, sizeof(size));
        a->used += n;
        return block + BLOCK_HEAD;
}

static void arena_free(void *data, void *pointer)
{
}

static size_t string_size(const PacketArena *a, const char *s)
{
        const uint8_t *p = (const uint8_t *)s;
        size_t size;

        /* An absent field is a constant of the decoder, outside of the arena. */
        if (p < a->bytes || p >= a->bytes + sizeof(a->bytes))
                return strlen(s);
        memcpy(&size, p - BLOCK_HEAD, sizeof(size));
        return size - 1;
}

/* Length of the valid UTF-8 sequence at s, of a character that is not a control character; 0: it is
 * not that. */
static size_t character_size(const uint8_t *s, size_t left)
{
        uint32_t c;
        size_t n;

        if (s[0] < 0x80)
                return s[0] < 0x20 || s[0] == 0x7f ? 0 : 1;
        if (s[0] >= 0xc2 && s[0] < 0xe0) {
                n = 2;
                c = s[0] & 0x1f;
        } else if (s[0] >= 0xe0 && s[0] < 0xf0) {
                n = 3;
                c = s[0] & 0x0f;
        } else if (s[0] >= 0xf0 && s[0] < 0xf5) {
                n = 4;
                c = s[0] & 0x07;
        } else {
                return 0;
        }
        if (n > left)
                return 0;
        for (size_t i = 1; i < n; i++) {
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (s[i] & 0x3f);
        }
        if (c < 0xa0 || (n == 3 && c < 0x800) || (c >= 0xd800 && c < 0xe000) ||
                (n == 4 && (c < 0x10000 || c > 0x10ffff)))
                return 0;
        return n;
}

static bool string_is_valid(const PacketArena *a, const char *s, size_t min, size_t max)
{
        size_t size = string_size(a, s), n;

        if (size < min || size > max)
                return false;
        for (size_t i = 0; i < size; i += n) {
                n = character_size((const uint8_t *)s + i, size - i);
                if (n == 0)
                        return false;
        }
        return true;
}

static int hello_parse(
        ClientPacket *ret, const PacketArena *a, const Swprof__Hello *m, const char **ret_error)
{
        const char *error = NULL;

        if (m->protocol != CLIENT_PROTOCOL)
                error = "this daemon speaks protocol 1 only";
        else if (!string_is_valid(a, m->service, 1, 255))
                error = "service must be 1 to 255 bytes of printable UTF-8";
        else if (!string_is_valid(a, m->instance, 1, 255))
                error = "instance must be 1 to 255 bytes of printable UTF-8";
        else if (!string_is_valid(a, m->language, 0, 255))
                error = "language must be at most 255 bytes of printable UTF-8";
        else if (!string_is_valid(a, m->client, 0, 255))
                error = "client must be at most 255 bytes of printable UTF-8";
        if (error) {
                *ret_error = error;
                return CLIENT_PACKET_E_HELLO;
        }
        *ret = (ClientPacket){
                .type = CLIENT_PACKET_HELLO,
                .hello = {m->service, m->instance, m->language, m->client, m->agent},
        };
        return 0;
}

static bool stack_is_valid(const PacketArena *a, const ClientEvent *e)
{
        if (e->n_stack > CLIENT_STACK_MAX)
                return false;
        for (size_t i = 0; i < e->n_stack; i++)
                if (!string_is_valid(a, e->stack[i], 1, 1023))
                        return false;
        return true;
}

/* The members of an event that are there must be valid; only the operation of a continued one may
 * be empty. */
static int event_check(
        const PacketArena *a, ClientPacketType type, const ClientEvent *e, const char **ret_error)
{
        const char *error = NULL;

        if (!string_is_valid(a, e->segment, 1, 255))
                error = "segment must be 1 to 255 bytes of printable UTF-8";
        else if (e->parent && !string_is_valid(a, e->parent, 1, 255))
                error = "parent must be 1 to 255 bytes of printable UTF-8";
        else if (e->operation &&
                 !string_is_valid(a, e->operation, type == CLIENT_PACKET_CONTINUE ? 0 : 1, 1023))
                error = "operation must be 1 to 1023 bytes of printable UTF-8";
        else if (e->trace && !string_is_valid(a, e->trace, 0, 255))
                error = "trace must be at most 255 bytes of printable UTF-8";
        else if (e->tid < 0)
                error = "tid must not be negative";
        else if (e->n_stack > 0 && e->tid != 0)
                error = "a stack goes with tid 0 only";
        else if (!stack_is_valid(a, e))
                error = "stack must be at most 1024 times 1 to 1023 bytes of printable UTF-8";
        if (error) {
                *ret_error = error;
                return CLIENT_PACKET_E_BROKEN;
        }
        return 0;
}

int client_packet_parse(ClientPacket *ret, PacketArena *arena, const void *bytes, size_t size,
        const char **ret_error)
{
        ProtobufCAllocator allocator = {arena_alloc, arena_free, arena};
        ClientPacket packet = {0};
        ClientEvent *e = &packet.event;
        Swprof__ClientPacket *m;
        int r;

        arena->used = 0;
        m = size <= CLIENT_PACKET_MAX ? swprof__client_packet__unpack(&allocator, size, bytes)
                                      : NULL;
        if (!m) {
                *ret_error = "malformed packet";
                return CLIENT_PACKET_E_BROKEN;
        }
        switch (m->event_case) {
        case SWPROF__CLIENT_PACKET__EVENT_HELLO:
                return hello_parse(ret, arena, m->hello, ret_error);
        case SWPROF__CLIENT_PACKET__EVENT_START:
                packet.type = CLIENT_PACKET_START;
                *e = (ClientEvent){
                        .segment = m->start->segment,
                        .operation = m->start->operation,
                        .trace = m->start->trace,
                        .tid = m->start->tid,
                        .mono_ns = m->start->start_mono_ns,
                };
                break;
        case SWPROF__CLIENT_PACKET__EVENT_RENAME:
                packet.type = CLIENT_PACKET_RENAME;
                *e = (ClientEvent){
                        .segment = m->rename->segment,
                        .operation = m->rename->operation,
                };
                break;
        case SWPROF__CLIENT_PACKET__EVENT_STOP:
                packet.type = CLIENT_PACKET_STOP;
                *e = (ClientEvent){
                        .segment = m->stop->segment,
                        .mono_ns = m->stop->stop_mono_ns,
                        .error = m->stop->error,
                };
                break;
        case SWPROF__CLIENT_PACKET__EVENT_CONTINUED:
                packet.type = CLIENT_PACKET_CONTINUE;
                *e = (ClientEvent){
                        .segment = m->continued->segment,
                        .operation = m->continued->operation,
                        .parent = m->continued->parent,
                        .tid = m->continued->tid,
                        .mono_ns = m->continued->start_mono_ns,
                };
                break;
        case SWPROF__CLIENT_PACKET__EVENT_SWITCHED:
                packet.type = CLIENT_PACKET_SWITCH;
                *e = (ClientEvent){
                        .segment = m->switched->segment,
                        .tid = m->switched->tid,
                        .mono_ns = m->switched->at_mono_ns,
                        .stack = (const char *const *)m->switched->stack,
                        .n_stack = m->switched->n_stack,
                };
                break;
        default:
                *ret_error = "no event that protocol 1 knows";
                return CLIENT_PACKET_E_BROKEN;
        }
        r = event_check(arena, packet.type, e, ret_error);
        if (r)
                return r;
        *ret = packet;
        return 0;
}
