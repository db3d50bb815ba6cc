/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/top.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/json.h"
#include "ctl/text.h"
#include "report/analysis.h"
#include "util/cleanup.h"
#include "version.h"

#define BOLD  "\033[1m"
#define RESET "\033[0m"

enum {
        FUNCTIONS_MAX = 20, /* shown; fewer where the terminal is smaller */
        SLOTS_MAX = 20,
        NARROW = 50, /* columns: below that there are fewer numbers */
};

typedef Swprof__Control__Status Status;
typedef Swprof__Control__Slot Slot;

/* ---- functions ---- */

typedef struct Function {
        char *name; /* without the line, of all frames that are equal then */
        int kind;
        uint64_t self_us, total_us;
} Function;

typedef struct Top {
        const Status *status;
        const Profile *profile;
        Analysis *analysis;
        Function *functions; /* the busiest first */
        size_t n_functions;
} Top;

/* "file.c.function:12" and "file.py.function: 12" are the same function at all lines. */
static char *function_name(const char *signature)
{
        size_t n = strlen(signature), end = n;

        while (end > 0 && signature[end - 1] >= '0' && signature[end - 1] <= '9')
                end--;
        if (end < n && end > 0 && signature[end - 1] == ' ')
                end--;
        if (end == n || end == 0 || signature[end - 1] != ':')
                return check_memory(strdup(signature));
        return check_memory(strndup(signature, end - 1));
}

typedef struct Named {
        char *name;
        uint32_t frame;
} Named;

static int compare_named(const void *a, const void *b)
{
        return strcmp(((const Named *)a)->name, ((const Named *)b)->name);
}

/* Return: the function of each frame, malloc'ed. */
static uint32_t *find_functions(Top *t)
{
        const Profile *p = t->profile;
        uint32_t *of_frame = check_memory(calloc(p->n_frames + 1, sizeof(*of_frame)));
        Named *named = check_memory(calloc(p->n_frames + 1, sizeof(*named)));

        t->functions = check_memory(calloc(p->n_frames + 1, sizeof(*t->functions)));
        for (uint32_t i = 0; i < p->n_frames; i++)
                named[i] = (Named){function_name(p->frames[i].signature), i};
        qsort(named, p->n_frames, sizeof(*named), compare_named);
        for (size_t i = 0; i < p->n_frames; i++) {
                Function *last = &t->functions[t->n_functions] - 1;

                if (t->n_functions == 0 || strcmp(last->name, named[i].name) != 0)
                        t->functions[t->n_functions++] = (Function){
                                .name = named[i].name,
                                .kind = p->frames[named[i].frame].kind,
                        };
                else
                        free(named[i].name);
                of_frame[named[i].frame] = (uint32_t)t->n_functions - 1;
        }
        free(named);
        return of_frame;
}

/* Whether a caller is the same function: its time is counted there already. */
static bool is_recursive(const Profile *p, const uint32_t *of_frame, uint32_t place)
{
        uint32_t function = of_frame[p->places[place].frame];

        while ((place = p->places[place].parent) != 0)
                if (of_frame[p->places[place].frame] == function)
                        return true;
        return false;
}

static int compare_functions(const void *a, const void *b)
{
        const Function *x = a, *y = b;

        if (x->self_us != y->self_us)
                return x->self_us < y->self_us ? 1 : -1;
        if (x->total_us != y->total_us)
                return x->total_us < y->total_us ? 1 : -1;
        return strcmp(x->name, y->name);
}

static void top_init(Top *t, const Status *s, const Profile *p)
{
        _cleanup_(freep) uint32_t *of_frame = NULL;
        _cleanup_(freep) uint64_t *total_us = check_memory(calloc(p->n_places, sizeof(*total_us)));

        *t = (Top){.status = s, .profile = p};
        if (analysis_new(&t->analysis, p, NULL) < 0)
                check_memory(NULL);
        of_frame = find_functions(t);
        for (uint32_t i = (uint32_t)p->n_places; i-- > 1;) {
                uint64_t own_us = analysis_own_us(&t->analysis->places[i]);
                Function *f = &t->functions[of_frame[p->places[i].frame]];

                total_us[i] += own_us;
                total_us[p->places[i].parent] += total_us[i];
                f->self_us += own_us;
                if (!is_recursive(p, of_frame, i))
                        f->total_us += total_us[i];
        }
        qsort(t->functions, t->n_functions, sizeof(*t->functions), compare_functions);
}

static void top_deinit(Top *t)
{
        for (size_t i = 0; i < t->n_functions; i++)
                free(t->functions[i].name);
        free(t->functions);
        analysis_free(t->analysis);
}

/* ---- slots ---- */

