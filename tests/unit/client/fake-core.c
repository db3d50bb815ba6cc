/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fake-core.h"

char fake_log[16384];
int fake_result;
Instance *fake_instance;
SpanStartEvent fake_start;
uint64_t fake_time;
unsigned fake_n_segments;

static unsigned watch_n;
static const char **watch;

__attribute__((format(printf, 1, 2))) static void record(const char *format, ...)
{
        size_t n = strlen(fake_log);
        va_list ap;

        va_start(ap, format);
        vsnprintf(fake_log + n, sizeof(fake_log) - n, format, ap);
        va_end(ap);
}

const char *fake_take(void)
{
        static char taken[sizeof(fake_log)];

        memcpy(taken, fake_log, sizeof(taken));
        fake_log[0] = '\0';
        return taken;
}

void fake_watch(unsigned n, const char **operations)
{
        watch_n = n;
        watch = operations;
        if (fake_instance) {
                fake_instance->n_watch = n;
                fake_instance->watch = operations;
        }
}

int core_instance_attach(
        Core *c, Instance **ret, const char *service, const char *instance, bool agent, Now now)
{
        Instance *i = calloc(1, sizeof(*i));

        i->service = strdup(service);
        i->name = strdup(instance);
        i->n_watch = watch_n;
        i->watch = watch;
        fake_instance = i;
        record("attach %s %s %d\n", service, instance, agent);
        *ret = i;
        return 0;
}

void core_instance_detach(Core *c, Instance *i, Now now)
{
        record("detach %s\n", i->name);
        if (fake_instance == i)
                fake_instance = NULL;
        free(i->service);
        free(i->name);
        free(i);
}

static void record_start(const SpanStartEvent *e)
{
        fake_start = *e;
        record("%s '%s' '%s'\n", e->segment_id, e->operation, e->trace_id);
}

int core_span_start(Core *c, Instance *i, uint64_t client, const SpanStartEvent *event, Now now)
{
        record("start ");
        record_start(event);
        return fake_result;
}

int core_span_continue(
        Core *c, uint64_t client, const char *parent_id, const SpanStartEvent *event, Now now)
{
        record("continue %s ", parent_id);
        record_start(event);
        return fake_result;
}

int core_span_rename(
        Core *c, uint64_t client, const char *segment_id, const char *operation, Now now)
{
        record("rename %s '%s'\n", segment_id, operation);
        return fake_result;
}

int core_span_stop(Core *c, uint64_t client, const char *segment_id, uint64_t stop_mono_ns,
        bool error, Now now)
{
        fake_time = stop_mono_ns;
        record("stop %s %d\n", segment_id, error);
        return fake_result;
}

int core_span_switch(Core *c, uint64_t client, const char *segment_id, pid_t tid, Stack *stack,
        uint64_t at_mono_ns, Now now)
{
        fake_time = at_mono_ns;
        record("switch %s %s", segment_id, tid ? "thread" : "none");
        for (size_t n = 0; stack && n < stack->n_signatures; n++)
                record(" %s", stack->signatures[n]);
        record("\n");
        return fake_result;
}

void core_client_gone(Core *c, uint64_t client, Now now)
{
        record("gone\n");
}

unsigned core_client_segments(Core *c, uint64_t client)
{
        return fake_n_segments;
}
