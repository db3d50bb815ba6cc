/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/call.h"
#include "ctl/check.h"
#include "ctl/ctl.h"
#include "ctl/dump.h"
#include "ctl/json.h"
#include "ctl/options.h"
#include "ctl/output.h"
#include "ctl/parse.h"
#include "ctl/progress.h"
#include "ctl/report.h"
#include "ctl/show.h"
#include "ctl/task.h"
#include "ctl/text.h"
#include "ctl/top.h"
#include "util/cleanup.h"
#include "version.h"

#define DEFAULT_SOCKET    "/run/swprofd/control.sock"
#define DEFAULT_TIMEOUT_S 5
/* Trials that fail take some seconds each. */
#define CHECK_TIMEOUT_S 30
/* The daemon waits for the names of the last stacks, and gives up by then. */
#define OBSERVE_TIMEOUT_S 25
#define RECORD_MS         10000
#define RECORD_PERIOD_US  10000
#define TOP_MS            1000

typedef Swprof__Control__Request Request;
typedef Swprof__Control__Reply Reply;
typedef Swprof__Control__Status Status;

typedef struct Verb {
        const char *name;
        const char *help;
        int (*run)(const Options *o, const struct Verb *verb);
        /* Of a view of the status: its text, and the field that its JSON shows (NULL: all). */
        void (*show)(const Status *s, FILE *f, bool colour);
        const char *field;
        unsigned n_arguments; /* it may have: a task or a segment, a process or a thread, words */
} Verb;

/* ---- asking the daemon ---- */

static int fail_denied(const Options *o)
{
        const struct group *group = NULL;
        struct stat st;

        if (stat(o->socket, &st) == 0)
                group = getgrgid(st.st_gid);
        if (group && group->gr_gid != 0)
                fprintf(stderr,
                        "swprofctl: not allowed to use %s: be root or join the group '%s'\n",
                        o->socket, group->gr_name);
        else
                fprintf(stderr, "swprofctl: not allowed to use %s: be root\n", o->socket);
        return CTL_EXIT_DENIED;
}

/* Says what went wrong with daemon_call. Return: an exit status. */
static int fail_call(const Options *o, int r)
{
        switch (r) {
        case CALL_E_NOT_RUNNING:
                fprintf(stderr,
                        "swprofd is not running (no answer on %s); try: systemctl start swprofd\n",
                        o->socket);
                return CTL_EXIT_NOT_RUNNING;
        case CALL_E_DENIED:
                return fail_denied(o);
        case CALL_E_TIMEOUT:
                fprintf(stderr, "swprofctl: no answer on %s within %u s\n", o->socket,
                        o->timeout_s);
                return CTL_EXIT_FAILED;
        case CALL_E_BROKEN:
                fprintf(stderr, "swprofctl: no proper answer on %s\n", o->socket);
                return CTL_EXIT_FAILED;
        default:
                fprintf(stderr, "swprofctl: %s: %s\n", o->socket, strerror(-r));
                return CTL_EXIT_FAILED;
        }
}

/* A reply of the wanted kind, or why there is none. Return: an exit status. */
static int check_reply(const Options *o, const Reply *reply, int result_case)
{
        _cleanup_(freep) char *error = text_escape(reply->error);

        if (reply->refused) {
                fprintf(stderr, "swprofd: %s\n", error);
                return fail_denied(o);
        }
        if (error[0]) {
                fprintf(stderr, "swprofd: %s\n", error);
                return CTL_EXIT_FAILED;
        }
        if ((int)reply->result_case != result_case)
                return fail_call(o, CALL_E_BROKEN);
        return CTL_EXIT_OK;
}

/* The same for a request. `more_s`: that it may take longer. Return: an exit status. */
int ctl_ask(const Options *o, Request *request, unsigned more_s, int result_case, Reply **ret)
{
        int r;

        request->protocol = 1;
        r = daemon_call(o->socket, o->timeout_s + more_s, request, ret);
        return r ? fail_call(o, r) : check_reply(o, *ret, result_case);
}

