/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "target.h"

/*
 * Processes that stopped at a known place: the frames must be the functions that were called, and
 * their addresses those that another unwinder (eu-stack, where installed) finds.
 */

enum {
        FRAMES_MAX = 512,
        STEPS_MIN = 1000, /* so many that it did run through the library functions of work() */
        STEPS_MAX = 50000,
};

/* "*" is any number of functions of libc, which may have no names for them. Returns how many frames
 * there are of these. */
static size_t expect_functions(
        const char *path, const Frame *frames, size_t n, const char *const *functions)
{
        size_t i = 0;

        for (; *functions; functions++) {
                bool any = strcmp(*functions, "*") == 0;
                const char *wanted = any ? *++functions : *functions, *name;

                for (;; i++) {
                        cr_assert_lt(i, n, "%s: only %zu frames, no %s", path, n, wanted);
                        name = frames[i].module
                                       ? function_at(frames[i].module->name, frames[i].vaddr)
                                       : "(generated)";
                        if (!any || strcmp(name, wanted) == 0)
                                break;
                }
                cr_assert_str_eq(
                        name, wanted, "%s: frame %zu is %s, not %s", path, i, name, wanted);
                i++;
        }
        return i;
}

/* That the rest of the frames is how every process begins. */
static void expect_root(const char *path, const Frame *frames, UnwindResult r, size_t n_known)
{
        cr_assert_eq(r.status, UNWIND_DONE, "%s: status %d after %zu frames at %" PRIx64, path,
                r.status, r.n_frames, r.bad_pc);
        cr_assert_eq(r.n_frames, n_known + 3, "%s: %zu frames", path, r.n_frames);
        /* The two others are of libc. */
        cr_assert_str_eq(function_at(path, frames[r.n_frames - 1].vaddr), "_start", "%s", path);
}

/* The pcs of the stopped thread by eu-stack; callers' are return addresses, as ours. */
static size_t other_unwinder(const Target *t, uint64_t *pcs, size_t n_max)
{
        char line[512];
        size_t n = 0;
        FILE *f;

        snprintf(line, sizeof(line), EU_STACK " -n 0 -p %d -1 2>/dev/null", t->tid);
        f = popen(line, "r");
        cr_assert(f);
        while (fgets(line, sizeof(line), f)) {
                uint64_t pc;

                if (sscanf(line, "#%*u 0x%" SCNx64, &pc) == 1 && n < n_max)
                        pcs[n++] = pc;
        }
        pclose(f);
        return n;
}

typedef struct Scenario {
        char name[16];
        const char *functions[12]; /* up to main */
        size_t repeat;             /* so many more of the second one */
        bool other;                /* whether eu-stack copes with it */
} Scenario;

static const Scenario scenarios[] = {
        {"plain", {"leaf", "plain_c", "plain_b", "plain_a", "main"}, 0, true},
        {"variable", {"leaf", "variable", "main"}, 0, true},
        {"realigned", {"leaf", "realigned", "main"}, 0, true},
        {"recurse", {"leaf", "recurse", "main"}, 299, true},
        {"sort", {"leaf", "compare", "*", "sort", "main"}, 0, true},
        {"signal", {"leaf", "handler", "*", "fault", "signalled", "main"}, 0, true},
        {"generated", {"leaf", "(generated)", "generated", "main"}, 0, false},
};

static const char *const shapes[] = {
        "omit", "fp", "static", "cet", "lazy", "debug-frame", "no-hdr"};

static void check(const char *shape, const Scenario *s)
{
        const char *functions[FRAMES_MAX] = {NULL};
        Frame frames[FRAMES_MAX];
        size_t n = 0, n_pcs;
        uint64_t pcs[FRAMES_MAX];
        UnwindResult r;
        char path[256];
        Target t;

        for (size_t i = 0; s->functions[i]; i++)
                for (size_t k = 0; k <= (i == 1 ? s->repeat : 0); k++)
                        functions[n++] = s->functions[i];
        snprintf(path, sizeof(path), "%s%s", CHAINS, shape);
        target_start(&t, path, s->name);
        r = unwind_cfi(&t.copy, t.map, frames, FRAMES_MAX);
        n = expect_functions(path, frames, r.n_frames, functions);
        expect_root(path, frames, r, n);

        /* What it knows of .debug_frame and sections without index is its own matter. */
        if (EU_STACK[0] && s->other && strcmp(shape, "debug-frame") != 0 &&
                strcmp(shape, "no-hdr") != 0) {
                target_leave(&t);
                n_pcs = other_unwinder(&t, pcs, FRAMES_MAX);
                cr_assert_eq(
                        n_pcs, r.n_frames, "%s %s: %zu and %zu", path, s->name, n_pcs, r.n_frames);
                for (size_t i = 0; i < n_pcs; i++)
                        cr_assert_eq(pcs[i], frames[i].pc, "%s %s: frame %zu", path, s->name, i);
        }
        target_end(&t);
}

ParameterizedTestParameters(live, chains)
{
        static int cases[sizeof(shapes) / sizeof(*shapes)];

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
                cases[i] = (int)i;
        return cr_make_param_array(int, cases, sizeof(cases) / sizeof(*cases));
}

ParameterizedTest(int *shape, live, chains, .fini = check_leaks)
{
        for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
                check(shapes[*shape], &scenarios[i]);
}

/* The stack of the interrupted function is elsewhere: it is named, and not made up. */
Test(live, altstack, .fini = check_leaks)
{
        static const char *const functions[] = {"leaf", "handler", "*", "fault", NULL};
        Frame frames[FRAMES_MAX];
        UnwindResult r;
        Target t;

        target_start(&t, CHAINS "omit", "altstack");
        r = unwind_cfi(&t.copy, t.map, frames, FRAMES_MAX);
        cr_assert_eq(expect_functions(CHAINS "omit", frames, r.n_frames, functions), r.n_frames);
        cr_assert_eq(r.status, UNWIND_OTHER_STACK);
        cr_assert(r.other);
        target_end(&t);
}

