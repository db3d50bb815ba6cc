/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "capture/capture.h"
#include "manager/module-cache.h"
#include "runtime/cpython-binary.h"
#include "runtime/cpython-code.h"

/*
 * python-truth PID N: captures the threads of a process by turns, N times in all, and compares the
 * names of functions with what they say themselves (pytarget.py, case codes: file, name and lines have
 * the same
 * number, and a thread's numbers rise). Names are read some captures later, when many of the functions are gone. Exit
 * code 0: none was wrong.
 */

enum {
        THREADS_MAX = 32,
        LATER = 16, /* captures */
        WAIT_MS = 2,
};

typedef struct Seen {
        CpythonCode *code;
        int64_t unit;
        size_t thread;
} Seen;

typedef struct Truth {
        CpythonCodes *codes;
        Seen seen[LATER * SWP_MAX_PYTHON];
        size_t n_seen;
        unsigned newest[THREADS_MAX]; /* number that a thread's functions had last */
        unsigned n_captures, n_no_python, n_frames, n_marked, n_torn, n_wrong;
} Truth;

static void check(Truth *h, const Seen *s)
{
        unsigned file, name, line, base;
        char kind, *text;

        cpython_code_read(s->code);
        h->n_frames++;
        if (s->code->state != CPYTHON_CODE_NAMED) {
                h->n_torn += s->code->state == CPYTHON_CODE_LOST;
                return;
        }
        text = cpython_code_signature(s->code, s->unit, true);
        if (sscanf(text, "<h%6u>.%c%6u: %u", &file, &kind, &name, &line) == 4) {
                h->n_marked++;
                base = file % 1000;
                if (file != name || (kind == 'f' && line != base + 2 && line != base + 3) ||
                        (kind == 'g' && (line < base + 6 || line > base + 8)) ||
                        file < h->newest[s->thread]) {
                        h->n_wrong++;
                        printf("wrong: %s, after %06u\n", text, h->newest[s->thread]);
                }
                if (file > h->newest[s->thread])
                        h->newest[s->thread] = file;
        }
        free(text);
}

static void check_seen(Truth *h)
{
        for (size_t i = 0; i < h->n_seen; i++)
                check(h, &h->seen[i]);
        h->n_seen = 0;
        if (cpython_codes_full(h->codes)) {
                CpythonCodes *codes = cpython_codes_new(
                        cpython_codes_pid(h->codes), cpython_codes_layout(h->codes));

                cpython_codes_unref(h->codes);
                h->codes = codes;
        }
}

static void take(Truth *h, size_t thread, const CaptureResult *r)
{
        bool added;

        h->n_captures++;
        if (!r->has_python || r->python_status != SWP_PYTHON_OK) {
                h->n_no_python++;
                return;
        }
        for (size_t i = 0; i < r->n_python; i++)
                if (r->python[i].code)
                        h->seen[h->n_seen++] = (Seen){.thread = thread,
                                .code = cpython_codes_get(h->codes, &r->python[i], &added),
                                .unit = cpython_code_unit(
                                        cpython_codes_layout(h->codes), &r->python[i])};
        if (h->n_captures % LATER == 0)
                check_seen(h);
}

static void capture(Truth *h, Capture *c, size_t thread, CaptureThread *t)
{
        struct pollfd fd = {.fd = capture_fd(c), .events = POLLIN};
        CaptureResult r;
        void *userdata;

        capture_thread_forget(t);
        if (capture_pull(c, &t, 1, &r) < 0)
                exit(EXIT_FAILURE);
        if (r.status == CAPTURE_RUNNING &&
                !(poll(&fd, 1, WAIT_MS) == 1 && capture_collect(c, &userdata, &r)) &&
                !capture_cancel(t, &r))
                return;
        if (r.status == CAPTURE_TAKEN)
                take(h, thread, &r);
        capture_release(t);
}

static size_t follow(
        Capture *c, pid_t pid, CaptureThread **ret, const CpythonBinary *b, uint64_t bias)
{
        struct dirent *e;
        char path[64];
        size_t n = 0;
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        d = opendir(path);
        while (d && n < THREADS_MAX && (e = readdir(d))) {
                pid_t tid = atoi(e->d_name);

                /* The main thread waits for the others. */
                if (tid == 0 || tid == pid || capture_thread_new(c, &ret[n], pid, tid, NULL) != 0)
                        continue;
                capture_thread_set_python(ret[n], &b->layout.walk,
                        bias + b->runtime_vaddr + b->layout.runtime_interpreters);
                n++;
        }
        if (d)
                closedir(d);
        return n;
}

int main(int argc, char **argv)
{
        static Truth h;
        CaptureThread *threads[THREADS_MAX];
        const CpythonBinary *python = NULL;
        struct timespec pause = {0};
        uint64_t bias = 0;
        ModuleCache *modules;
        CaptureInfo info;
        Config config;
        Capture *c;
        ProcMap *map;
        unsigned n;
        size_t n_threads;
        pid_t pid;

        if (argc != 3)
                return EXIT_FAILURE;
        pid = atoi(argv[1]);
        n = (unsigned)atoi(argv[2]);
        if (config_init_default(&config, &(char *){NULL}) != 0 ||
                capture_new(&c, &config, &info) != 0 || module_cache_new(&modules) != 0 ||
                module_cache_load(modules, pid, true, -1, &map) != 0)
                return EXIT_FAILURE;
        for (size_t i = 0; i < map->n && !python; i++) {
                const Mapping *m = &map->mappings[i];

                if (m->module && m->module->python) {
                        python = m->module->python;
                        bias = m->start - module_vaddr(m->module, m->offset);
                }
        }
        n_threads = python ? follow(c, pid, threads, python, bias) : 0;
        if (n_threads == 0)
                return EXIT_FAILURE;
        h.codes = cpython_codes_new(pid, &python->layout);
        for (unsigned i = 0; i < n * 4 && h.n_captures < n; i++) {
                capture(&h, c, i % n_threads, threads[i % n_threads]);
                pause.tv_nsec = rand() % 20000;
                nanosleep(&pause, NULL);
        }
        check_seen(&h);
        printf("%u captures, %u without Python, %u functions, %u with a mark: %u torn, %u wrong\n",
                h.n_captures, h.n_no_python, h.n_frames, h.n_marked, h.n_torn, h.n_wrong);
        return h.n_wrong == 0 && h.n_marked > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
