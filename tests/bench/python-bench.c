/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/capture.h"
#include "manager/module-cache.h"
#include "runtime/cpython-binary.h"
#include "util/time.h"

/*
 * python-bench PID N: captures the main thread of a process that runs CPython N times, without and
 * with the frames of Python: µs of CPU time of each, of this thread for pulls, of the interrupted
 * thread for shots (sysctl kernel.bpf_stats_enabled must be 1), and how many frames there were.
 */

enum { WAIT_MS = 1000, BLOCKED, RUNNING };

static uint64_t cpu_ns(void)
{
        return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* What the programs of perf events, which are shots, have used so far, as the kernel counts. */
static uint64_t shots_ns(void)
{
        DIR *d = opendir("/proc/self/fdinfo");
        struct dirent *e;
        uint64_t sum = 0;

        while (d && (e = readdir(d))) {
                char path[300], line[128];
                int type = -1;
                FILE *f;

                snprintf(path, sizeof(path), "/proc/self/fdinfo/%s", e->d_name);
                f = fopen(path, "re");
                while (f && fgets(line, sizeof(line), f)) {
                        uint64_t ns;

                        sscanf(line, "prog_type: %d", &type);
                        if (type == 7 && sscanf(line, "run_time_ns: %" SCNu64, &ns) == 1)
                                sum += ns;
                }
                if (f)
                        fclose(f);
        }
        if (d)
                closedir(d);
        return sum;
}

static bool shot(Capture *c, CaptureThread *t, CaptureResult *r)
{
        struct pollfd fd = {.fd = capture_fd(c), .events = POLLIN};
        void *userdata;

        if (poll(&fd, 1, WAIT_MS) == 1 && capture_collect(c, &userdata, r))
                return true;
        return capture_cancel(t, r);
}

static void measure(Capture *c, CaptureThread *t, const char *name, unsigned n)
{
        uint64_t pull_ns = 0, shot_ns = 0, before, shots_before;
        unsigned n_pulls = 0, n_shots = 0;
        size_t n_frames = 0;
        CaptureResult r = {0};

        for (unsigned i = 0; i < n; i++) {
                capture_thread_forget(t);
                shots_before = shots_ns();
                before = cpu_ns();
                if (capture_pull(c, &t, 1, &r) < 0)
                        exit(EXIT_FAILURE);
                if (r.status == CAPTURE_TAKEN) {
                        pull_ns += cpu_ns() - before;
                        n_pulls++;
                } else if (r.status == CAPTURE_RUNNING) {
                        if (shot(c, t, &r) && r.status == CAPTURE_TAKEN) {
                                shot_ns += shots_ns() - shots_before;
                                n_shots++;
                        }
                }
                if (r.status == CAPTURE_TAKEN && r.python_status == SWP_PYTHON_OK)
                        n_frames = r.n_python;
                capture_release(t);
        }
        printf("%s: %zu frames", name, n_frames);
        if (n_pulls > 0)
                printf(", %.2f us a pull (%u)", (double)pull_ns / n_pulls / 1e3, n_pulls);
        if (n_shots > 0)
                printf(", %.2f us a shot (%u)", (double)shot_ns / n_shots / 1e3, n_shots);
        putchar('\n');
}

int main(int argc, char **argv)
{
        const CpythonBinary *python = NULL;
        uint64_t bias = 0;
        ModuleCache *modules;
        CaptureThread *t;
        CaptureInfo info;
        Config config;
        Capture *c;
        ProcMap *map;
        pid_t pid;
        unsigned n;

        if (argc != 3)
                return EXIT_FAILURE;
        pid = atoi(argv[1]);
        n = (unsigned)atoi(argv[2]);
        if (config_init_default(&config, &(char *){NULL}) != 0 ||
                capture_new(&c, &config, &info) != 0 || module_cache_new(&modules) != 0 ||
                module_cache_load(modules, pid, true, -1, &map) != 0 ||
                capture_thread_new(c, &t, pid, pid, NULL) != 0)
                return EXIT_FAILURE;
        for (size_t i = 0; i < map->n && !python; i++) {
                const Mapping *m = &map->mappings[i];

                if (m->module && m->module->python) {
                        python = m->module->python;
                        bias = m->start - module_vaddr(m->module, m->offset);
                }
        }
        if (!python)
                return EXIT_FAILURE;
        measure(c, t, "native", n);
        capture_thread_set_python(t, &python->layout.walk,
                bias + python->runtime_vaddr + python->layout.runtime_interpreters);
        measure(c, t, "python", n);
        return EXIT_SUCCESS;
}
