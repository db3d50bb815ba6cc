/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "wire.h"

enum {
        TYPE_VARINT = 0,
        TYPE_FIXED64 = 1,
        TYPE_BYTES = 2,
        TYPE_FIXED32 = 5,
};

/* In front of the message: the packet's one field, a tag and a size of at most two bytes. */
#define HEAD_MAX 3

/* ---- to the daemon ---- */

static void put_varint(WireBuffer *b, uint64_t v)
{
        while (v >= 0x80) {
                b->bytes[b->end++] = (uint8_t)v | 0x80;
                v >>= 7;
        }
        b->bytes[b->end++] = (uint8_t)v;
}

/* Values that are 0 or empty are not sent, as proto3 says. */
static void put_number(WireBuffer *b, unsigned field, uint64_t v)
{
        if (v == 0)
                return;
        put_varint(b, field << 3 | TYPE_VARINT);
        put_varint(b, v);
}

static void put_string(WireBuffer *b, unsigned field, const char *s)
{
        size_t size = strlen(s);

        if (size == 0)
                return;
        put_varint(b, field << 3 | TYPE_BYTES);
        put_varint(b, size);
        memcpy(b->bytes + b->end, s, size);
        b->end += size;
}

static void begin(WireBuffer *b)
{
        b->begin = b->end = HEAD_MAX;
}

/* Written backwards, in front of the message: its size is known only now. */
static void finish(WireBuffer *b, WireEventType type)
{
        size_t size = b->end - b->begin;

        if (size < 0x80) {
                b->bytes[--b->begin] = (uint8_t)size;
        } else {
                b->bytes[--b->begin] = (uint8_t)(size >> 7);
                b->bytes[--b->begin] = (uint8_t)size | 0x80;
        }
        b->bytes[--b->begin] = (uint8_t)(type << 3 | TYPE_BYTES);
}

void wire_put_hello(WireBuffer *ret, const WireHello *hello)
{
        begin(ret);
        put_number(ret, 1, WIRE_PROTOCOL);
        put_string(ret, 2, hello->service);
        put_string(ret, 3, hello->instance);
        put_string(ret, 4, hello->language);
        put_string(ret, 5, hello->client);
        put_number(ret, 6, hello->agent);
        finish(ret, WIRE_HELLO);
}

void wire_put_event(WireBuffer *ret, WireEventType type, const WireEvent *event)
{
        begin(ret);
        switch (type) {
        case WIRE_HELLO:
                break;
        case WIRE_START:
                put_string(ret, 1, event->segment);
                put_string(ret, 2, event->operation);
                put_number(ret, 3, (uint64_t)event->tid);
                put_number(ret, 4, event->mono_ns);
                break;
        case WIRE_RENAME:
                put_string(ret, 1, event->segment);
                put_string(ret, 2, event->operation);
                break;
        case WIRE_STOP:
                put_string(ret, 1, event->segment);
                put_number(ret, 2, event->mono_ns);
                put_number(ret, 3, event->error);
                break;
        case WIRE_CONTINUE:
                put_string(ret, 1, event->parent);
                put_string(ret, 2, event->segment);
                put_number(ret, 3, (uint64_t)event->tid);
                put_number(ret, 4, event->mono_ns);
                put_string(ret, 5, event->operation);
                break;
        case WIRE_SWITCH:
                put_string(ret, 1, event->segment);
                put_number(ret, 2, (uint64_t)event->tid);
                put_number(ret, 3, event->mono_ns);
                break;
        case WIRE_PARENT:
                put_string(ret, 1, event->segment);
                put_string(ret, 2, event->sw8);
                break;
        case WIRE_TAG:
                put_string(ret, 1, event->segment);
                put_string(ret, 2, event->key);
                put_string(ret, 3, event->value);
                break;
        }
        finish(ret, type);
}

/* ---- from the daemon ---- */

typedef struct Field {
        uint64_t number;
        unsigned type;
        uint64_t varint;
        WireSlice content; /* of TYPE_BYTES */
} Field;

static bool get_varint(WireSlice *in, uint64_t *ret)
{
        uint64_t v = 0;

        for (unsigned shift = 0; shift < 64 && in->size > 0; shift += 7) {
                uint8_t byte = *in->bytes++;

                in->size--;
                v |= (uint64_t)(byte & 0x7f) << shift;
                if (!(byte & 0x80)) {
                        *ret = v;
                        return true;
                }
        }
        return false;
}

static bool get_bytes(WireSlice *in, uint64_t size, WireSlice *ret)
{
        if (size > in->size)
                return false;
        *ret = (WireSlice){in->bytes, (size_t)size};
        in->bytes += size;
        in->size -= (size_t)size;
        return true;
}

/* The next field of a message that is not at its end. Return: whether it is well-formed. */
static bool get_field(WireSlice *in, Field *ret)
{
        uint64_t tag, size;
        Field f = {0};

        if (!get_varint(in, &tag))
                return false;
        f.number = tag >> 3;
        f.type = tag & 7;
        switch (f.type) {
        case TYPE_VARINT:
                if (!get_varint(in, &f.varint))
                        return false;
                break;
        case TYPE_FIXED64:
                if (!get_bytes(in, 8, &f.content))
                        return false;
                break;
        case TYPE_BYTES:
                if (!get_varint(in, &size) || !get_bytes(in, size, &f.content))
                        return false;
                break;
        case TYPE_FIXED32:
                if (!get_bytes(in, 4, &f.content))
                        return false;
                break;
        default:
                return false;
        }
        *ret = f;
        return true;
}

/* Of the fields that a later version may have added, only the form is looked at. */
static bool parse_message(WireReply *reply, WireSlice message)
{
        Field f;

        if (reply->type == WIRE_WATCH)
                reply->watch = message;
        while (message.size > 0) {
                if (!get_field(&message, &f))
                        return false;
                if (reply->type == WIRE_WELCOME && f.number == 1 && f.type == TYPE_VARINT)
                        reply->protocol = (uint32_t)f.varint;
        }
        return true;
}

bool wire_parse(WireReply *ret, const void *bytes, size_t size)
{
        WireSlice in = {bytes, size};
        WireReply reply = {0};
        Field f;

        while (in.size > 0) {
                if (!get_field(&in, &f))
                        return false;
                if (f.type != TYPE_BYTES || f.number < WIRE_WELCOME || f.number > WIRE_WATCH)
                        continue;
                reply = (WireReply){.type = (WireReplyType)f.number};
                if (!parse_message(&reply, f.content))
                        return false;
        }
        *ret = reply;
        return true;
}

bool wire_next_operation(WireSlice *watch, WireSlice *ret)
{
        Field f;

        while (watch->size > 0 && get_field(watch, &f)) {
                if (f.number == 2 && f.type == TYPE_BYTES) {
                        *ret = f.content;
                        return true;
                }
        }
        return false;
}
