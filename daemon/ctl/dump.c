/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/dump.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/json.h"
#include "ctl/text.h"
#include "report/profile.h"
#include "util/cleanup.h"
#include "version.h"

static const char *const states[PROFILE_N_STATES] = {
        [SWPROF__PROFILE__STATE__RUNNING] = "running",
        [SWPROF__PROFILE__STATE__RUNNABLE] = "waits for a CPU",
        [SWPROF__PROFILE__STATE__BLOCKED] = "blocked",
};

/* NULL: its stack could not be had. */
static const ProfileSample *sample_of(const ProfileSegment *s)
{
        return s->n_samples > 0 ? &s->samples[0] : NULL;
}

/* Innermost first; the place above all stacks ends it. */
#define for_each_place(i, p, sample) \
        for (uint32_t i = (sample) ? (sample)->place : 0; i != 0; i = (p)->places[i].parent)

static const char *signature_at(const Profile *p, uint32_t place)
{
        return p->frames[p->places[place].frame].signature;
}

static void segment_show(const Profile *p, const ProfileSegment *s, FILE *f, bool colour)
{
        const ProfileSample *sample = sample_of(s);
        _cleanup_(freep) char *name = text_escape(s->thread);

        fprintf(f, "%sthread %" PRId32 " %s%s: %s\n", colour ? "\033[1m" : "", s->message->tid,
                name, colour ? "\033[0m" : "",
                sample ? states[sample->state] : "stack not to be had");
        for_each_place(place, p, sample)
        {
                _cleanup_(freep) char *signature = text_escape(signature_at(p, place));

                fprintf(f, "    %s\n", signature);
        }
}

static char *dump_text(const Profile *p, bool colour)
{
        char *text = NULL;
        size_t n;
        FILE *f = check_memory(open_memstream(&text, &n));

        for (size_t i = 0; i < p->n_segments; i++) {
                if (i > 0)
                        fputc('\n', f);
                segment_show(p, &p->segments[i], f, colour);
        }
        fclose(f);
        return check_memory(text);
}

static char *dump_json(const Profile *p)
{
        struct json_object *object = json_new(), *threads = json_list();

        json_add(object, "version", json_string(SWPROFD_VERSION));
        for (size_t i = 0; i < p->n_segments; i++) {
                const ProfileSegment *s = &p->segments[i];
                const ProfileSample *sample = sample_of(s);
                struct json_object *thread = json_new(), *stack = json_list();

                for_each_place(place, p, sample)
                        json_append(stack, json_string(signature_at(p, place)));
                json_add(thread, "pid", json_number(s->message->pid));
                json_add(thread, "tid", json_number(s->message->tid));
                json_add(thread, "name", json_string(s->thread));
                json_add(thread, "state", sample ? json_string(states[sample->state]) : NULL);
                json_add(thread, "stack", stack);
                json_append(threads, thread);
        }
        json_add(object, "threads", threads);
        return json_take_text(object);
}

/* The process that has that thread; the id itself where it cannot be told. */
static int32_t process_of(int32_t tid)
{
        char path[64], line[256];
        int32_t pid = tid;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%" PRId32 "/status", tid);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof(line), f))
                if (sscanf(line, "Tgid: %" SCNd32, &pid) == 1)
                        break;
        if (f)
                fclose(f);
        return pid;
}

bool dump_parse(const char *number, int32_t *ret_pid, int32_t *ret_tid)
{
        char *end;
        long id = strtol(number, &end, 10);

        if (*number < '0' || *number > '9' || *end || id <= 0 || id > INT32_MAX)
                return false;
        *ret_pid = process_of((int32_t)id);
        *ret_tid = *ret_pid == id ? 0 : (int32_t)id;
        return true;
}

char *dump_show(const void *profile, size_t size, bool json, bool colour)
{
        _cleanup_(profile_freep) Profile *p = NULL;
        int r = profile_read(&p, profile, size);

        check_memory(r < 0 ? NULL : &r);
        if (r)
                return NULL;
        return json ? dump_json(p) : dump_text(p, colour);
}