/* Ends where the C library began the thread. */
Test(live, thread, .fini = check_leaks)
{
        static const char *const functions[] = {
                "leaf", "plain_c", "plain_b", "plain_a", "thread", NULL};
        Frame frames[FRAMES_MAX];
        UnwindResult r;
        Target t;

        target_start(&t, CHAINS "static", "thread");
        cr_assert_neq(t.tid, t.pid);
        r = unwind_cfi(&t.copy, t.map, frames, FRAMES_MAX);
        cr_assert_eq(
                expect_functions(CHAINS "static", frames, r.n_frames, functions) + 2, r.n_frames);
        cr_assert_eq(r.status, UNWIND_DONE);
        cr_assert(strstr(function_at(CHAINS "static", frames[r.n_frames - 1].vaddr), "clone"));
        target_end(&t);
}

/* A copy that ends too early says what is missing, and with just that the walk gets further. */
Test(live, truncated, .fini = check_leaks)
{
        Frame frames[FRAMES_MAX];
        size_t n_steps = 0, n_frames = 0;
        UnwindResult r;
        Target t;

        target_start(&t, CHAINS "omit", "recurse");
        for (t.copy.n = 136;; n_steps++) {
                r = unwind_cfi(&t.copy, t.map, frames, FRAMES_MAX);
                if (r.status != UNWIND_TRUNCATED)
                        break;
                cr_assert_gt(r.need_end, t.copy.addr + t.copy.n);
                cr_assert_geq(r.n_frames, n_frames);
                n_frames = r.n_frames;
                t.copy.n = r.need_end - t.copy.addr;
        }
        cr_assert_eq(r.status, UNWIND_DONE);
        cr_assert_gt(n_steps, 300);
        target_end(&t);
}

/* Fewer frames than there are: the innermost ones. */
Test(live, too_deep, .fini = check_leaks)
{
        static const char *const functions[] = {"leaf", "plain_c", "plain_b", NULL};
        Frame frames[3];
        UnwindResult r;
        Target t;

        target_start(&t, CHAINS "omit", "plain");
        r = unwind_cfi(&t.copy, t.map, frames, 3);
        cr_assert_eq(r.status, UNWIND_TOO_DEEP);
        cr_assert_eq(expect_functions(CHAINS "omit", frames, r.n_frames, functions), 3);
        target_end(&t);
}

/* By frame pointers alone, where everything keeps them up to main. */
Test(live, frame_pointers, .fini = check_leaks)
{
        static const char *const functions[] = {
                "leaf", "plain_c", "plain_b", "plain_a", "main", NULL};
        Frame frames[FRAMES_MAX], again[FRAMES_MAX];
        uint64_t pcs[5];
        UnwindResult r;
        Target t;

        target_start(&t, CHAINS "fp", "plain");
        r = unwind_fp(&t.copy, t.map, frames, FRAMES_MAX);
        cr_assert_eq(expect_functions(CHAINS "fp", frames, r.n_frames, functions), 5);
        cr_assert_eq(r.status, UNWIND_DONE);
        for (size_t i = 0; i < 5; i++)
                pcs[i] = frames[i].pc;
        r = unwind_pcs(pcs, 5, t.map, again, FRAMES_MAX);
        cr_assert_eq(r.status, UNWIND_DONE);
        cr_assert_eq(r.n_frames, 5);
        for (size_t i = 0; i < 5; i++)
                cr_assert_eq(again[i].vaddr, frames[i].vaddr);
        target_end(&t);
}

/* At each single instruction: prologues, epilogues, PLT stubs, the dynamic linker, the vDSO. */
static void check_steps(const char *shape)
{
        size_t n_steps = 0, n_vdso = 0;
        Frame frames[FRAMES_MAX];
        char path[256];
        Target t;

        snprintf(path, sizeof(path), "%s%s", CHAINS, shape);
        target_start(&t, path, "work");
        for (; n_steps < STEPS_MAX && target_step(&t); n_steps++) {
                UnwindResult r;

                target_copy(&t);
                r = unwind_cfi(&t.copy, t.map, frames, FRAMES_MAX);
                if (r.status != UNWIND_DONE) {
                        const Frame *f = &frames[r.n_frames - 1];

                        cr_assert_fail("%s: step %zu, status %d in %s at %" PRIx64
                                       " (%s), frame %zu",
                                path, n_steps, r.status, f->module ? f->module->name : "?",
                                f->vaddr, f->module ? function_at(f->module->name, f->vaddr) : "?",
                                r.n_frames);
                }
                n_vdso += frames[0].module && strcmp(frames[0].module->name, "[vdso]") == 0;
                cr_assert_str_eq(function_at(path, frames[r.n_frames - 1].vaddr), "_start");
        }
        cr_log_info("%s: %zu steps, %zu in the vDSO", path, n_steps, n_vdso);
        cr_assert_gt(n_steps, STEPS_MIN);
        cr_assert_lt(n_steps, STEPS_MAX);
        target_end(&t);
}

ParameterizedTestParameters(live, steps)
{
        static int cases[sizeof(shapes) / sizeof(*shapes)];

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
                cases[i] = (int)i;
        return cr_make_param_array(int, cases, sizeof(cases) / sizeof(*cases));
}

ParameterizedTest(int *shape, live, steps, .fini = check_leaks)
{
        check_steps(shapes[*shape]);
}
