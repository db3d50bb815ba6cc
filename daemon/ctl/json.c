/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <json-c/json.h>
#include <stdlib.h>

#include "ctl/json.h"
#include "ctl/text.h"
#include "util/cleanup.h"

struct json_object *json_string(const char *s)
{
        _cleanup_(freep) char *text = text_repair(s);

        return check_memory(json_object_new_string(text));
}

struct json_object *json_number(int64_t n)
{
        return check_memory(json_object_new_int64(n));
}

struct json_object *json_list(void)
{
        return check_memory(json_object_new_array());
}

void json_append(struct json_object *list, struct json_object *value)
{
        check_memory(json_object_array_add(list, value) == 0 ? list : NULL);
}

/* The value of that type at p. */
static struct json_object *json_from_value(ProtobufCType type, const void *p)
{
        switch (type) {
        case PROTOBUF_C_TYPE_INT32:
                return check_memory(json_object_new_int(*(const int32_t *)p));
        case PROTOBUF_C_TYPE_UINT32:
                return check_memory(json_object_new_int64(*(const uint32_t *)p));
        case PROTOBUF_C_TYPE_INT64:
                return check_memory(json_object_new_int64(*(const int64_t *)p));
        case PROTOBUF_C_TYPE_UINT64:
                return check_memory(json_object_new_uint64(*(const uint64_t *)p));
        case PROTOBUF_C_TYPE_BOOL:
                return check_memory(json_object_new_boolean(*(const protobuf_c_boolean *)p));
        case PROTOBUF_C_TYPE_STRING:
                return json_string(*(char *const *)p);
        case PROTOBUF_C_TYPE_MESSAGE: {
                const ProtobufCMessage *m = *(ProtobufCMessage *const *)p;

                return m ? json_from_message(m) : NULL;
        }
        default:
                assert(!"a type that the control protocol does not use");
                return NULL;
        }
}

static size_t value_size(ProtobufCType type)
{
        switch (type) {
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_UINT32:
                return sizeof(uint32_t);
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_UINT64:
                return sizeof(uint64_t);
        case PROTOBUF_C_TYPE_BOOL:
                return sizeof(protobuf_c_boolean);
        default:
                return sizeof(void *);
        }
}

static struct json_object *json_from_member(
        const ProtobufCMessage *m, const ProtobufCFieldDescriptor *field)
{
        const char *base = (const char *)m, *items;
        struct json_object *array;
        size_t n;

        if (field->label != PROTOBUF_C_LABEL_REPEATED)
                return json_from_value(field->type, base + field->offset);
        n = *(const size_t *)(base + field->quantifier_offset);
        items = *(const char *const *)(base + field->offset);
        array = check_memory(json_object_new_array());
        for (size_t i = 0; i < n; i++)
                if (json_object_array_add(array,
                            json_from_value(field->type, items + i * value_size(field->type))) != 0)
                        check_memory(NULL);
        return array;
}

struct json_object *json_from_message(const ProtobufCMessage *m)
{
        struct json_object *object = json_new();

        for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *field = &m->descriptor->fields[i];

                json_add(object, field->name, json_from_member(m, field));
        }
        return object;
}

struct json_object *json_from_field(const ProtobufCMessage *m, const char *name)
{
        const ProtobufCFieldDescriptor *field =
                protobuf_c_message_descriptor_get_field_by_name(m->descriptor, name);

        assert(field);
        return json_from_member(m, field);
}

struct json_object *json_new(void)
{
        return check_memory(json_object_new_object());
}

void json_add(struct json_object *object, const char *key, struct json_object *value)
{
        if (json_object_object_add_ex(object, key, value,
                    JSON_C_OBJECT_ADD_KEY_IS_NEW | JSON_C_OBJECT_KEY_IS_CONSTANT) != 0)
                check_memory(NULL);
}

char *json_take_text(struct json_object *object)
{
        const char *s = json_object_to_json_string_ext(object,
                JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
        char *text = text_format("%s\n", (const char *)check_memory((void *)s));

        json_object_put(object);
        return text;
}
