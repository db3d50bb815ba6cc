/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/tree.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/json.h"
#include "ctl/text.h"
#include "util/cleanup.h"

#define BOLD   "\033[1m"
#define DIM    "\033[2m"
#define RED    "\033[31m"
#define YELLOW "\033[33m"
#define RESET  "\033[0m"

enum {
        NAME_MIN = 24, /* columns for the frame; there are fewer numbers, rather */
        N_NUMBERS = 5,
};

static const struct {
        const char *heading;
        int width;
} numbers[N_NUMBERS] = {{"DURATION", 9}, {"SELF", 9}, {"COUNT", 8}, {"ON CPU", 6}, {"BLOCKED", 7}};

/* ---- what is shown ---- */

static double share(int64_t part, int64_t whole)
{
        return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

static bool is_visible(const Analysis *a, const TreeView *view, uint32_t place)
{
        const AnalysisPlace *p = &a->places[place], *all = &a->places[0];

        return (view->depth == 0 || a->profile->places[place].depth <= view->depth) &&
               (share(p->duration_us, all->duration_us) >= view->min_percent ||
                       share((int64_t)p->count, (int64_t)all->count) >= view->min_percent);
}

/* `place` or the first visible one of its next siblings; 0: none. */
static uint32_t visible(const Analysis *a, const TreeView *view, uint32_t place)
{
        while (place && !is_visible(a, view, place))
                place = a->places[place].next;
        return place;
}

/* ---- text ---- */

char *tree_duration(int64_t us)
{
        if (us > -1000000 && us < 1000000)
                return us % 1000 == 0 ? text_format("%" PRId64 " ms", us / 1000)
                                      : text_format("%.1f ms", (double)us / 1e3);
        return text_format(us < 100000000 ? "%.2f s" : "%.0f s", (double)us / 1e6);
}

typedef struct Printer {
        const Analysis *a;
        const TreeView *view;
        FILE *f;
        int n_numbers;
        unsigned name_width; /* 0: any */
        /* guides[0 .. lengths[d]) stands before the children of the frame at depth d */
        char guides[2 * PROFILE_DEPTH_MAX + 2];
        uint32_t lengths[PROFILE_DEPTH_MAX + 1];
        bool branches[PROFILE_DEPTH_MAX + 1]; /* whether more than one of these children is shown */
} Printer;

static void choose_columns(Printer *p)
{
        unsigned used = 0;

        p->n_numbers = N_NUMBERS;
        if (p->view->width == 0)
                return;
        for (int i = 0; i < N_NUMBERS; i++)
                used += (unsigned)numbers[i].width + 1;
        while (p->n_numbers > 1 && used + NAME_MIN > p->view->width)
                used -= (unsigned)numbers[--p->n_numbers].width + 1;
        p->name_width = p->view->width > used + 4 ? p->view->width - used : 4;
}

static void print_numbers(const Printer *p, const AnalysisPlace *place)
{
        double self = share(place->self_us, p->a->places[0].duration_us);
        const char *colour = !p->view->colour ? "" : self >= 10 ? RED : self >= 3 ? YELLOW : "";
        _cleanup_(freep) char *duration = tree_duration(place->duration_us);
        _cleanup_(freep) char *self_text = tree_duration(place->self_us);

        fprintf(p->f, "%*s ", numbers[0].width, duration);
        if (p->n_numbers > 1)
                fprintf(p->f, "%s%*s%s ", colour, numbers[1].width, self_text,
                        colour[0] ? RESET : "");
        if (p->n_numbers > 2)
                fprintf(p->f, "%*" PRIu64 " ", numbers[2].width, place->count);
        if (p->n_numbers > 3)
                fprintf(p->f, "%*.0f%% ", numbers[3].width - 1,
                        share((int64_t)place->states[SWPROF__PROFILE__STATE__RUNNING],
                                (int64_t)place->count));
        if (p->n_numbers > 4)
                fprintf(p->f, "%*.0f%% ", numbers[4].width - 1,
                        share((int64_t)place->states[SWPROF__PROFILE__STATE__BLOCKED],
                                (int64_t)place->count));
}

/* What is too long loses the folders of its file first, then all but the function, then its end. */
static void print_name(const Printer *p, const ProfileFrame *frame, unsigned width)
{
        _cleanup_(freep) char *escaped = text_escape(frame->signature);
        _cleanup_(freep) char *function = text_escape(frame->function), *shown = NULL;
        const char *name = escaped, *slash = memrchr(escaped, '/', strcspn(escaped, " (<"));

        if (width > 0 && text_width(name) > width && slash && slash[1])
                name = slash + 1;
        if (width > 0 && text_width(name) > width && function[0])
                name = function;
        shown = text_fit(name, width);
        fputs(shown, p->f);
}

static void print_place(const Printer *p, uint32_t place, uint32_t depth)
{
        const ProfileFrame *frame = &p->a->profile->frames[p->a->profile->places[place].frame];
        bool waiting = frame->kind == SWPROF__PROFILE__KIND__WAITING;
        uint32_t length = p->lengths[depth - 1], from = 0;
        unsigned indent = length + (p->branches[depth - 1] ? 2 : 0);

        print_numbers(p, &p->a->places[place]);
        if (p->name_width > 0 && indent > p->name_width / 2) {
                /* The guides near the name say most. */
                from = indent - p->name_width / 2;
                from = from > length ? length : from;
                indent -= from;
        }
        if (p->view->colour && indent)
                fputs(DIM, p->f);
        fprintf(p->f, "%.*s%s", (int)(length - from), p->guides + from,
                p->branches[depth - 1] ? "+ " : "");
        if (p->view->colour && indent)
                fputs(RESET, p->f);
        if (p->view->colour && waiting)
                fputs(DIM, p->f);
        print_name(p, frame,
                p->name_width == 0           ? 0
                : p->name_width > indent + 4 ? p->name_width - indent
                                             : 4);
        fputs(p->view->colour && waiting ? RESET "\n" : "\n", p->f);
}

static void print_heading(const Printer *p)
{
        if (p->view->colour)
                fputs(BOLD, p->f);
        for (int i = 0; i < p->n_numbers; i++)
                fprintf(p->f, "%*s ", numbers[i].width, numbers[i].heading);
        fprintf(p->f, "FRAME%s\n", p->view->colour ? RESET : "");
}

/* What the children of a place at that depth are to have before them. Return: the first one. */
static uint32_t enter(Printer *p, uint32_t place, uint32_t depth, uint32_t length)
{
        uint32_t child = visible(p->a, p->view, p->a->places[place].first_child);

        p->lengths[depth] = length;
        p->branches[depth] = child && visible(p->a, p->view, p->a->places[child].next) != 0;
        return child;
}

static void print_tree(Printer *p, size_t *ret_n_shown)
{
        const ProfilePlace *places = p->a->profile->places;
        uint32_t place = enter(p, 0, 0, 0), next, depth, length;
        size_t n_shown = 0;

        while (place) {
                depth = places[place].depth;
                print_place(p, place, depth);
                n_shown++;
                length = p->lengths[depth - 1];
                if (p->branches[depth - 1]) {
                        bool last = visible(p->a, p->view, p->a->places[place].next) == 0;

                        memcpy(p->guides + length, last ? "  " : "| ", 2);
                        length += 2;
                }
                next = enter(p, place, depth, length);
                for (; !next && place; place = places[place].parent)
                        next = visible(p->a, p->view, p->a->places[place].next);
                place = next;
        }
        *ret_n_shown = n_shown;
}

void tree_print(const Analysis *a, const TreeView *view, FILE *f)
{
        _cleanup_(freep) Printer *p = check_memory(calloc(1, sizeof(*p)));
        size_t n_shown, n = 0;

        *p = (Printer){.a = a, .view = view, .f = f};
        choose_columns(p);
        print_heading(p);
        print_tree(p, &n_shown);
        for (size_t i = 1; i < a->profile->n_places; i++)
                n += a->places[i].count > 0;
        if (n > n_shown)
                fprintf(f, "%zu more are hidden%s%s\n", n - n_shown,
                        view->min_percent > 0 ? "; --min=0 shows small ones" : "",
                        view->depth > 0 ? "; --depth hides deep ones" : "");
}

/* ---- JSON ---- */

static struct json_object *place_json(const Analysis *a, uint32_t place)
{
        const ProfileFrame *frame = &a->profile->frames[a->profile->places[place].frame];
        const AnalysisPlace *p = &a->places[place];
        struct json_object *object = json_new();

        json_add(object, "id", json_number(place));
        json_add(object, "parent_id", json_number(a->profile->places[place].parent));
        json_add(object, "signature", json_string(frame->signature));
        json_add(object, "kind", json_string(profile_kind_name(frame->kind)));
        json_add(object, "file", json_string(frame->file));
        json_add(object, "line", json_number(frame->line));
        json_add(object, "duration_us", json_number(p->duration_us));
        json_add(object, "self_us", json_number(p->self_us));
        json_add(object, "count", json_number((int64_t)p->count));
        json_add(object, "running", json_number((int64_t)p->states[0]));
        json_add(object, "runnable", json_number((int64_t)p->states[1]));
        json_add(object, "blocked", json_number((int64_t)p->states[2]));
        return object;
}

struct json_object *tree_json(const Analysis *a, const TreeView *view)
{
        struct json_object *list = json_list();
        uint32_t place = analysis_next(a, 0, false);

        while (place) {
                bool shown = is_visible(a, view, place);

                if (shown)
                        json_append(list, place_json(a, place));
                place = analysis_next(a, place, !shown);
        }
        return list;
}