/* Return: as daemon_call. */
static int ask_status(const Options *o, Reply **ret_reply)
{
        Swprof__Control__Empty empty = SWPROF__CONTROL__EMPTY__INIT;
        Request request = SWPROF__CONTROL__REQUEST__INIT;

        request.protocol = 1;
        request.verb_case = SWPROF__CONTROL__REQUEST__VERB_STATUS;
        request.status = &empty;
        return daemon_call(o->socket, o->timeout_s, &request, ret_reply);
}

/* ---- verbs ---- */

static char *view_json(const Status *s, const char *field)
{
        struct json_object *object;

        if (!field)
                return json_take_text(json_from_message(&s->base));
        object = json_new();
        json_add(object, "version", json_from_field(&s->base, "version"));
        json_add(object, field, json_from_field(&s->base, field));
        return json_take_text(object);
}

static char *view_text(const Status *s, const Verb *verb)
{
        char *text = NULL;
        size_t size;
        FILE *f = check_memory(open_memstream(&text, &size));

        verb->show(s, f, output_wants_colour());
        fclose(f);
        return check_memory(text);
}

static int run_view(const Options *o, const Verb *verb)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        int r;

        r = ask_status(o, &reply);
        if (r)
                return fail_call(o, r);
        r = check_reply(o, reply, SWPROF__CONTROL__REPLY__RESULT_STATUS);
        if (r)
                return r;
        return output_take(
                o->json ? view_json(reply->status, verb->field) : view_text(reply->status, verb));
}

static int run_reload(const Options *o, const Verb *verb)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        Swprof__Control__Empty empty = SWPROF__CONTROL__EMPTY__INIT;
        Request request = SWPROF__CONTROL__REQUEST__INIT;
        struct json_object *object;
        int r;

        request.verb_case = SWPROF__CONTROL__REQUEST__VERB_RELOAD;
        request.reload = &empty;
        r = ctl_ask(o, &request, 0, SWPROF__CONTROL__REPLY__RESULT_DONE, &reply);
        if (r)
                return r;
        if (!o->json)
                return output_take(text_format("swprofd has reloaded its configuration\n"));
        object = json_new();
        json_add(object, "version", json_string(SWPROFD_VERSION));
        json_add(object, "done", json_new());
        return output_take(json_take_text(object));
}

/* A daemon that does not run is an answer here, not a failure. Ours is told in any case. */
static int run_version(const Options *o, const Verb *verb)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        _cleanup_(freep) char *daemon = NULL;
        struct json_object *object;
        int status = CTL_EXIT_OK, r;

        r = ask_status(o, &reply);
        if (r && r != CALL_E_NOT_RUNNING)
                status = fail_call(o, r);
        else if (!r)
                status = check_reply(o, reply, SWPROF__CONTROL__REPLY__RESULT_STATUS);
        if (reply && !status)
                daemon = text_escape(reply->status->version);
        if (o->json) {
                object = json_new();
                json_add(object, "version", json_string(SWPROFD_VERSION));
                json_add(object, "daemon", daemon ? json_string(daemon) : NULL);
                r = output_take(json_take_text(object));
        } else {
                r = output_take(text_format("swprofctl %s\nswprofd %s\n", SWPROFD_VERSION,
                        daemon
                                ?: status ? "(unknown)"
                                          : "(not running)"));
        }
        return r ?: status;
}

static int run_check(const Options *o, const Verb *verb)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        const Status *status = NULL;
        struct json_object *facts, *report;
        const char *problem;
        bool works;
        char *text = NULL;
        size_t size;
        FILE *f;
        int r;

        facts = check_run(
                o->timeout_s > CHECK_TIMEOUT_S ? o->timeout_s : CHECK_TIMEOUT_S, &problem);
        if (!facts) {
                fprintf(stderr, "swprofctl: swprofd --check-host: %s\n", problem);
                return CTL_EXIT_FAILED;
        }
        /* One that does not answer is an answer here, too. */
        r = ask_status(o, &reply);
        if (r == 0 && reply->result_case == SWPROF__CONTROL__REPLY__RESULT_STATUS)
                status = reply->status;
        report = check_report(facts, status);
        works = check_works(report);
        if (o->json) {
                r = output_take(json_take_text(report));
        } else {
                f = check_memory(open_memstream(&text, &size));
                check_show(report, f);
                fclose(f);
                free(json_take_text(report));
                r = output_take(check_memory(text));
        }
        return r ?: works ? CTL_EXIT_OK : CTL_EXIT_FAILED;
}

