/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "oap/codec.h"
#include "oap/sw8.h"
#include "skywalking.pb-c.h"
#include "util/error.h"

#define COMMANDS_MAX  1024
#define ARGUMENTS_MAX 64
/* What a reply may become in memory: two bytes on the wire can ask for a whole structure. */
#define DECODED_MAX_BYTES (32 * 1024 * 1024)

/* Copies of strings that had to be mended, kept until the message is packed. */
typedef struct Texts {
        char **copies;
        size_t n;
        bool failed; /* no memory */
} Texts;

static void texts_deinit(Texts *t)
{
        for (size_t i = 0; i < t->n; i++)
                free(t->copies[i]);
        free(t->copies);
}

/* Length of the UTF-8 character at p, 0: none is there. Shortest forms only, no surrogates, up to
 * U+10FFFF. */
static size_t utf8_length(const unsigned char *p)
{
        size_t n;

        if (p[0] < 0x80)
                return 1;
        if (p[0] < 0xc2 || p[0] > 0xf4)
                return 0;
        n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
        for (size_t i = 1; i < n; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
                return 0;
        return n;
}

/* The string if it is UTF-8, as proto3 demands, else a copy with '?' for each byte that is not. */
static char *text(Texts *t, const char *s)
{
        const unsigned char *p = (const unsigned char *)s;
        char **copies, *copy;
        size_t n = 1;

        while (*p && n > 0) {
                n = utf8_length(p);
                p += n;
        }
        if (n > 0)
                return (char *)s;
        copies = reallocarray(t->copies, t->n + 1, sizeof(*copies));
        if (copies)
                t->copies = copies;
        copy = copies ? strdup(s) : NULL;
        if (!copy) {
                t->failed = true;
                return (char *)s;
        }
        t->copies[t->n++] = copy;
        for (char *q = copy; *q;) {
                n = utf8_length((unsigned char *)q);
                if (n > 0)
                        q += n;
                else
                        *q++ = '?';
        }
        return copy;
}

/* Return: 0, -ENOMEM, also if one of the texts could not be had. */
static int pack(const ProtobufCMessage *message, const Texts *texts, void **ret, size_t *ret_size)
{
        size_t size = protobuf_c_message_get_packed_size(message);
        void *bytes = texts->failed ? NULL : malloc(size > 0 ? size : 1);

        if (!bytes)
                return error_origin(-ENOMEM);
        *ret_size = protobuf_c_message_pack(message, bytes);
        *ret = bytes;
        return 0;
}

int codec_task_query(const char *service, const char *instance, int64_t last_command_wall_ms,
        void **ret, size_t *ret_size)
{
        _cleanup_(texts_deinit) Texts texts = {0};
        Skywalking__V3__ProfileTaskCommandQuery m =
                SKYWALKING__V3__PROFILE_TASK_COMMAND_QUERY__INIT;

        m.service = text(&texts, service);
        m.serviceinstance = text(&texts, instance);
        m.lastcommandtime = last_command_wall_ms;
        return pack(&m.base, &texts, ret, ret_size);
}

int codec_snapshot(const Snapshot *snapshot, void **ret, size_t *ret_size)
{
        _cleanup_(texts_deinit) Texts texts = {0};
        _cleanup_(freep) char **signatures = NULL;
        Skywalking__V3__ThreadSnapshot m = SKYWALKING__V3__THREAD_SNAPSHOT__INIT;
        Skywalking__V3__ThreadStack stack = SKYWALKING__V3__THREAD_STACK__INIT;
        size_t n = snapshot->stack->n_signatures;

        signatures = calloc(n > 0 ? n : 1, sizeof(*signatures));
        if (!signatures)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < n; i++)
                signatures[i] = text(&texts, snapshot->stack->signatures[i]);
        stack.n_codesignatures = n;
        stack.codesignatures = signatures;
        m.taskid = text(&texts, snapshot->task_id);
        m.tracesegmentid = text(&texts, snapshot->segment_id);
        m.time = snapshot->time_wall_ms;
        m.sequence = snapshot->sequence;
        m.stack = &stack;
        return pack(&m.base, &texts, ret, ret_size);
}

int codec_task_finish(const char *service, const char *instance, const char *task_id, void **ret,
        size_t *ret_size)
{
        _cleanup_(texts_deinit) Texts texts = {0};
        Skywalking__V3__ProfileTaskFinishReport m =
                SKYWALKING__V3__PROFILE_TASK_FINISH_REPORT__INIT;

        m.service = text(&texts, service);
        m.serviceinstance = text(&texts, instance);
        m.taskid = text(&texts, task_id);
        return pack(&m.base, &texts, ret, ret_size);
}

int codec_keep_alive(const char *service, const char *instance, void **ret, size_t *ret_size)
{
        _cleanup_(texts_deinit) Texts texts = {0};
        Skywalking__V3__InstancePingPkg m = SKYWALKING__V3__INSTANCE_PING_PKG__INIT;

        m.service = text(&texts, service);
        m.serviceinstance = text(&texts, instance);
        return pack(&m.base, &texts, ret, ret_size);
}

