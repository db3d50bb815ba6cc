/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/show.h"
#include "ctl/table.h"
#include "ctl/text.h"

typedef Swprof__Control__Status Status;

/* A line "label  text" of the status; strings of others within are escaped. */
__attribute__((format(printf, 3, 4))) static void show_line(
        FILE *f, const char *label, const char *format, ...)
{
        _cleanup_(freep) char *text = NULL, *escaped = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        check_memory(n < 0 ? NULL : text);
        escaped = text_escape(text);
        fprintf(f, "  %-10s %s\n", label, escaped);
}

static void show_oap(const Swprof__Control__Oap *o, FILE *f)
{
        _cleanup_(freep) char *ago = text_duration(o->last_success_ms_ago);

        if (o->server[0] == '\0') {
                show_line(f, "OAP", "none configured");
                return;
        }
        show_line(f, "OAP", "%s, %s, %" PRIu64 " snapshots waiting", o->server, o->state,
                o->buffered_snapshots);
        if (o->error[0])
                show_line(f, "", "last failure: %s", o->error);
        else if (o->last_success_ms_ago > 0)
                show_line(f, "", "last success %s ago", ago);
}

static void show_store(const char *name, const Swprof__Control__Store *s, FILE *f)
{
        if (strcmp(s->state, "memory") == 0)
                show_line(f, name, "in memory only, nothing outlives a restart");
        else
                show_line(f, name, "%s, %s, %" PRIu64 " KiB, %" PRIu64 " snapshots waiting",
                        s->path, s->state, s->bytes / 1024, s->snapshots);
        if (s->error[0])
                show_line(f, "", "last failure: %s", s->error);
}

void show_status(const Status *s, FILE *f, bool colour)
{
        _cleanup_(freep) char *uptime = text_duration(s->uptime_ms);
        _cleanup_(freep) char *version = text_escape(s->version);

        fprintf(f, "%sswprofd %s%s, pid %" PRId32 ", up %s\n", colour ? "\033[1m" : "", version,
                colour ? "\033[0m" : "", s->pid, uptime);
        show_line(f, "config", "%s", s->config_file[0] ? s->config_file : "built-in defaults");
        show_line(f, "socket", "%s", s->span_socket);
        if (s->capture) {
                size_t n = strlen(s->capture->backend);
                /* What was tried first is named there. */
                bool named = strncmp(s->capture->reason, s->capture->backend, n) == 0 &&
                             s->capture->reason[n] == ':';

                show_line(f, "capture", "%s%s%s", named ? "" : s->capture->backend,
                        named || !s->capture->reason[0] ? "" : ": ", s->capture->reason);
                show_line(f, "", "unwinds by %s, samples %" PRIu32 " thread%s now",
                        s->capture->unwind, s->capture->targets,
                        s->capture->targets == 1 ? "" : "s");
        }
        if (s->oap)
                show_oap(s->oap, f);
        if (s->store)
                show_store("store", s->store, f);
        if (s->local)
                show_store("local", s->local, f);
        show_line(f, "instances", "%zu", s->n_instances);
        show_line(f, "tasks", "%zu", s->n_tasks);
        show_line(f, "slots", "%zu", s->n_slots);
        if (s->n_tasks) {
                fputc('\n', f);
                show_tasks(s, f, colour);
        }
}

void show_stats(const Status *s, FILE *f, bool colour)
{
        static const Column columns[] = {{"COUNTER"}, {"VALUE", true}, {"MEANING"}};
        _cleanup_(table_freep) Table *t = TABLE(columns);

        for (size_t i = 0; i < s->n_counters; i++) {
                table_add(t, "%s", s->counters[i]->name);
                table_add(t, "%" PRIu64, s->counters[i]->value);
                table_add(t, "%s", s->counters[i]->help);
        }
        table_print(t, f, colour);
}