/* The newest sample of the slot's thread; NULL: there is none. */
static const ProfileSample *newest(const Profile *p, const Slot *slot)
{
        const ProfileSample *found = NULL;
        int64_t found_wall_us = 0;

        for (size_t i = 0; i < p->n_segments; i++) {
                const ProfileSegment *s = &p->segments[i];
                const ProfileSample *last = s->samples + s->n_samples - 1;
                int64_t wall_us;

                if (s->message->pid != slot->pid || s->message->tid != slot->tid ||
                        s->n_samples == 0)
                        continue;
                wall_us = s->message->start_wall_ms * 1000 + last->time_us;
                if (!found || wall_us >= found_wall_us) {
                        found = last;
                        found_wall_us = wall_us;
                }
        }
        return found;
}

/* The innermost function, and what it waits for; NULL: not known. Malloc'ed. */
static char *doing(const Profile *p, const ProfileSample *sample)
{
        const ProfileFrame *wait = NULL, *f;
        uint32_t place = sample ? sample->place : 0;

        if (place == 0)
                return NULL;
        f = &p->frames[p->places[place].frame];
        if (f->kind == SWPROF__PROFILE__KIND__WAITING && p->places[place].parent != 0) {
                wait = f;
                f = &p->frames[p->places[p->places[place].parent].frame];
        }
        return wait ? text_format("%s %s", f->signature, wait->signature)
                    : check_memory(strdup(f->signature));
}

static const char *endpoint_of(const Status *s, const Slot *slot)
{
        for (size_t i = 0; i < s->n_tasks; i++)
                if (strcmp(s->tasks[i]->id, slot->task) == 0)
                        return s->tasks[i]->endpoint;
        return "";
}

static int compare_slots(const void *a, const void *b)
{
        const Slot *x = *(const Slot *const *)a, *y = *(const Slot *const *)b;

        if (x->age_ms != y->age_ms)
                return x->age_ms < y->age_ms ? 1 : -1;
        return strcmp(x->segment, y->segment);
}

/* The oldest first; malloc'ed. */
static const Slot **sorted_slots(const Status *s)
{
        const Slot **slots = check_memory(calloc(s->n_slots + 1, sizeof(Slot *)));

        for (size_t i = 0; i < s->n_slots; i++)
                slots[i] = s->slots[i];
        qsort(slots, s->n_slots, sizeof(Slot *), compare_slots);
        return slots;
}

/* ---- text ---- */

