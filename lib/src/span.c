/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"
#include "text.h"

/* What is in a struct swprof_span. */
typedef struct Span {
        uint64_t id;                       /* of its record; 0: it has none */
        uint64_t start_mono_ns;            /* 0: nothing was watched then */
        bool on_none;                      /* it is on no thread now */
        char segment[SWPROF_NAME_MAX + 1]; /* empty: was not needed yet */
} __attribute__((__may_alias__)) Span;

_Static_assert(sizeof(Span) <= sizeof(struct swprof_span), "has room");
_Static_assert(_Alignof(Span) <= _Alignof(struct swprof_span), "is aligned");

static Span *span_private(struct swprof_span *span)
{
        return (Span *)span->priv;
}

static int32_t own_tid(void)
{
        return (int32_t)syscall(SYS_gettid);
}

static bool operation_fits(const char *operation)
{
        size_t size = operation ? strnlen(operation, SWPROF_OPERATION_MAX + 1) : 0;

        return size >= 1 && size <= SWPROF_OPERATION_MAX;
}

/* Return: 0, -EINVAL: the segment id cannot be; the span has none then. */
static int span_init(Span *s, const char *segment_id)
{
        s->id = 0;
        s->start_mono_ns = 0;
        s->on_none = false;
        s->segment[0] = '\0';
        if (!segment_id)
                return 0;
        if (!text_fits(segment_id, SWPROF_NAME_MAX))
                return -EINVAL;
        strcpy(s->segment, segment_id);
        return 0;
}

