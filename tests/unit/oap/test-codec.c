/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "core/counter.h"
#include "oap/codec.h"
#include "oap/sw8.h"
#include "skywalking.pb-c.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))

static Stack *stack_of(size_t n, const char *const *signatures)
{
        Stack *s = stack_new();

        cr_assert(s);
        cr_assert_eq(stack_set_ready(s, n, signatures), 0);
        return s;
}

Test(codec, task_query)
{
        /* Fields 1, 2 and 3, written out by hand; -1 takes ten bytes. */
        static const char expected[] = "\x0a\x03svc\x12\x04inst"
                                       "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        void *data;
        size_t size;

        cr_assert_eq(codec_task_query("svc", "inst", -1, &data, &size), 0);
        cr_assert_eq(size, sizeof(expected) - 1);
        cr_assert_arr_eq(data, expected, size);
        free(data);
}

Test(codec, snapshot)
{
        static const char expected[] = "\x0a\x01t\x12\x01s\x18\xac\x02\x20\x07\x2a\x0c\x0a\x04main"
                                       "\x0a\x04leaf";
        Stack *stack = stack_of(2, (const char *[]){"main", "leaf"});
        Snapshot snapshot = {.task_id = "t",
                .segment_id = "s",
                .time_wall_ms = 300,
                .sequence = 7,
                .stack = stack};
        void *data;
        size_t size;

        cr_assert_eq(codec_snapshot(&snapshot, &data, &size), 0);
        cr_assert_eq(size, sizeof(expected) - 1);
        cr_assert_arr_eq(data, expected, size);
        free(data);
        stack_unref(stack);
}