static char *pids_text(const Swprof__Control__Instance *i)
{
        char *text = NULL;
        size_t size;
        FILE *f = check_memory(open_memstream(&text, &size));

        for (size_t n = 0; n < i->n_pids; n++)
                fprintf(f, "%s%" PRId32, n ? "," : "", i->pids[n]);
        fclose(f);
        return check_memory(text);
}

void show_instances(const Status *s, FILE *f, bool colour)
{
        static const Column columns[] = {
                {"SERVICE"},
                {"INSTANCE"},
                {"LANGUAGE"},
                {"AGENT"},
                {"CLIENTS", true},
                {"LIVE", true},
                {"PIDS"},
        };
        _cleanup_(table_freep) Table *t = TABLE(columns);

        for (size_t i = 0; i < s->n_instances; i++) {
                const Swprof__Control__Instance *x = s->instances[i];

                table_add(t, "%s", x->service);
                table_add(t, "%s", x->instance);
                table_add(t, "%s", x->language);
                table_add(t, "%s", x->agent ? "yes" : "no");
                table_add(t, "%" PRIu32, x->clients);
                table_add(t, "%" PRIu32, x->live_segments);
                table_take(t, pids_text(x));
        }
        table_print(t, f, colour);
}

void show_tasks(const Status *s, FILE *f, bool colour)
{
        static const Column columns[] = {
                {"TASK"},
                {"SERVICE"},
                {"INSTANCE"},
                {"ENDPOINT"},
                {"STATE"},
                {"START"},
                {"REMAINING", true},
                {"THRESHOLD", true},
                {"PERIOD", true},
                {"DELIVERED", true},
                {"SLOTS", true},
                {"PENDING", true},
                {"MATCHED", true},
        };
        _cleanup_(table_freep) Table *t = TABLE(columns);

        for (size_t i = 0; i < s->n_tasks; i++) {
                const Swprof__Control__Task *x = s->tasks[i];

                table_add(t, "%s", x->id);
                table_add(t, "%s", x->service);
                table_add(t, "%s", x->instance);
                table_add(t, "%s", x->endpoint);
                table_add(t, "%s", x->state);
                table_take(t, text_time(x->start_wall_ms));
                table_take(t, text_duration(x->remaining_ms > 0 ? (uint64_t)x->remaining_ms : 0));
                table_add(t, "%" PRIu32 " ms", x->threshold_ms);
                table_add(t, "%" PRIu32 " ms", x->period_ms);
                table_add(t, "%" PRIu32 "/%" PRIu32, x->delivered_segments, x->max_sampling_count);
                table_add(t, "%" PRIu32, x->slots_used);
                table_add(t, "%" PRIu32, x->pending_segments);
                table_add(t, "%" PRIu64, x->matched_segments);
        }
        table_print(t, f, colour);
}

void show_slots(const Status *s, FILE *f, bool colour)
{
        static const Column columns[] = {
                {"TASK"},
                {"SEGMENT"},
                {"PID", true},
                {"TID", true},
                {"STATE"},
                {"AGE", true},
                {"CAPTURED", true},
                {"SENT", true},
                {"ON CPU", true},
                {"RUN QUEUE", true},
                {"BLOCKED", true},
        };
        _cleanup_(table_freep) Table *t = TABLE(columns);

        for (size_t i = 0; i < s->n_slots; i++) {
                const Swprof__Control__Slot *x = s->slots[i];

                table_add(t, "%s", x->task);
                table_add(t, "%s", x->segment);
                table_add(t, "%" PRId32, x->pid);
                table_add(t, "%" PRId32, x->tid);
                table_add(t, "%s", x->state);
                table_take(t, text_duration(x->age_ms));
                table_add(t, "%" PRIu64, x->captured);
                table_add(t, "%" PRIu64, x->sent);
                table_add(t, "%.1f ms", (double)x->on_cpu_ns / 1e6);
                table_add(t, "%.1f ms", (double)x->run_queue_ns / 1e6);
                table_add(t, "%.1f ms", (double)x->blocked_ns / 1e6);
        }
        table_print(t, f, colour);
}