static void span_need_segment(Span *s)
{
        uint64_t random[2];
        int error = errno;

        if (s->segment[0])
                return;
        /* Before the kernel has gathered randomness it would wait. */
        if (getrandom(random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
                random[0] = clock_mono_ns();
                random[1] = (uint64_t)getpid() << 32 | (uint32_t)own_tid();
        }
        snprintf(s->segment, sizeof(s->segment), "%016llx%016llx", (unsigned long long)random[0],
                (unsigned long long)random[1]);
        errno = error;
}

/*
 * Makes the record of a span that is watched, as far as it looks. Return: 1 the daemon was told, 0.
 */
static int span_announce(struct swprof *c, Span *s, const char *parent, const char *operation)
{
        ClientGuard guard;
        Record *record = NULL;
        bool told = false;

        span_need_segment(s);
        client_lock(c, &guard);
        if (parent ? record_table_find_segment(&c->records, parent) != NULL
                   : client_watches(c, operation))
                record = record_table_add(&c->records);
        if (record) {
                record->start_mono_ns = s->start_mono_ns;
                record->tid = s->on_none ? 0 : own_tid();
                strcpy(record->segment, s->segment);
                strcpy(record->parent, parent ? parent : "");
                strcpy(record->operation, operation ? operation : "");
                s->id = record->id;
                told = client_announce(c, record);
                /* Not for want of a daemon: it is not told later either. */
                if (!told && c->list) {
                        record_table_remove(&c->records, record);
                        s->id = 0;
                }
        }
        client_unlock(c, &guard);
        return told;
}

int swprof_watched(struct swprof *c, const char *operation)
{
        ClientGuard guard;
        bool watched;

        if (operation && !operation_fits(operation))
                return -EINVAL;
        if (!c || !client_look(c))
                return 0;
        if (!operation)
                return 1;
        if (!client_may_watch(c, operation))
                return 0;
        client_lock(c, &guard);
        watched = client_watches(c, operation);
        client_unlock(c, &guard);
        return watched;
}

int swprof_span_start(
        struct swprof *c, struct swprof_span *span, const char *segment_id, const char *operation)
{
        Span *s;

        if (!span)
                return -EINVAL;
        s = span_private(span);
        if (span_init(s, segment_id) < 0 || !operation_fits(operation))
                return -EINVAL;
        if (!c || !client_look(c))
                return 0;
        s->start_mono_ns = clock_mono_ns();
        if (!client_may_watch(c, operation))
                return 0;
        return span_announce(c, s, NULL, operation);
}

int swprof_span_continue(struct swprof *c, struct swprof_span *span, const char *parent_segment_id,
        const char *segment_id, const char *operation)
{
        Span *s;

        if (!span)
                return -EINVAL;
        s = span_private(span);
        if (span_init(s, segment_id) < 0 || !parent_segment_id ||
                !text_fits(parent_segment_id, SWPROF_NAME_MAX) ||
                (operation && !text_fits(operation, SWPROF_OPERATION_MAX)))
                return -EINVAL;
        if (!c || !client_look(c))
                return 0;
        s->start_mono_ns = clock_mono_ns();
        return span_announce(c, s, parent_segment_id, operation);
}

/* Of a span that has a record. Return: 1 the daemon was told, 0, -EINVAL. */
static int record_rename(struct swprof *c, Record *record, const char *operation)
{
        WireEvent event = {.segment = record->segment, .operation = operation};
        bool watched = client_watches(c, operation), told = false;

        /* One that is in the list was looked at when the list came. */
        if (!watched && !text_is_valid(operation, strlen(operation)))
                return -EINVAL;
        strcpy(record->operation, operation);
        if (record->told)
                told = client_send(c, WIRE_RENAME, &event);
        /* If the daemon has let it go meanwhile, the name alone does not bring it back. */
        if (!record->told || (watched && record->let_go))
                told = client_announce(c, record);
        record->let_go = record->told && !watched;
        return told;
}

int swprof_span_rename(struct swprof *c, struct swprof_span *span, const char *operation)
{
        ClientGuard guard;
        Record *record;
        bool watching;
        Span *s;
        int r = 0;

        if (!span || !operation_fits(operation))
                return -EINVAL;
        if (!c)
                return 0;
        s = span_private(span);
        watching = client_look(c);
        if (s->id != 0) {
                client_lock(c, &guard);
                record = record_table_find(&c->records, s->id);
                if (record)
                        r = record_rename(c, record, operation);
                client_unlock(c, &guard);
                return r;
        }
        if (!watching || !client_may_watch(c, operation))
                return 0;
        if (s->start_mono_ns == 0)
                s->start_mono_ns = clock_mono_ns();
        return span_announce(c, s, NULL, operation);
}

int swprof_span_switch(struct swprof *c, struct swprof_span *span, int on_this_thread)
{
        ClientGuard guard;
        Record *record;
        bool told = false;
        Span *s;

        if (!span)
                return -EINVAL;
        s = span_private(span);
        s->on_none = !on_this_thread;
        if (!c || s->id == 0)
                return 0;
        client_look(c);
        client_lock(c, &guard);
        record = record_table_find(&c->records, s->id);
        if (record) {
                record->tid = on_this_thread ? own_tid() : 0;
                if (record->told)
                        told = client_send(c, WIRE_SWITCH,
                                &(WireEvent){
                                        .segment = record->segment,
                                        .tid = record->tid,
                                        .mono_ns = clock_mono_ns(),
                                });
        }
        client_unlock(c, &guard);
        return told;
}

/* Sends what is of no use later. */
static int span_tell(struct swprof *c, Span *s, WireEventType type, WireEvent *event)
{
        ClientGuard guard;
        Record *record;
        bool told = false;

        if (!c || s->id == 0)
                return 0;
        client_lock(c, &guard);
        record = record_table_find(&c->records, s->id);
        if (record && record->told) {
                event->segment = record->segment;
                told = client_send(c, type, event);
        }
        client_unlock(c, &guard);
        return told;
}

int swprof_span_parent(struct swprof *c, struct swprof_span *span, const char *sw8)
{
        if (!span || !sw8 || !sw8[0] || !text_fits(sw8, SWPROF_SW8_MAX))
                return -EINVAL;
        return span_tell(c, span_private(span), WIRE_PARENT, &(WireEvent){.sw8 = sw8});
}

int swprof_span_tag(struct swprof *c, struct swprof_span *span, const char *key, const char *value)
{
        if (!span || !key || !value || !text_fits(key, SWPROF_NAME_MAX) ||
                (value[0] && !text_fits(value, SWPROF_OPERATION_MAX)))
                return -EINVAL;
        return span_tell(c, span_private(span), WIRE_TAG, &(WireEvent){.key = key, .value = value});
}

int swprof_span_stop(struct swprof *c, struct swprof_span *span, int error)
{
        ClientGuard guard;
        Record *record;
        bool told = false;
        Span *s;

        if (!span)
                return -EINVAL;
        s = span_private(span);
        if (!c || s->id == 0)
                return 0;
        client_lock(c, &guard);
        record = record_table_find(&c->records, s->id);
        if (record) {
                WireEvent event = {
                        .segment = s->segment,
                        .mono_ns = clock_mono_ns(),
                        .error = error != 0,
                };

                told = record->told;
                record_table_remove(&c->records, record);
                if (told)
                        told = client_send(c, WIRE_STOP, &event);
        }
        client_unlock(c, &guard);
        s->id = 0;
        return told;
}

const char *swprof_span_segment_id(struct swprof_span *span)
{
        if (!span)
                return NULL;
        span_need_segment(span_private(span));
        return span_private(span)->segment;
}
