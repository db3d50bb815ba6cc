/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/core.h"

/*
 * SkyWalking's messages ↔ plain values: pure functions, the only users of SkyWalking's protobuf-c
 * types. Encoders return malloc'ed bytes in *ret and *ret_size; 0 or -ENOMEM. Strings that are not
 * UTF-8 are sent with '?' in place.
 */

enum {
        _CODEC_E_SUCCESS,
        CODEC_E_MALFORMED,
        CODEC_E_PARENT,
};

int codec_task_query(const char *service, const char *instance, int64_t last_command_wall_ms,
        void **ret, size_t *ret_size);
int codec_snapshot(const Snapshot *snapshot, void **ret, size_t *ret_size);
int codec_task_finish(const char *service, const char *instance, const char *task_id, void **ret,
        size_t *ret_size);
int codec_keep_alive(const char *service, const char *instance, void **ret, size_t *ret_size);
typedef struct CodecProperty {
        const char *key, *value;
} CodecProperty;
int codec_instance_properties(const char *service, const char *instance,
        const CodecProperty *properties, size_t n, void **ret, size_t *ret_size);
/*
 * One entry span 0 (local span for a continued segment, with a CROSS_THREAD reference to its
 * parent). An empty trace id is replaced by the parent's segment id or else the segment's own: a
 * segment continued from a continued one should bring its trace id. Return: 0, -ENOMEM;
 * CODEC_E_PARENT: without its parent, which sw8 does not tell.
 */
int codec_segment(const SegmentReport *report, void **ret, size_t *ret_size);
/* Such a one again, with another end. Return: 0, CODEC_E_MALFORMED, -ENOMEM. */
int codec_segment_end(
        const void *bytes, size_t size, int64_t end_wall_ms, void **ret, size_t *ret_size);

/*
 * Commands of a reply. `each` gets every readable profile task; commands that are not for us and
 * ones that cannot be read are counted (COUNTER_COMMANDS_…). At most 1024 commands and 64 arguments
 * each are looked at.
 *
 * Return: 0; CODEC_E_MALFORMED: not a Commands message, or one out of all proportion; -ENOMEM.
 */
int codec_commands(const void *bytes, size_t size,
        void (*each)(void *userdata, const TaskCommand *command), void *userdata);