/* Keys and values of a message. */
typedef struct Pairs {
        Skywalking__V3__KeyStringValuePair *pairs, **list;
} Pairs;

static void pairs_deinit(Pairs *p)
{
        free(p->pairs);
        free(p->list);
}

static int pairs_init(Pairs *p, size_t n)
{
        p->pairs = calloc(n + 1, sizeof(*p->pairs));
        p->list = calloc(n + 1, sizeof(*p->list));
        return p->pairs && p->list ? 0 : error_origin(-ENOMEM);
}

static void pairs_set(Pairs *p, Texts *texts, size_t i, const char *key, const char *value)
{
        skywalking__v3__key_string_value_pair__init(&p->pairs[i]);
        p->pairs[i].key = text(texts, key);
        p->pairs[i].value = text(texts, value);
        p->list[i] = &p->pairs[i];
}

int codec_instance_properties(const char *service, const char *instance,
        const CodecProperty *properties, size_t n, void **ret, size_t *ret_size)
{
        _cleanup_(texts_deinit) Texts texts = {0};
        _cleanup_(pairs_deinit) Pairs pairs = {0};
        Skywalking__V3__InstanceProperties m = SKYWALKING__V3__INSTANCE_PROPERTIES__INIT;
        int r;

        r = pairs_init(&pairs, n);
        if (r < 0)
                return error_trace(r);
        for (size_t i = 0; i < n; i++)
                pairs_set(&pairs, &texts, i, properties[i].key, properties[i].value);
        m.service = text(&texts, service);
        m.serviceinstance = text(&texts, instance);
        m.n_properties = n;
        m.properties = pairs.list;
        return pack(&m.base, &texts, ret, ret_size);
}

static void sw8_deinit(Sw8 *sw8)
{
        free(sw8->texts);
}

/* A trace without an id of its own is named after its first segment, as far as that is known. */
static const char *trace_id_of(const SegmentReport *report)
{
        if (report->trace_id && *report->trace_id)
                return report->trace_id;
        return report->parent_segment_id ? report->parent_segment_id : report->segment_id;
}

/* The thread of the same process whose work it is part of. */
static void reference_thread(
        Skywalking__V3__SegmentReference *ref, Texts *texts, const SegmentReport *report)
{
        ref->reftype = SKYWALKING__V3__REF_TYPE__CrossThread;
        ref->traceid = text(texts, trace_id_of(report));
        ref->parenttracesegmentid = text(texts, report->parent_segment_id);
        ref->parentspanid = 0;
        ref->parentservice = text(texts, report->service);
        ref->parentserviceinstance = text(texts, report->instance);
        ref->parentendpoint = text(texts, report->parent_operation ?: "");
}

/* The process that called. */
static void reference_caller(Skywalking__V3__SegmentReference *ref, Texts *texts, const Sw8 *sw8)
{
        ref->reftype = SKYWALKING__V3__REF_TYPE__CrossProcess;
        ref->traceid = text(texts, sw8->trace_id);
        ref->parenttracesegmentid = text(texts, sw8->segment_id);
        ref->parentspanid = sw8->span_id;
        ref->parentservice = text(texts, sw8->service);
        ref->parentserviceinstance = text(texts, sw8->instance);
        ref->parentendpoint = text(texts, sw8->endpoint);
        ref->networkaddressusedatpeer = text(texts, sw8->address);
}

int codec_segment(const SegmentReport *report, void **ret, size_t *ret_size)
{
        _cleanup_(texts_deinit) Texts texts = {0};
        _cleanup_(pairs_deinit) Pairs tags = {0};
        _cleanup_(sw8_deinit) Sw8 sw8 = {0};
        Skywalking__V3__SegmentObject m = SKYWALKING__V3__SEGMENT_OBJECT__INIT;
        Skywalking__V3__SpanObject span = SKYWALKING__V3__SPAN_OBJECT__INIT;
        Skywalking__V3__SegmentReference ref = SKYWALKING__V3__SEGMENT_REFERENCE__INIT;
        Skywalking__V3__SpanObject *spans[] = {&span};
        Skywalking__V3__SegmentReference *refs[] = {&ref};
        bool bad_parent = false;
        int r;

        r = pairs_init(&tags, report->n_tags);
        if (r < 0)
                return error_trace(r);
        for (size_t i = 0; i < report->n_tags; i++)
                pairs_set(&tags, &texts, i, report->tags[i].key, report->tags[i].value);
        m.traceid = text(&texts, trace_id_of(report));
        m.tracesegmentid = text(&texts, report->segment_id);
        m.service = text(&texts, report->service);
        m.serviceinstance = text(&texts, report->instance);
        m.n_spans = 1;
        m.spans = spans;
        span.spanid = 0;
        span.parentspanid = -1;
        span.starttime = report->start_wall_ms;
        span.endtime = report->end_wall_ms;
        span.operationname = text(&texts, report->operation);
        span.spantype = SKYWALKING__V3__SPAN_TYPE__Entry;
        span.spanlayer = SKYWALKING__V3__SPAN_LAYER__Unknown;
        span.iserror = report->error;
        span.n_tags = report->n_tags;
        span.tags = tags.list;
        span.refs = refs;
        if (report->parent_segment_id) {
                span.spantype = SKYWALKING__V3__SPAN_TYPE__Local;
                span.n_refs = 1;
                reference_thread(&ref, &texts, report);
        } else if (report->sw8) {
                r = sw8_parse(&sw8, report->sw8);
                if (r < 0)
                        return error_trace(r);
                if (r == 0) {
                        /* It is the caller's trace. */
                        m.traceid = text(&texts, sw8.trace_id);
                        span.n_refs = 1;
                        reference_caller(&ref, &texts, &sw8);
                } else {
                        bad_parent = true;
                }
        }
        r = pack(&m.base, &texts, ret, ret_size);
        if (r < 0)
                return error_trace(r);
        return bad_parent ? CODEC_E_PARENT : 0;
}

