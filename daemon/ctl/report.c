/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/report.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/call.h"
#include "ctl/ctl.h"
#include "ctl/json.h"
#include "ctl/options.h"
#include "ctl/output.h"
#include "ctl/table.h"
#include "ctl/text.h"
#include "ctl/tree.h"
#include "report/export.h"
#include "util/cleanup.h"
#include "version.h"

/* For people; in JSON all is there. */
#define DEFAULT_MIN_PERCENT 0.5

/* ---- where a profile comes from ---- */

typedef struct Bytes {
        uint8_t *p;
        size_t n;
} Bytes;

static void bytes_free(Bytes *b)
{
        free(b->p);
}

/* What the local backend keeps. `bare`: of all tasks, if none is chosen, and without samples. Return:
 * an exit status. */
static int fetch(const ReportOptions *o, bool bare, Bytes *ret)
{
        _cleanup_(reply_freep) Swprof__Control__Reply *reply = NULL;
        Swprof__Control__Results results = SWPROF__CONTROL__RESULTS__INIT;
        Swprof__Control__Request request = SWPROF__CONTROL__REQUEST__INIT;
        int r;

        results.selection = (char *)(o->selection ?: "");
        results.all = results.bare = bare;
        request.verb_case = SWPROF__CONTROL__REQUEST__VERB_RESULTS;
        request.results = &results;
        r = ctl_ask(o->options, &request, CTL_RESULTS_S, SWPROF__CONTROL__REPLY__RESULT_PROFILE,
                &reply);
        if (r)
                return r;
        ret->p = TAKE_PTR(reply->profile.data);
        ret->n = reply->profile.len;
        reply->profile.len = 0;
        return CTL_EXIT_OK;
}

static int fail_input(const char *path, const char *what)
{
        fprintf(stderr, "swprofctl: %s: %s\n", path, what);
        return CTL_EXIT_FAILED;
}

/* Also of a pipe, whose size is not known. */
static int load(const char *path, Bytes *ret)
{
        _cleanup_(fclosep) FILE *f = NULL;
        _cleanup_(bytes_free) Bytes b = {0};
        size_t room = 0, n;

        f = fopen(path, "re");
        if (!f)
                return fail_input(path, strerror(errno));
        do {
                room = room ? room * 2 : 1 << 16;
                if (room > 2UL * PROFILE_BYTES_MAX)
                        return fail_input(path, "too large for a profile");
                b.p = check_memory(realloc(b.p, room));
                n = fread(b.p + b.n, 1, room - b.n, f);
                b.n += n;
        } while (b.n == room);
        if (ferror(f))
                return fail_input(path, strerror(errno));
        *ret = b;
        b.p = NULL;
        return CTL_EXIT_OK;
}

int report_save(const void *profile, size_t n, const char *path)
{
        FILE *f = fopen(path, "we");
        bool good;

        if (!f)
                return fail_input(path, strerror(errno));
        good = fwrite(profile, 1, n, f) == n;
        good = fclose(f) == 0 && good;
        return good ? CTL_EXIT_OK : fail_input(path, "cannot be written");
}

/* *ret_analysis is of the chosen segments, of which there is one at least. */
static int open_analysis(
        const ReportOptions *o, bool bare, Profile **ret_profile, Analysis **ret_analysis)
{
        _cleanup_(bytes_free) Bytes bytes = {0};
        _cleanup_(profile_freep) Profile *p = NULL;
        _cleanup_(analysis_freep) Analysis *a = NULL;
        const char *name = o->input ?: "swprofd's answer";
        int r;

        if (o->recorded) {
                r = profile_read(&p, o->recorded, o->n_recorded);
        } else {
                r = o->input ? load(o->input, &bytes) : fetch(o, bare, &bytes);
                if (r)
                        return r;
                r = profile_read(&p, bytes.p, bytes.n);
        }
        if (r == PROFILE_E_MALFORMED)
                return fail_input(name, "this is no profile, or a damaged one");
        if (r == PROFILE_E_FORMAT)
                return fail_input(name, "a profile of another format than ours");
        check_memory(r < 0 ? NULL : p);
        check_memory(analysis_new(&a, p, o->selection) < 0 ? NULL : a);
        if (a->n_segments == 0 && o->selection) {
                _cleanup_(freep) char *escaped = text_escape(o->selection);

                fprintf(stderr, "swprofctl: there is no task or segment '%s'\n", escaped);
                return CTL_EXIT_FAILED;
        }
        *ret_analysis = TAKE_PTR(a);
        *ret_profile = TAKE_PTR(p);
        return CTL_EXIT_OK;
}

/* ---- segments ---- */

