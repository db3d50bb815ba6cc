/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "capture/capture.h"
#include "manager/module-cache.h"
#include "unwind/unwind.h"
#include "util/list.h"

/*
 * How the stacks of programs that run come out, with the daemon's own capture, maps and tables:
 *
 *   unwind-probe -n N [-s SEED] PID…   N captures of random threads at random moments, each of a
 *                                      thread that has run since its last one; a line each: status,
 *                                      thread, how, frames, where it could not go on, the outermost
 *   unwind-probe -f PID…               each thread once, frame by frame: for processes that are
 *                                      stopped, to compare with another unwinder
 *
 * Frames are "module+vaddr function"; real-programs makes something of it.
 */

enum {
        FRAMES_MAX = 4096,
        MAX_STACK = 64 << 10,
        PROCESSES_MAX = 64,
        THREADS_MAX = 1024,
        PULLS_MAX = 1000,
        LOST_MAX = 100,              /* captures for one that tells something */
        MOMENT_MAX_NS = 1000 * 1000, /* between two captures */
        SHOT_TIMEOUT_MS = 1000,
};

typedef struct Process {
        pid_t pid;
        ProcMap *map;
        CaptureSpace space; /* of the map */
} Process;

typedef struct Thread {
        pid_t tid;
        CaptureThread *thread;
} Thread;

typedef struct Probe {
        Capture *capture;
        ModuleCache *modules;
        int stop_fd;
        Process processes[PROCESSES_MAX];
        size_t n_processes;
        Thread threads[THREADS_MAX]; /* all met so far */
        size_t n_threads;
        Frame frames[FRAMES_MAX];
        bool all_frames;
} Probe;

static const char *const status_names[] = {
        [UNWIND_DONE] = "done",
        [UNWIND_TRUNCATED] = "truncated",
        [UNWIND_OTHER_STACK] = "other-stack",
        [UNWIND_NO_MAPPING] = "no-mapping",
        [UNWIND_NO_CFI] = "no-cfi",
        [UNWIND_BROKEN] = "broken",
        [UNWIND_TOO_DEEP] = "too-deep",
};

static size_t list_threads(pid_t pid, pid_t *ret, size_t max)
{
        struct dirent *entry;
        char path[64];
        size_t n = 0;
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        d = opendir(path);
        while (d && n < max && (entry = readdir(d)))
                if (atoi(entry->d_name) > 0)
                        ret[n++] = atoi(entry->d_name);
        if (d)
                closedir(d);
        return n;
}

static void print_place(const Frame *f)
{
        SymbolFrame names[SYMBOL_MAX_INLINE];
        Binary *binary = f->module ? f->module->symbols : NULL;
        const char *function = NULL;

        if (binary)
                function =
                        names[binary_symbolize(binary, f->vaddr, false, names, SYMBOL_MAX_INLINE) -
                                1]
                                .function;
        printf("%s+0x%" PRIx64 " %s", f->module ? f->module->name : "(generated)", f->vaddr,
                function ? function : "?");
}

static bool load_map(Probe *p, Process *process, const CaptureSpace *space)
{
        ProcMap *map = NULL;

        if (module_cache_load(p->modules, process->pid, true, p->stop_fd, &map) != 0)
                return false;
        procmap_unref(process->map);
        process->map = map;
        process->space = *space;
        return true;
}

/* With a map that is no older than the capture, as the sampler does it. */
static bool unwind(Probe *p, Process *process, const CaptureResult *c, UnwindResult *ret)
{
        bool known = process->map && process->space.exec_vm == c->space.exec_vm &&
                     process->space.mm == c->space.mm;

        if (!known && !load_map(p, process, &c->space))
                return false;
        *ret = unwind_cfi(&c->copy, process->map, p->frames, FRAMES_MAX);
        if (known && ret->status == UNWIND_NO_MAPPING) {
                if (!load_map(p, process, &c->space))
                        return false;
                *ret = unwind_cfi(&c->copy, process->map, p->frames, FRAMES_MAX);
        }
        return true;
}

static bool take(Probe *p, CaptureThread *t, CaptureResult *result)
{
        for (int i = 0; i < PULLS_MAX; i++) {
                struct pollfd fd = {.fd = capture_fd(p->capture), .events = POLLIN};
                void *userdata;

                if (capture_pull(p->capture, &t, 1, result) < 0)
                        return false;
                if (result->status == CAPTURE_TAKEN)
                        return true;
                if (result->status == CAPTURE_GONE || result->status == CAPTURE_FAULT ||
                        result->status == CAPTURE_REPEATED)
                        return false;
                if (result->status != CAPTURE_RUNNING)
                        continue;
                while (poll(&fd, 1, SHOT_TIMEOUT_MS) == 1)
                        if (capture_collect(p->capture, &userdata, result))
                                return result->status == CAPTURE_TAKEN;
                if (capture_cancel(t, result))
                        return result->status == CAPTURE_TAKEN;
        }
        return false;
}