static int run_segments(const Options *o, const Verb *verb)
{
        return report_segments(&o->report, o->json);
}

static int run_report(const Options *o, const Verb *verb)
{
        return report_tree(&o->report, o->json);
}

static int run_export(const Options *o, const Verb *verb)
{
        return report_export(&o->report);
}

static int fail_usage(const char *what, const char *which);

static int run_task(const Options *o, const Verb *verb)
{
        return task_run(o);
}

/* ---- stacks of processes without spans ---- */

/* Return: an exit status. */
static int observe(const Options *o, Swprof__Control__Observe *observe, Reply **ret)
{
        Request request = SWPROF__CONTROL__REQUEST__INIT;

        request.verb_case = SWPROF__CONTROL__REQUEST__VERB_OBSERVE;
        request.observe = observe;
        /* A first look at large programs takes seconds. */
        return ctl_ask(o, &request, observe->duration_ms / 1000 + OBSERVE_TIMEOUT_S,
                SWPROF__CONTROL__REPLY__RESULT_PROFILE, ret);
}

/* Has the daemon look at the process, or thread, that the argument names. Return: an exit status. */
static int observe_process(const Options *o, uint32_t duration_ms, uint32_t period_us, Reply **ret)
{
        Swprof__Control__Observe request = SWPROF__CONTROL__OBSERVE__INIT;

        if (!o->report.selection || !dump_parse(o->report.selection, &request.pid, &request.tid))
                return fail_usage("the number of a process or thread is needed, not",
                        o->report.selection ?: "nothing");
        request.duration_ms = duration_ms;
        request.period_us = period_us;
        return observe(o, &request, ret);
}

static int run_dump(const Options *o, const Verb *verb)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        char *text;
        int r;

        r = observe_process(o, 0, 0, &reply);
        if (r)
                return r;
        text = dump_show(reply->profile.data, reply->profile.len, o->json, output_wants_colour());
        return text ? output_take(text) : fail_call(o, CALL_E_BROKEN);
}

static int run_record(const Options *o, const Verb *verb)
{
        _cleanup_(reply_freep) Reply *reply = NULL;
        ReportOptions report = o->report;
        int r;

        progress_begin(o->duration_ms ?: RECORD_MS);
        r = observe_process(o, o->duration_ms ?: RECORD_MS, RECORD_PERIOD_US, &reply);
        progress_end();
        if (r)
                return r;
        if (o->report.output)
                return report_save(reply->profile.data, reply->profile.len, o->report.output);
        report.recorded = reply->profile.data;
        report.n_recorded = reply->profile.len;
        report.selection = NULL;
        return report_tree(&report, o->json);
}

/* The samples of an interval, and the slots at its end. Return: an exit status. */
static int top_once(const Options *o, bool redraw)
{
        _cleanup_(reply_freep) Reply *recorded = NULL, *status = NULL;
        _cleanup_(profile_freep) Profile *profile = NULL;
        Swprof__Control__Observe request = SWPROF__CONTROL__OBSERVE__INIT;
        TopView view = {.columns = output_width(), .colour = output_wants_colour()};
        char *text;
        int r;

        request.duration_ms = o->interval_ms;
        request.period_us = RECORD_PERIOD_US;
        r = observe(o, &request, &recorded);
        if (r)
                return r;
        r = ask_status(o, &status);
        if (r)
                return fail_call(o, r);
        r = check_reply(o, status, SWPROF__CONTROL__REPLY__RESULT_STATUS);
        if (r)
                return r;
        r = profile_read(&profile, recorded->profile.data, recorded->profile.len);
        if (r)
                return fail_call(o, CALL_E_BROKEN);
        if (redraw)
                view.rows = output_height();
        text = o->json ? top_json(status->status, profile)
                       : top_text(status->status, profile, &view);
        return output_take(redraw ? top_redraw(text) : text);
}