static double percent(uint64_t part, uint64_t whole)
{
        return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

/* A line, cut to the terminal's width; frees the text. */
static void line_take(FILE *f, const TopView *view, const char *before, char *text)
{
        _cleanup_(freep) char *escaped = text_escape(text);
        _cleanup_(freep) char *shown = text_fit(escaped, view->columns);

        free(text);
        fprintf(f, "%s%s%s\n", view->colour ? before : "", shown,
                view->colour && before[0] ? RESET : "");
}

static bool is_narrow(const TopView *view)
{
        return view->columns > 0 && view->columns < NARROW;
}

/* Folders of a file go first where there is not that much room. */
static const char *without_folders(const char *name, const TopView *view, size_t used)
{
        const char *slash = memrchr(name, '/', strcspn(name, " (<"));
        bool fits = view->columns == 0 || text_width(name) + used <= view->columns;

        return !fits && slash && slash[1] ? slash + 1 : name;
}

static char *slot_line(const Top *t, const TopView *view, const Slot *x)
{
        const char *endpoint = endpoint_of(t->status, x);
        _cleanup_(freep) char *age = text_duration(x->age_ms);
        _cleanup_(freep) char *now = doing(t->profile, newest(t->profile, x));

        if (is_narrow(view))
                return text_format(
                        "%7" PRId32 " %s", x->tid, now ? without_folders(now, view, 8) : endpoint);
        return text_format("%7" PRId32 " %12s %4.0f%%  %s%s%s", x->tid, age,
                percent(x->on_cpu_ns, x->on_cpu_ns + x->run_queue_ns + x->blocked_ns), endpoint,
                now ? "  " : "", now ? without_folders(now, view, 30 + text_width(endpoint)) : "");
}

static void print_slots(const Top *t, FILE *f, const TopView *view, size_t n)
{
        const Status *s = t->status;
        _cleanup_(freep) const Slot **slots = sorted_slots(s);

        line_take(f, view, BOLD,
                is_narrow(view) ? text_format("%7s NOW", "TID")
                                : text_format("%7s %12s %5s  ENDPOINT, NOW", "TID", "AGE", "CPU"));
        for (size_t i = 0; i < n; i++)
                line_take(f, view, "", slot_line(t, view, slots[i]));
        if (s->n_slots > n)
                line_take(f, view, "", text_format("%zu more", s->n_slots - n));
}

static void print_functions(const Top *t, FILE *f, const TopView *view, size_t n)
{
        bool narrow = is_narrow(view);

        line_take(f, view, BOLD,
                narrow ? text_format("%6s FUNCTION", "SELF")
                       : text_format("%6s %6s  FUNCTION", "SELF", "TOTAL"));
        for (size_t i = 0; i < n; i++) {
                const Function *x = &t->functions[i];
                const char *name = without_folders(x->name, view, narrow ? 7 : 15);
                double self = percent(x->self_us, t->analysis->sampled_us);

                line_take(f, view, "",
                        narrow ? text_format("%5.1f%% %s", self, name)
                               : text_format("%5.1f%% %5.1f%%  %s", self,
                                         percent(x->total_us, t->analysis->sampled_us), name));
        }
}

static size_t min_size(size_t a, size_t b)
{
        return a < b ? a : b;
}

char *top_text(const Status *s, const Profile *p, const TopView *view)
{
        size_t n_slots = min_size(s->n_slots, SLOTS_MAX), n_functions, size;
        char *text = NULL;
        FILE *f = check_memory(open_memstream(&text, &size));
        Top t;

        top_init(&t, s, p);
        n_functions = min_size(t.n_functions, FUNCTIONS_MAX);
        if (view->rows > 0) {
                /* The heading, two of the lists, an empty line before each, and where the cursor is. */
                size_t room = view->rows > 8 ? view->rows - 6 : 2;

                n_slots = min_size(n_slots, room / 2);
                n_functions = min_size(
                        n_functions, room - n_slots - (s->n_slots > n_slots && room > n_slots + 1));
        }
        line_take(f, view, BOLD,
                text_format("%zu slot%s, %" PRIu64 " sample%s, %.0f%% on CPU, %.0f%% blocked",
                        s->n_slots, s->n_slots == 1 ? "" : "s", t.analysis->n_samples,
                        t.analysis->n_samples == 1 ? "" : "s",
                        percent(t.analysis->sampled_state_us[SWPROF__PROFILE__STATE__RUNNING],
                                t.analysis->sampled_us),
                        percent(t.analysis->sampled_state_us[SWPROF__PROFILE__STATE__BLOCKED],
                                t.analysis->sampled_us)));
        if (s->n_slots > 0) {
                fputc('\n', f);
                print_slots(&t, f, view, n_slots);
        }
        if (t.n_functions > 0) {
                fputc('\n', f);
                print_functions(&t, f, view, n_functions);
        }
        top_deinit(&t);
        fclose(f);
        return check_memory(text);
}

/* Line by line, so that nothing flickers; what is left of the former text goes in the end. */
char *top_redraw(char *text)
{
        char *redrawn = NULL;
        size_t size;
        FILE *f = check_memory(open_memstream(&redrawn, &size));

        fputs("\033[H", f);
        for (const char *p = text; *p; p++)
                fputs(*p == '\n' ? "\033[K\n" : (char[]){*p, '\0'}, f);
        fputs("\033[J", f);
        fclose(f);
        free(text);
        return check_memory(redrawn);
}

/* ---- JSON ---- */

static struct json_object *slot_json(const Top *t, const Slot *slot)
{
        struct json_object *object = json_from_message(&slot->base);
        const ProfileSample *sample = newest(t->profile, slot);
        struct json_object *stack = json_list();

        json_add(object, "endpoint", json_string(endpoint_of(t->status, slot)));
        for (uint32_t i = sample ? sample->place : 0; i != 0; i = t->profile->places[i].parent)
                json_append(stack,
                        json_string(t->profile->frames[t->profile->places[i].frame].signature));
        json_add(object, "stack", stack);
        return object;
}

char *top_json(const Status *s, const Profile *p)
{
        struct json_object *object = json_new(), *slots = json_list(), *functions = json_list();
        Top t;

        top_init(&t, s, p);
        for (size_t i = 0; i < s->n_slots; i++)
                json_append(slots, slot_json(&t, s->slots[i]));
        for (size_t i = 0; i < t.n_functions; i++) {
                struct json_object *f = json_new();

                json_add(f, "function", json_string(t.functions[i].name));
                json_add(f, "kind", json_string(profile_kind_name(t.functions[i].kind)));
                json_add(f, "self_us", json_number((int64_t)t.functions[i].self_us));
                json_add(f, "total_us", json_number((int64_t)t.functions[i].total_us));
                json_append(functions, f);
        }
        json_add(object, "version", json_string(SWPROFD_VERSION));
        json_add(object, "samples", json_number((int64_t)t.analysis->n_samples));
        json_add(object, "sampled_us", json_number((int64_t)t.analysis->sampled_us));
        json_add(object, "slots", slots);
        json_add(object, "functions", functions);
        top_deinit(&t);
        return json_take_text(object);
}