static void report(Probe *p, pid_t tid, const CaptureResult *c, const UnwindResult *u)
{
        const Frame *outermost = u->n_frames > 0 ? &p->frames[u->n_frames - 1] : NULL;

        if (p->all_frames) {
                printf("thread %d %s %" PRIx64 "\n", (int)tid, status_names[u->status], u->bad_pc);
                for (size_t i = 0; i < u->n_frames; i++) {
                        printf("%" PRIx64 " ", p->frames[i].pc);
                        print_place(&p->frames[i]);
                        printf("\n");
                }
                return;
        }
        printf("%s\t%d\t%s\t%zu\t", status_names[u->status], (int)tid, c->shot ? "shot" : "pulled",
                u->n_frames);
        if (u->status != UNWIND_DONE)
                printf("%" PRIx64 " ", u->bad_pc);
        if (outermost)
                print_place(outermost);
        printf("\n");
}

static Thread *thread_get(Probe *p, pid_t pid, pid_t tid)
{
        Thread *t = p->threads;

        while (t < p->threads + p->n_threads && t->tid != tid)
                t++;
        if (t == p->threads + THREADS_MAX)
                return NULL;
        if (t == p->threads + p->n_threads) {
                *t = (Thread){.tid = tid};
                p->n_threads++;
        }
        if (!t->thread) {
                if (capture_thread_new(p->capture, &t->thread, pid, tid, NULL))
                        return NULL;
                capture_thread_set_want(t->thread, MAX_STACK);
                capture_thread_forget(t->thread);
        }
        return t;
}

/* Return: whether there is an answer. */
static bool probe(Probe *p, Process *process, pid_t tid)
{
        Thread *t = thread_get(p, process->pid, tid);
        CaptureResult c;
        UnwindResult u;
        bool ok;

        if (!t)
                return false;
        if (process->map || load_map(p, process, &process->space)) {
                capture_thread_set_go(t->thread, process->map->go);
                capture_thread_set_code(t->thread, process->map->generates_code);
        }
        if (!take(p, t->thread, &c)) {
                if (c.status == CAPTURE_GONE)
                        t->thread = capture_thread_free(t->thread);
                return false;
        }
        ok = unwind(p, process, &c, &u);
        if (ok)
                report(p, tid, &c, &u);
        capture_release(t->thread);
        return ok;
}

static void probe_random(Probe *p, size_t n)
{
        static pid_t threads[THREADS_MAX];
        size_t n_lost = 0;

        for (size_t i = 0; i < n && n_lost < LOST_MAX * n;) {
                Process *process = &p->processes[(size_t)random() % p->n_processes];
                size_t n_threads = list_threads(process->pid, threads, THREADS_MAX);
                struct timespec moment = {.tv_nsec = random() % MOMENT_MAX_NS};

                nanosleep(&moment, NULL);
                if (n_threads > 0 && probe(p, process, threads[(size_t)random() % n_threads]))
                        i++;
                else
                        n_lost++;
        }
        fprintf(stderr, "%zu captures gave nothing\n", n_lost);
}

static void probe_all(Probe *p)
{
        static pid_t threads[THREADS_MAX];

        for (size_t i = 0; i < p->n_processes; i++) {
                size_t n = list_threads(p->processes[i].pid, threads, THREADS_MAX);

                for (size_t k = 0; k < n; k++)
                        if (!probe(p, &p->processes[i], threads[k]))
                                printf("thread %d lost 0\n", (int)threads[k]);
        }
}

int main(int argc, char **argv)
{
        static Probe p;
        Config config = {
                .capture_backend = CAPTURE_BACKEND_AUTO,
                .capture_max_stack_bytes = MAX_STACK,
                .capture_max_targets = THREADS_MAX,
        };
        CaptureInfo info;
        size_t n = 1000;
        int c;

        while ((c = getopt(argc, argv, "fn:s:")) >= 0)
                switch (c) {
                case 'f':
                        p.all_frames = true;
                        break;
                case 'n':
                        n = strtoul(optarg, NULL, 10);
                        break;
                case 's':
                        srandom((unsigned)strtoul(optarg, NULL, 10));
                        break;
                default:
                        return EXIT_FAILURE;
                }
        for (; optind < argc && p.n_processes < PROCESSES_MAX; optind++)
                p.processes[p.n_processes++].pid = atoi(argv[optind]);
        p.stop_fd = eventfd(0, EFD_CLOEXEC);
        if (p.n_processes == 0 || p.stop_fd < 0 || capture_new(&p.capture, &config, &info) != 0 ||
                module_cache_new(&p.modules) != 0) {
                fprintf(stderr, "nothing to capture, or no way to: %s\n", info.reason);
                return EXIT_FAILURE;
        }
        if (p.all_frames)
                probe_all(&p);
        else
                probe_random(&p, n);
        for (size_t i = 0; i < p.n_threads; i++)
                capture_thread_free(p.threads[i].thread);
        for (size_t i = 0; i < p.n_processes; i++)
                procmap_unref(p.processes[i].map);
        module_cache_free(p.modules);
        capture_free(p.capture);
        return EXIT_SUCCESS;
}