Test(codec, strings_become_utf8)
{
        static const struct {
                const char *in, *out;
        } cases[] = {
                {"plain", "plain"},
                {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
                {"a\xff"
                 "b",
                        "a?b"},
                {"cut\xe2\x82", "cut??"},
                {"\xc0\xaf", "??"},           /* overlong */
                {"\xe0\x80\xaf", "???"},      /* overlong */
                {"\xed\xa0\x80", "???"},      /* surrogate */
                {"\xf4\x90\x80\x80", "????"}, /* beyond U+10FFFF */
                {"\xf0\x80\x80\x80", "????"}, /* overlong */
                {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
                {"", ""},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Skywalking__V3__ProfileTaskFinishReport *m;
                void *data;
                size_t size;

                cr_assert_eq(codec_task_finish("s", "i", cases[i].in, &data, &size), 0);
                m = skywalking__v3__profile_task_finish_report__unpack(NULL, size, data);
                cr_assert(m);
                cr_expect_str_eq(m->taskid, cases[i].out, "case %zu: %s", i, m->taskid);
                skywalking__v3__profile_task_finish_report__free_unpacked(m, NULL);
                free(data);
        }
}

static Skywalking__V3__SegmentObject *segment_round(const SegmentReport *report)
{
        Skywalking__V3__SegmentObject *m;
        void *data;
        size_t size;

        cr_assert_eq(codec_segment(report, &data, &size),
                report->sw8 && report->sw8[0] == 'n' ? CODEC_E_PARENT : 0);
        m = skywalking__v3__segment_object__unpack(NULL, size, data);
        cr_assert(m);
        free(data);
        return m;
}

Test(codec, segment)
{
        Skywalking__V3__SegmentObject *m = segment_round(&(SegmentReport){.service = "svc",
                .instance = "inst",
                .trace_id = "",
                .segment_id = "seg",
                .operation = "/slow",
                .start_wall_ms = 1000,
                .end_wall_ms = 1500,
                .error = true});

        cr_expect_str_eq(m->traceid, "seg");
        cr_expect_str_eq(m->tracesegmentid, "seg");
        cr_expect_str_eq(m->service, "svc");
        cr_expect_str_eq(m->serviceinstance, "inst");
        cr_assert_eq(m->n_spans, 1);
        cr_expect_eq(m->spans[0]->spanid, 0);
        cr_expect_eq(m->spans[0]->parentspanid, -1);
        cr_expect_eq(m->spans[0]->starttime, 1000);
        cr_expect_eq(m->spans[0]->endtime, 1500);
        cr_expect_str_eq(m->spans[0]->operationname, "/slow");
        cr_expect_eq(m->spans[0]->spantype, SKYWALKING__V3__SPAN_TYPE__Entry);
        cr_expect(m->spans[0]->iserror);
        cr_expect_eq(m->spans[0]->n_refs, 0);
        skywalking__v3__segment_object__free_unpacked(m, NULL);
}

Test(codec, continued_segment)
{
        SegmentReport report = {.service = "svc",
                .instance = "inst",
                .trace_id = "trace",
                .segment_id = "sub",
                .operation = "work",
                .parent_segment_id = "seg",
                .parent_operation = "/slow"};
        Skywalking__V3__SegmentObject *m = segment_round(&report);
        Skywalking__V3__SegmentReference *ref;

        cr_expect_str_eq(m->traceid, "trace");
        cr_assert_eq(m->n_spans, 1);
        cr_expect_eq(m->spans[0]->spantype, SKYWALKING__V3__SPAN_TYPE__Local);
        cr_expect(!m->spans[0]->iserror);
        cr_assert_eq(m->spans[0]->n_refs, 1);
        ref = m->spans[0]->refs[0];
        cr_expect_eq(ref->reftype, SKYWALKING__V3__REF_TYPE__CrossThread);
        cr_expect_str_eq(ref->traceid, "trace");
        cr_expect_str_eq(ref->parenttracesegmentid, "seg");
        cr_expect_eq(ref->parentspanid, 0);
        cr_expect_str_eq(ref->parentservice, "svc");
        cr_expect_str_eq(ref->parentserviceinstance, "inst");
        cr_expect_str_eq(ref->parentendpoint, "/slow");
        skywalking__v3__segment_object__free_unpacked(m, NULL);

        /* Without a trace id, parent and child still make one trace. */
        report.trace_id = "";
        m = segment_round(&report);
        cr_expect_str_eq(m->traceid, "seg");
        skywalking__v3__segment_object__free_unpacked(m, NULL);
}

#define CALLER "1-dHJhY2UuMQ==-c2VnLjE=-3-Y2FsbGVy-Y2FsbGVyLTFAaG9zdA==-L2NhbGw=-MTAuMC4wLjE6ODA="

Test(codec, segment_of_a_call)
{
        SpanTag tags[] = {{(char *)"http.method", (char *)"GET"}, {(char *)"x", (char *)""}};
        SegmentReport report = {.service = "svc",
                .instance = "inst",
                .trace_id = "own",
                .segment_id = "seg",
                .operation = "/slow",
                .sw8 = CALLER,
                .tags = tags,
                .n_tags = 2};
        Skywalking__V3__SegmentObject *m = segment_round(&report);
        Skywalking__V3__SpanObject *span = m->spans[0];

        cr_expect_str_eq(m->traceid, "trace.1", "the caller's trace");
        cr_expect_eq(span->spantype, SKYWALKING__V3__SPAN_TYPE__Entry);
        cr_assert_eq(span->n_refs, 1);
        cr_expect_eq(span->refs[0]->reftype, SKYWALKING__V3__REF_TYPE__CrossProcess);
        cr_expect_str_eq(span->refs[0]->traceid, "trace.1");
        cr_expect_str_eq(span->refs[0]->parenttracesegmentid, "seg.1");
        cr_expect_eq(span->refs[0]->parentspanid, 3);
        cr_expect_str_eq(span->refs[0]->parentservice, "caller");
        cr_expect_str_eq(span->refs[0]->parentserviceinstance, "caller-1@host");
        cr_expect_str_eq(span->refs[0]->parentendpoint, "/call");
        cr_expect_str_eq(span->refs[0]->networkaddressusedatpeer, "10.0.0.1:80");
        cr_assert_eq(span->n_tags, 2);
        cr_expect_str_eq(span->tags[0]->key, "http.method");
        cr_expect_str_eq(span->tags[0]->value, "GET");
        cr_expect_str_eq(span->tags[1]->value, "");
        skywalking__v3__segment_object__free_unpacked(m, NULL);

        /* Without its parent it is worth as much. */
        report.sw8 = "no header";
        m = segment_round(&report);
        cr_expect_str_eq(m->traceid, "own");
        cr_expect_eq(m->spans[0]->n_refs, 0);
        skywalking__v3__segment_object__free_unpacked(m, NULL);
}

Test(codec, segment_end)
{
        const SegmentReport report = {.service = "svc",
                .instance = "inst",
                .trace_id = "trace",
                .segment_id = "seg",
                .operation = "/slow",
                .start_wall_ms = 1000,
                .end_wall_ms = 1500};
        Skywalking__V3__SegmentObject *m;
        void *before, *after;
        size_t size;

        cr_assert_eq(codec_segment(&report, &before, &size), 0);
        cr_assert_eq(codec_segment_end(before, size, 2500, &after, &size), 0);
        m = skywalking__v3__segment_object__unpack(NULL, size, after);
        cr_assert(m);
        cr_expect_str_eq(m->tracesegmentid, "seg");
        cr_expect_eq(m->spans[0]->starttime, 1000);
        cr_expect_eq(m->spans[0]->endtime, 2500);
        skywalking__v3__segment_object__free_unpacked(m, NULL);
        free(before);
        free(after);
        cr_expect_eq(codec_segment_end("\xff\xff", 2, 1, &after, &size), CODEC_E_MALFORMED);
}

Test(sw8, what_is_none)
{
        static const char *const bad[] = {"", "1", CALLER "-", "2" CALLER,
                "1--c2VnLjE=-3-Y2FsbGVy-YQ==-YQ==-YQ==", "1-YQ==--3-YQ==-YQ==-YQ==-YQ==",
                "1-YQ==-YQ==--YQ==-YQ==-YQ==-YQ==", "1-YQ==-YQ==-x-YQ==-YQ==-YQ==-YQ==",
                "1-YQ==-YQ==-99999999999-YQ==-YQ==-YQ==-YQ==", "1-YQ==-YQ==-1-Y!==-YQ==-YQ==-YQ==",
                "1-YQ==-YQ==-1-Y-YQ==-YQ==-YQ==", "1-AA==-YQ==-1-YQ==-YQ==-YQ==-YQ=="};
        Sw8 sw8;

        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
                cr_expect_eq(sw8_parse(&sw8, bad[i]), SW8_E_INVALID, "%s", bad[i]);
        cr_assert_eq(sw8_parse(&sw8, "0-YWI-YWJj-0----"), 0, "texts may be empty, and lack '='");
        cr_expect_str_eq(sw8.trace_id, "ab");
        cr_expect_str_eq(sw8.segment_id, "abc");
        cr_expect_str_eq(sw8.address, "");
        free(sw8.texts);
}

Test(codec, heartbeats)
{
        Skywalking__V3__InstanceProperties *m;
        void *data;
        size_t size;

        cr_assert_eq(codec_keep_alive("svc", "i", &data, &size), 0);
        cr_assert_eq(size, 8);
        cr_assert_arr_eq(data, "\x0a\x03svc\x12\x01i", 8);
        free(data);
        cr_assert_eq(codec_instance_properties("svc", "i",
                             (CodecProperty[]){{"a", "1"}, {"b", "2"}}, 2, &data, &size),
                0);
        m = skywalking__v3__instance_properties__unpack(NULL, size, data);
        cr_assert(m);
        cr_assert_eq(m->n_properties, 2);
        cr_expect_str_eq(m->properties[1]->key, "b");
        cr_expect_str_eq(m->properties[1]->value, "2");
        skywalking__v3__instance_properties__free_unpacked(m, NULL);
        free(data);
}

/* ---- commands ---- */

typedef struct Argument {
        const char *key, *value;
} Argument;

static const Argument good[] = {{"TaskId", "t1"}, {"EndpointName", "/slow"}, {"Duration", "5"},
        {"MinDurationThreshold", "100"}, {"DumpPeriod", "10"}, {"MaxSamplingCount", "9"},
        {"StartTime", "1666974131787"}, {"CreateTime", "1666974131788"}};

typedef struct Taken {
        unsigned n;
        TaskCommand last; /* strings not valid */
        bool named;       /* the strings of `good` */
} Taken;

static void take(void *userdata, const TaskCommand *command)
{
        Taken *t = userdata;

        t->n++;
        t->last = *command;
        t->named = strcmp(command->task_id, "t1") == 0 && strcmp(command->endpoint, "/slow") == 0;
}

/* A reply with n times that command. */
static Taken commands_with(
        const char *name, const Argument *arguments, size_t n_arguments, size_t n)
{
        Skywalking__V3__KeyStringValuePair pairs[128], *pair_list[128];
        Skywalking__V3__Command command = SKYWALKING__V3__COMMAND__INIT, **list;
        Skywalking__V3__Commands m = SKYWALKING__V3__COMMANDS__INIT;
        Taken taken = {0};
        size_t size;
        void *data;

        cr_assert_leq(n_arguments, ARRAY_SIZE(pairs));
        for (size_t i = 0; i < n_arguments; i++) {
                skywalking__v3__key_string_value_pair__init(&pairs[i]);
                pairs[i].key = (char *)arguments[i].key;
                pairs[i].value = (char *)arguments[i].value;
                pair_list[i] = &pairs[i];
        }
        command.command = (char *)name;
        command.n_args = n_arguments;
        command.args = pair_list;
        list = calloc(n + 1, sizeof(*list));
        for (size_t i = 0; i < n; i++)
                list[i] = &command;
        m.n_commands = n;
        m.commands = list;
        size = skywalking__v3__commands__get_packed_size(&m);
        data = malloc(size + 1);
        skywalking__v3__commands__pack(&m, data);
        cr_assert_eq(codec_commands(data, size, take, &taken), 0);
        free(data);
        free(list);
        return taken;
}

Test(codec, command)
{
        Taken taken = commands_with("ProfileTaskQuery", good, ARRAY_SIZE(good), 2);

        cr_assert_eq(taken.n, 2);
        cr_expect(taken.named);
        cr_expect_eq(taken.last.duration_min, 5);
        cr_expect_eq(taken.last.threshold_ms, 100);
        cr_expect_eq(taken.last.period_ms, 10);
        cr_expect_eq(taken.last.max_sampling_count, 9);
        cr_expect_eq(taken.last.start_wall_ms, 1666974131787);
        cr_expect_eq(taken.last.create_wall_ms, 1666974131788);
}

Test(codec, command_in_any_order_with_more)
{
        Argument arguments[ARRAY_SIZE(good) + 2] = {{"SerialNumber", "x"}, {"Later", ""}};

        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                arguments[2 + i] = good[ARRAY_SIZE(good) - 1 - i];
        cr_expect_eq(commands_with("ProfileTaskQuery", arguments, ARRAY_SIZE(arguments), 1).n, 1);
}

Test(codec, command_without_an_argument)
{
        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                Argument arguments[ARRAY_SIZE(good)];
                uint64_t bad = counter_get(COUNTER_COMMANDS_BAD);

                memcpy(arguments, good, sizeof(good));
                arguments[i].key = "Other";
                cr_expect_eq(
                        commands_with("ProfileTaskQuery", arguments, ARRAY_SIZE(good), 1).n, 0);
                cr_expect_eq(counter_get(COUNTER_COMMANDS_BAD), bad + 1);
        }
}

Test(codec, command_numbers)
{
        static const struct {
                const char *value;
                bool read;
                int64_t number;
        } cases[] = {{"0", true, 0}, {"-7", true, -7}, {"9223372036854775807", true, INT64_MAX},
                {"9223372036854775808", false, 0}, {"", false, 0}, {" 5", false, 0},
                {"+5", false, 0}, {"5 ", false, 0}, {"5m", false, 0}, {"0x5", false, 0},
                {"-", false, 0}, {"5.0", false, 0}};

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Argument arguments[ARRAY_SIZE(good)];
                Taken taken;

                memcpy(arguments, good, sizeof(good));
                arguments[2].value = cases[i].value;
                taken = commands_with("ProfileTaskQuery", arguments, ARRAY_SIZE(good), 1);
                cr_expect_eq(taken.n, cases[i].read, "\"%s\"", cases[i].value);
                if (cases[i].read)
                        cr_expect_eq(taken.last.duration_min, cases[i].number);
        }
}