static uint64_t lost_samples(const ProfileSegment *s)
{
        uint64_t n = 0;

        for (size_t i = 0; i < s->message->n_losses; i++)
                n += s->message->losses[i]->samples;
        return n;
}

/* Where they are left out, their number is told. */
static uint64_t n_samples(const ProfileSegment *s)
{
        return s->n_samples > 0 ? s->n_samples : s->message->samples;
}

static struct json_object *json_count(uint64_t v)
{
        return check_memory(json_object_new_uint64(v));
}

static struct json_object *segment_json(const Profile *p, const ProfileSegment *s)
{
        const Swprof__Profile__Segment *m = s->message;
        struct json_object *object = json_new(), *losses = json_new();

        json_add(object, "task", json_string(s->task->id));
        json_add(object, "segment", json_string(m->segment));
        json_add(object, "service", json_string(s->service));
        json_add(object, "instance", json_string(s->instance));
        json_add(object, "endpoint", json_string(s->endpoint));
        json_add(object, "pid", json_number(m->pid));
        json_add(object, "tid", json_number(m->tid));
        json_add(object, "thread", json_string(s->thread));
        json_add(object, "start_wall_ms", json_number(m->start_wall_ms));
        json_add(object, "duration_ns", json_count(m->duration_ns));
        json_add(object, "on_cpu_ns", json_count(m->on_cpu_ns));
        json_add(object, "run_queue_ns", json_count(m->run_queue_ns));
        json_add(object, "blocked_ns", json_count(m->blocked_ns));
        json_add(object, "period_us", json_count(m->period_us));
        json_add(object, "samples", json_count(n_samples(s)));
        json_add(object, "duplicate_samples", json_count(s->n_duplicates));
        for (size_t i = 0; i < m->n_losses; i++)
                if (json_object_object_add(losses, p->message->strings[m->losses[i]->cause],
                            json_count(m->losses[i]->samples)) != 0)
                        check_memory(NULL);
        json_add(object, "losses", losses);
        return object;
}

static struct json_object *segments_json(const Analysis *a)
{
        struct json_object *list = json_list();

        for (size_t i = 0; i < a->n_segments; i++)
                json_append(list, segment_json(a->profile, a->segments[i]));
        return list;
}

static char *ns_text(uint64_t ns)
{
        return tree_duration((int64_t)(ns / 1000000 * 1000));
}

static char *segments_text(const Analysis *a)
{
        static const Column columns[] = {
                {"SEGMENT", false},
                {"ENDPOINT", false},
                {"INSTANCE", false},
                {"THREAD", false},
                {"START", false},
                {"DURATION", true},
                {"ON CPU", true},
                {"RUN QUEUE", true},
                {"BLOCKED", true},
                {"SAMPLES", true},
                {"LOST", true},
        };
        _cleanup_(table_freep) Table *t = TABLE(columns);
        char *text = NULL;
        size_t size;
        FILE *f = check_memory(open_memstream(&text, &size));

        for (size_t i = 0; i < a->n_segments; i++) {
                const ProfileSegment *s = a->segments[i];
                const Swprof__Profile__Segment *m = s->message;
                bool known = m->on_cpu_ns || m->run_queue_ns || m->blocked_ns;

                table_add(t, "%s", m->segment);
                table_add(t, "%s", s->endpoint);
                table_add(t, "%s", s->instance);
                if (s->thread[0])
                        table_add(t, "%s (%d)", s->thread, (int)m->tid);
                else
                        table_add(t, "%d", (int)m->tid);
                table_take(t, text_time(m->start_wall_ms));
                table_take(t, ns_text(m->duration_ns));
                table_take(t, known ? ns_text(m->on_cpu_ns) : text_format("-"));
                table_take(t, known ? ns_text(m->run_queue_ns) : text_format("-"));
                table_take(t, known ? ns_text(m->blocked_ns) : text_format("-"));
                table_add(t, "%" PRIu64, n_samples(s));
                table_add(t, "%" PRIu64, lost_samples(s));
        }
        table_print(t, f, output_wants_colour());
        fclose(f);
        return check_memory(text);
}

int report_segments(const ReportOptions *o, bool json)
{
        _cleanup_(profile_freep) Profile *p = NULL;
        _cleanup_(analysis_freep) Analysis *a = NULL;
        struct json_object *object;
        int r;

        r = open_analysis(o, true, &p, &a);
        if (r)
                return r;
        if (!json)
                return output_take(segments_text(a));
        object = json_new();
        json_add(object, "version", json_string(SWPROFD_VERSION));
        json_add(object, "segments", segments_json(a));
        return output_take(json_take_text(object));
}

/* ---- report ---- */