static int run_top(const Options *o, const Verb *verb)
{
        bool redraw = output_width() > 0 && !o->json;
        unsigned count = o->iterations ?: redraw ? UINT_MAX : 1;
        int r = CTL_EXIT_OK;

        for (unsigned i = 0; (i < count || count == UINT_MAX) && r == CTL_EXIT_OK; i++) {
                if (i > 0 && !redraw && !o->json)
                        r = output_take(text_format("\n"));
                if (r == CTL_EXIT_OK)
                        r = top_once(o, redraw);
        }
        return r;
}

static int run_help(const Options *o, const Verb *verb);

static const Verb verbs[] = {
        {"status", "what the daemon does (the default)", run_view, show_status, NULL},
        {"stats", "all that it counts", run_view, show_stats, "counters"},
        {"instances", "service instances whose programs are connected", run_view, show_instances,
                "instances"},
        {"tasks", "profile tasks", run_view, show_tasks, "tasks"},
        {"slots", "segments that are watched or sampled now", run_view, show_slots, "slots"},
        {"task", "start ENDPOINT, list, stop TASK: tasks of the local backend", run_task, NULL,
                NULL, 2},
        {"segments", "segments that were profiled", run_segments, NULL, NULL, 1},
        {"report", "the call tree of a task or a segment", run_report, NULL, NULL, 1},
        {"export", "the same as a page or for other programs", run_export, NULL, NULL, 1},
        {"dump", "the stacks of a process' threads, or of one thread, now", run_dump, NULL, NULL,
                1},
        {"record", "profile a process for a while, without spans", run_record, NULL, NULL, 1},
        {"top", "what the profiled segments do now, again and again", run_top, NULL, NULL},
        {"check", "what this host allows, and how to mend it", run_check, NULL, NULL},
        {"version", "versions of swprofctl and of the running daemon", run_version, NULL, NULL},
        {"reload", "make the daemon read its configuration anew", run_reload, NULL, NULL},
        {"help", "this text", run_help, NULL, NULL},
};

#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static int run_help(const Options *o, const Verb *verb)
{
        char *text = NULL;
        size_t size;
        FILE *f = check_memory(open_memstream(&text, &size));

        fputs("Usage: swprofctl [OPTION]... [VERB [ARGUMENT]]\n"
              "Ask swprofd, the profiler of SkyWalking's trace profiling, what it does.\n\n"
              "Verbs:\n",
                f);
        for (size_t i = 0; i < N_VERBS; i++)
                fprintf(f, "  %-16s %s\n", verbs[i].name, verbs[i].help);
        fprintf(f,
                "\nOptions:\n"
                "  -s, --socket=PATH   control socket ($SWPROFD_CONTROL, or\n"
                "                      %s)\n"
                "  -j, --json          answer in JSON, which scripts can rely on\n"
                "  -t, --timeout=S     wait that many seconds at most (%d)\n"
                "  -i, --input=FILE    of segments, report, export: read this file\n"
                "      --min=PERCENT   of report: hide frames with less (0.5; 0 in JSON)\n"
                "      --depth=N       of report: hide deeper frames\n"
                "  -f, --format=NAME   of export: html, folded, speedscope or pprof\n"
                "  -o, --output=FILE   of export, record: write there\n"
                "  -d, --duration=TIME of record: 500ms, 10s, 5m (10s); of task start: minutes,\n"
                "                      1m to 15m (5m)\n"
                "  -S, --service=NAME  of task start: whose requests\n"
                "      --threshold=TIME  that take longer (200ms)\n"
                "      --period=TIME   between samples, from 10ms on (10ms)\n"
                "      --count=N       that many of them, 1 to 9 (5)\n"
                "  -w, --wait          until it is over\n"
                "      --interval=TIME of top: look that long each time (1s)\n"
                "  -n, --iterations=N  of top: so often\n"
                "  -h, --help          this text\n"
                "      --version       as the verb\n"
                "\nExit status: 0 done, 1 failed, 2 wrong usage, 3 swprofd is not running,\n"
                "5 not allowed.\n",
                DEFAULT_SOCKET, DEFAULT_TIMEOUT_S);
        fclose(f);
        return output_take(check_memory(text));
}

/* ---- command line ---- */

static const Verb *verb_find(const char *name)
{
        for (size_t i = 0; i < N_VERBS; i++)
                if (strcmp(verbs[i].name, name) == 0)
                        return &verbs[i];
        return NULL;
}