Test(codec, command_for_others)
{
        uint64_t unknown = counter_get(COUNTER_COMMANDS_UNKNOWN);

        cr_expect_eq(commands_with("PprofTaskQuery", good, ARRAY_SIZE(good), 3).n, 0);
        cr_expect_eq(counter_get(COUNTER_COMMANDS_UNKNOWN), unknown + 3);
}

Test(codec, commands_are_bounded)
{
        Argument arguments[ARRAY_SIZE(good) + 64];
        size_t n = 0;

        cr_expect_eq(commands_with("ProfileTaskQuery", good, ARRAY_SIZE(good), 5000).n, 1024);
        while (n < 64)
                arguments[n++] = (Argument){"more", "of this"};
        memcpy(&arguments[n], good, sizeof(good));
        cr_expect_eq(commands_with("ProfileTaskQuery", arguments, ARRAY_SIZE(arguments), 1).n, 0);
}

Test(codec, commands_malformed)
{
        static char blown_up[4 * 1024 * 1024];
        Taken taken = {0};

        cr_expect_eq(codec_commands("", 0, take, &taken), 0);
        cr_expect_eq(codec_commands("\x0a\x7f", 2, take, &taken), CODEC_E_MALFORMED);
        /* Empty commands: two bytes each here, fifty and more in memory. */
        for (size_t i = 0; i < sizeof(blown_up); i += 2)
                blown_up[i] = 0x0a;
        cr_expect_eq(codec_commands(blown_up, sizeof(blown_up), take, &taken), CODEC_E_MALFORMED);
        cr_expect_eq(taken.n, 0);
}
