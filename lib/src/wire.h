/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The packets of proto/swprof/span.proto, by hand: the library needs nothing but libc. */

#define WIRE_PROTOCOL 1

/* Of a packet from the daemon. */
#define WIRE_RECEIVE_MAX 65536

/* Field numbers of ClientPacket. */
typedef enum WireEventType {
        WIRE_HELLO = 1,
        WIRE_START = 2,
        WIRE_RENAME = 3,
        WIRE_STOP = 4,
        WIRE_CONTINUE = 5,
        WIRE_SWITCH = 6,
        WIRE_PARENT = 7,
        WIRE_TAG = 8,
} WireEventType;

typedef struct WireHello {
        const char *service, *instance, *language, *client;
        bool agent;
} WireHello;

/* The members that the type has are taken. */
typedef struct WireEvent {
        const char *segment, *parent, *operation, *sw8, *key, *value;
        int32_t tid;
        uint64_t mono_ns;
        bool error;
} WireEvent;

/* Has room for the largest packet: four names, or two and an operation, or one and an sw8. */
typedef struct WireBuffer {
        uint8_t bytes[2048];
        size_t begin, end;
} WireBuffer;

/* The packet is what is between begin and end afterwards. */
void wire_put_hello(WireBuffer *ret, const WireHello *hello);
void wire_put_event(WireBuffer *ret, WireEventType type, const WireEvent *event);

/* Field numbers of DaemonPacket. */
typedef enum WireReplyType {
        WIRE_NONE, /* a packet of a later version: to be ignored */
        WIRE_WELCOME = 1,
        WIRE_ERROR = 2,
        WIRE_WATCH = 3,
} WireReplyType;

typedef struct WireSlice {
        const uint8_t *bytes;
        size_t size;
} WireSlice;

typedef struct WireReply {
        WireReplyType type;
        uint32_t protocol; /* of WIRE_WELCOME */
        WireSlice watch;   /* of WIRE_WATCH, for wire_next_operation(); well-formed */
} WireReply;

/* Return: whether it is well-formed. */
bool wire_parse(WireReply *ret, const void *bytes, size_t size);

/* Takes the next operation from the list. Return: whether there was one. */
bool wire_next_operation(WireSlice *watch, WireSlice *ret);
