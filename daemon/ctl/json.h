/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

/*
 * A protobuf message as JSON: the names of the fields are the keys, in their order; every field is
 * there, a message that is not set as null. Messages without oneof, maps and bytes, as those of
 * control.proto's status are.
 */

struct json_object;

struct json_object *json_from_message(const ProtobufCMessage *m);
/* One field of it; NULL is JSON's null. The field must exist. */
struct json_object *json_from_field(const ProtobufCMessage *m, const char *name);

/* Adds it to the object under that key, which is a constant, and takes it over. */
void json_add(struct json_object *object, const char *key, struct json_object *value);
struct json_object *json_new(void);
struct json_object *json_string(const char *s);
struct json_object *json_number(int64_t n);
struct json_object *json_list(void);
/* Takes the value over. */
void json_append(struct json_object *list, struct json_object *value);
/* The text, with a newline at its end, malloc'ed; frees the object. */
char *json_take_text(struct json_object *object);