static void print_summary(const Analysis *a, FILE *f)
{
        _cleanup_(freep) char *time = tree_duration((int64_t)a->sampled_us);
        uint64_t lost = 0;

        for (size_t i = 0; i < a->n_segments; i++)
                lost += lost_samples(a->segments[i]);
        if (a->n_segments == 1) {
                _cleanup_(freep) char *endpoint = text_escape(a->segments[0]->endpoint);
                _cleanup_(freep) char *service = text_escape(a->segments[0]->service);

                fprintf(f, "%s of %s: ", endpoint, service);
        } else {
                fprintf(f, "%zu segments: ", a->n_segments);
        }
        fprintf(f, "%s in %" PRIu64 " samples", time, a->n_samples);
        if (a->sampled_us > 0) {
                double percent = 100.0 / (double)a->sampled_us;

                fprintf(f, ", %.0f%% on CPU, %.0f%% in the run queue, %.0f%% blocked",
                        (double)a->sampled_state_us[0] * percent,
                        (double)a->sampled_state_us[1] * percent,
                        (double)a->sampled_state_us[2] * percent);
        }
        if (lost > 0)
                fprintf(f, "; %" PRIu64 " samples lost", lost);
        fputc('\n', f);
}

static char *report_text(const Analysis *a, const TreeView *view)
{
        char *text = NULL;
        size_t size;
        FILE *f = check_memory(open_memstream(&text, &size));

        print_summary(a, f);
        tree_print(a, view, f);
        fclose(f);
        return check_memory(text);
}

static struct json_object *report_json(const Analysis *a, const TreeView *view)
{
        struct json_object *object = json_new();

        json_add(object, "version", json_string(SWPROFD_VERSION));
        json_add(object, "tool", json_string(a->profile->message->tool));
        json_add(object, "host", json_string(a->profile->message->host));
        json_add(object, "segments", segments_json(a));
        json_add(object, "samples", json_count(a->n_samples));
        json_add(object, "sampled_us", json_count(a->sampled_us));
        json_add(object, "sampled_running_us", json_count(a->sampled_state_us[0]));
        json_add(object, "sampled_runnable_us", json_count(a->sampled_state_us[1]));
        json_add(object, "sampled_blocked_us", json_count(a->sampled_state_us[2]));
        json_add(object, "elements", tree_json(a, view));
        return object;
}

int report_tree(const ReportOptions *o, bool json)
{
        _cleanup_(profile_freep) Profile *p = NULL;
        _cleanup_(analysis_freep) Analysis *a = NULL;
        TreeView view = {
                .min_percent = o->min_percent >= 0 ? o->min_percent
                               : json              ? 0
                                                   : DEFAULT_MIN_PERCENT,
                .depth = o->depth,
                .width = output_width(),
                .colour = output_wants_colour(),
        };
        int r;

        r = open_analysis(o, false, &p, &a);
        if (r)
                return r;
        return output_take(json ? json_take_text(report_json(a, &view)) : report_text(a, &view));
}

/* ---- export ---- */

static const struct {
        const char *name;
        int (*write)(const Analysis *a, FILE *f);
} formats[] = {
        {"html", export_html},
        {"folded", export_folded},
        {"speedscope", export_speedscope},
        {"pprof", export_pprof},
};

/* What cannot be written whole is removed, if it is a file and not, say, a device. */
static int write_file(const Analysis *a, int (*write)(const Analysis *a, FILE *f), const char *path)
{
        FILE *f = path ? fopen(path, "we") : stdout;
        bool good, is_file;
        struct stat st;
        int error;

        if (!f)
                return fail_input(path, strerror(errno));
        is_file = path && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
        check_memory(write(a, f) < 0 ? NULL : f);
        good = !ferror(f) && fflush(f) == 0;
        error = errno;
        if (path && fclose(f) != 0 && good) {
                error = errno;
                good = false;
        }
        if (good)
                return CTL_EXIT_OK;
        if (is_file)
                unlink(path);
        fprintf(stderr, "swprofctl: cannot write: %s\n", strerror(error));
        return CTL_EXIT_FAILED;
}

int report_export(const ReportOptions *o)
{
        _cleanup_(profile_freep) Profile *p = NULL;
        _cleanup_(analysis_freep) Analysis *a = NULL;
        int r;

        for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
                if (!o->format || strcmp(formats[i].name, o->format) != 0)
                        continue;
                if (!o->output && strcmp(o->format, "pprof") == 0 && isatty(STDOUT_FILENO)) {
                        fputs("swprofctl: pprof's format is not for a terminal: use --output\n",
                                stderr);
                        return CTL_EXIT_USAGE;
                }
                r = open_analysis(o, false, &p, &a);
                return r ?: write_file(a, formats[i].write, o->output);
        }
        fprintf(stderr, "swprofctl: export needs --format: html, folded, speedscope or pprof\n");
        return CTL_EXIT_USAGE;
}
