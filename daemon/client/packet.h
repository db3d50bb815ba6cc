/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What a client may send, decoded and validated: string lengths as span.proto says them, UTF-8
 * without control characters, thread ids that are not negative. Pure, bounded memory: everything
 * lives in the caller's arena.
 */

#define CLIENT_PROTOCOL   1
#define CLIENT_PACKET_MAX 32768
#define CLIENT_STACK_MAX  1024

/* Room for the largest packet with its structs, and for some fields that a later version may add.
 */
typedef struct PacketArena {
        size_t used;
        _Alignas(16) uint8_t bytes[262144];
} PacketArena;

typedef enum ClientPacketType {
        CLIENT_PACKET_HELLO,
        CLIENT_PACKET_START,
        CLIENT_PACKET_RENAME,
        CLIENT_PACKET_STOP,
        CLIENT_PACKET_CONTINUE,
        CLIENT_PACKET_SWITCH,
} ClientPacketType;

typedef struct ClientHello {
        const char *service, *instance, *language, *client;
        bool agent;
} ClientHello;

/* Members that the message does not have are NULL, 0, false. */
typedef struct ClientEvent {
        const char *segment, *operation, *trace, *parent;
        pid_t tid;        /* as the client's pid namespace sees it */
        uint64_t mono_ns; /* start, stop or switch; 0: now */
        bool error;
        const char *const *stack; /* of a switch; code signatures, outermost first */
        size_t n_stack;
} ClientEvent;

typedef struct ClientPacket {
        ClientPacketType type;
        union {
                ClientHello hello;
                ClientEvent event;
        };
} ClientPacket;

enum {
        _CLIENT_PACKET_E_SUCCESS,
        CLIENT_PACKET_E_BROKEN, /* not a packet of the protocol */
        CLIENT_PACKET_E_HELLO,  /* a hello that is not acceptable */
};

/* Strings of *ret point into the arena. *ret_error is a static text for people. Return: 0,
 * CLIENT_PACKET_E_*. */
int client_packet_parse(ClientPacket *ret, PacketArena *arena, const void *bytes, size_t size,
        const char **ret_error);