static int fail_usage(const char *what, const char *which)
{
        fprintf(stderr, "swprofctl: %s '%s'; try: swprofctl --help\n", what, which);
        return CTL_EXIT_USAGE;
}

int ctl_main(int argc, char **argv)
{
        enum { OPTION_VERSION = 256, OPTION_MIN, OPTION_DEPTH, OPTION_INTERVAL };
        static const struct option options[] = {
                {"socket", required_argument, NULL, 's'},
                {"json", no_argument, NULL, 'j'},
                {"timeout", required_argument, NULL, 't'},
                {"input", required_argument, NULL, 'i'},
                {"duration", required_argument, NULL, 'd'},
                {"interval", required_argument, NULL, OPTION_INTERVAL},
                {"iterations", required_argument, NULL, 'n'},
                {"min", required_argument, NULL, OPTION_MIN},
                {"depth", required_argument, NULL, OPTION_DEPTH},
                {"format", required_argument, NULL, 'f'},
                {"output", required_argument, NULL, 'o'},
                {"help", no_argument, NULL, 'h'},
                {"version", no_argument, NULL, OPTION_VERSION},
                TASK_LONG_OPTIONS,
                {0},
        };
        const char *environment = getenv("SWPROFD_CONTROL");
        Options o = {
                .socket = environment && *environment ? environment : DEFAULT_SOCKET,
                .timeout_s = DEFAULT_TIMEOUT_S,
                .report = {.min_percent = -1, .options = &o},
                .task = TASK_DEFAULTS,
                .interval_ms = TOP_MS,
        };
        const Verb *verb = NULL;
        int c;

        while ((c = getopt_long(argc, argv, "s:jt:i:f:o:d:n:S:wh", options, NULL)) >= 0)
                switch (c) {
                case 's':
                        o.socket = optarg;
                        break;
                case 'j':
                        o.json = true;
                        break;
                case 't':
                        if (!parse_timeout(optarg, &o.timeout_s))
                                return fail_usage("the timeout is 1 to 3600 seconds, not", optarg);
                        break;
                case 'i':
                        o.report.input = optarg;
                        break;
                case 'f':
                        o.report.format = optarg;
                        break;
                case 'o':
                        o.report.output = optarg;
                        break;
                case 'd':
                        if (!parse_duration(optarg, &o.duration_ms))
                                return fail_usage(
                                        "a duration is up to an hour, as 500ms, 10s or 5m, not",
                                        optarg);
                        break;
                case OPTION_INTERVAL:
                        if (!parse_duration(optarg, &o.interval_ms))
                                return fail_usage(
                                        "an interval is up to an hour, as 500ms or 2s, not",
                                        optarg);
                        break;
                case 'n':
                        if (!parse_depth(optarg, &o.iterations))
                                return fail_usage("so often is a number, not", optarg);
                        break;
                case OPTION_MIN:
                        if (!parse_percent(optarg, &o.report.min_percent))
                                return fail_usage(
                                        "the least share is 0 to 100 percent, not", optarg);
                        break;
                case OPTION_DEPTH:
                        if (!parse_depth(optarg, &o.report.depth))
                                return fail_usage("the depth is a number of frames, not", optarg);
                        break;
                case 'h':
                        verb = verb_find("help");
                        break;
                case OPTION_VERSION:
                        verb = verb_find("version");
                        break;
                case TASK_OPTIONS:
                        if (!task_option(&o.task, c, optarg))
                                return CTL_EXIT_USAGE;
                        break;
                default:
                        /* getopt has said what is wrong. */
                        fputs("try: swprofctl --help\n", stderr);
                        return CTL_EXIT_USAGE;
                }
        if (!verb) {
                verb = verb_find(optind < argc ? argv[optind] : "status");
                if (!verb)
                        return fail_usage("there is no verb", argv[optind]);
                for (unsigned i = 0; optind + 1 < argc && i < verb->n_arguments; i++)
                        o.arguments[i] = argv[++optind];
                o.report.selection = o.arguments[0];
                if (optind + 1 < argc)
                        return fail_usage(verb->n_arguments ? "one argument only, not also"
                                                            : "one verb only, not also",
                                argv[optind + 1]);
        }
        return verb->run(&o, verb);
}