int codec_segment_end(
        const void *bytes, size_t size, int64_t end_wall_ms, void **ret, size_t *ret_size)
{
        static const Texts texts;
        Skywalking__V3__SegmentObject *m =
                skywalking__v3__segment_object__unpack(NULL, size, bytes);
        int r;

        if (!m)
                return CODEC_E_MALFORMED;
        for (size_t i = 0; i < m->n_spans; i++)
                if (m->spans[i]->endtime < end_wall_ms)
                        m->spans[i]->endtime = end_wall_ms;
        r = pack(&m->base, &texts, ret, ret_size);
        skywalking__v3__segment_object__free_unpacked(m, NULL);
        return r < 0 ? error_trace(r) : 0;
}

/* ---- commands ---- */

typedef struct Budget {
        size_t left;
        bool failed; /* no memory, other than by the budget */
} Budget;

static void *budget_alloc(void *userdata, size_t size)
{
        Budget *b = userdata;
        void *p;

        if (size > b->left)
                return NULL;
        p = malloc(size);
        if (p)
                b->left -= size;
        else
                b->failed = true;
        return p;
}

static void budget_free(void *userdata, void *p)
{
        free(p);
}

/* The whole of `s` as a decimal number. */
static bool number_read(const char *s, int64_t *ret)
{
        char *end;
        long long v;

        if (s[0] != '-' && (s[0] < '0' || s[0] > '9'))
                return false;
        errno = 0;
        v = strtoll(s, &end, 10);
        if (errno || end == s || *end)
                return false;
        *ret = v;
        return true;
}

static bool task_command_read(const Skywalking__V3__Command *command, TaskCommand *ret)
{
        TaskCommand t = {0};
        const struct {
                const char *key;
                const char **text;
                int64_t *number;
        } arguments[] = {
                {"TaskId", .text = &t.task_id},
                {"EndpointName", .text = &t.endpoint},
                {"Duration", .number = &t.duration_min},
                {"MinDurationThreshold", .number = &t.threshold_ms},
                {"DumpPeriod", .number = &t.period_ms},
                {"MaxSamplingCount", .number = &t.max_sampling_count},
                {"StartTime", .number = &t.start_wall_ms},
                {"CreateTime", .number = &t.create_wall_ms},
        };
        size_t n = command->n_args < ARGUMENTS_MAX ? command->n_args : ARGUMENTS_MAX;

        for (size_t i = 0; i < sizeof(arguments) / sizeof(*arguments); i++) {
                const char *value = NULL;

                for (size_t j = 0; j < n && !value; j++)
                        if (strcmp(command->args[j]->key, arguments[i].key) == 0)
                                value = command->args[j]->value;
                if (!value)
                        return false;
                if (arguments[i].text)
                        *arguments[i].text = value;
                else if (!number_read(value, arguments[i].number))
                        return false;
        }
        *ret = t;
        return true;
}

int codec_commands(const void *bytes, size_t size,
        void (*each)(void *userdata, const TaskCommand *command), void *userdata)
{
        Budget budget = {.left = DECODED_MAX_BYTES};
        ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
        Skywalking__V3__Commands *m = skywalking__v3__commands__unpack(&allocator, size, bytes);

        if (!m)
                return budget.failed ? error_origin(-ENOMEM) : CODEC_E_MALFORMED;
        for (size_t i = 0; i < m->n_commands && i < COMMANDS_MAX; i++) {
                TaskCommand command;

                if (strcmp(m->commands[i]->command, "ProfileTaskQuery") != 0)
                        counter_add(COUNTER_COMMANDS_UNKNOWN, 1);
                else if (!task_command_read(m->commands[i], &command))
                        counter_add(COUNTER_COMMANDS_BAD, 1);
                else
                        each(userdata, &command);
        }
        skywalking__v3__commands__free_unpacked(m, &allocator);
        return 0;
}
