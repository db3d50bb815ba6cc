/* SPDX-License-Identifier: Apache-2.0 */

/*
 * capture-probe [N]: which ways to capture work on this kernel? For each of auto, bpf/syscall and
 * bpf/iter: captures a sleeping thread, a running one N (200) times, and looks what becomes of
 * shots that were cancelled. Prints a line per finding; exit code 0: at least one backend did all
 * of it right. For kernels other than the host's: no test framework.
 */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "capture/capture.h"
#include "util/log.h"
#include "util/time.h"

static atomic_int spinner_tid, sleeper_tid;
static atomic_bool stop;
static int sleeper_fd;
static _Atomic uint64_t sleeper_wakes;

static void *spin(void *userdata)
{
        atomic_store(&spinner_tid, (int)syscall(SYS_gettid));
        while (!atomic_load_explicit(&stop, memory_order_relaxed))
                ;
        return NULL;
}

static void *sleep_in_read(void *userdata)
{
        eventfd_t value;

        atomic_store(&sleeper_tid, (int)syscall(SYS_gettid));
        while (!atomic_load(&stop)) {
                eventfd_read(sleeper_fd, &value);
                atomic_fetch_add(&sleeper_wakes, 1);
        }
        return NULL;
}

/* Announcements of cancelled shots make the descriptor readable, too. */
static bool wait_answer(Capture *c, CaptureThread *t, CaptureResult *result)
{
        struct pollfd p = {.fd = capture_fd(c), .events = POLLIN};
        void *userdata;

        while (poll(&p, 1, 2000) == 1)
                if (capture_collect(c, &userdata, result))
                        return true;
        return capture_cancel(t, result);
}

/* Pulls until the thread sleeps. */
static CaptureStatus pull_asleep(Capture *c, CaptureThread *t, CaptureResult *result)
{
        for (int i = 0; i < 100000; i++) {
                if (capture_pull(c, &t, 1, result) < 0)
                        return CAPTURE_FAULT;
                if (result->status != CAPTURE_RUNNING && result->status != CAPTURE_UNSTABLE)
                        break;
                sched_yield();
        }
        return result->status;
}

static int try_sleeper(Capture *c)
{
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        CaptureResult result;
        uint64_t wakes;
        int bad = 0;

        if (capture_thread_new(c, &t, getpid(), atomic_load(&sleeper_tid), NULL))
                return 1;
        bad += pull_asleep(c, t, &result) != CAPTURE_TAKEN || result.copy.n == 0 ||
               result.syscall != SYS_read;
        capture_release(t);
        for (int i = 0; i < 100; i++)
                bad += pull_asleep(c, t, &result) != CAPTURE_REPEATED;
        wakes = atomic_load(&sleeper_wakes);
        eventfd_write(sleeper_fd, 1);
        while (atomic_load(&sleeper_wakes) == wakes)
                sched_yield();
        bad += pull_asleep(c, t, &result) != CAPTURE_TAKEN;
        printf("  sleeping thread: %d wrong answers\n", bad);
        return bad;
}

static int try_spinner(Capture *c, int n)
{
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        int shots = 0, pulled = 0, lost = 0, doubled = 0, bad = 0;
        uint64_t sum_ns = 0, max_ns = 0;

        if (capture_thread_new(c, &t, getpid(), atomic_load(&spinner_tid), NULL))
                return 1;
        for (int i = 0; i < n; i++) {
                uint64_t begin_ns = mono_now_ns(), ns;
                CaptureResult result, again;
                void *userdata;
                bool got;

                if (capture_pull(c, &t, 1, &result) < 0)
                        return 1;
                if (result.status != CAPTURE_RUNNING) {
                        /* Preempted: nothing new to see until it has run again. */
                        pulled += result.status == CAPTURE_TAKEN;
                        i -= result.status == CAPTURE_REPEATED;
                        capture_release(t);
                        sched_yield();
                        continue;
                }
                got = wait_answer(c, t, &result);
                ns = mono_now_ns() - begin_ns;
                sum_ns += ns;
                max_ns = ns > max_ns ? ns : max_ns;
                shots += got;
                lost += !got;
                bad += got && (result.status != CAPTURE_TAKEN || !result.shot ||
                                      result.copy.n == 0 || result.mono_ns < begin_ns);
                doubled += capture_collect(c, &userdata, &again);
                capture_release(t);
        }
        printf("  running thread: %d of %d shots, %d pulled while preempted, %d lost, %d doubled, "
               "%d bad, %.1f us mean, "
               "%.1f us max\n",
                shots, n, pulled, lost, doubled, bad, shots ? (double)sum_ns / shots / 1e3 : 0.,
                (double)max_ns / 1e3);
        return bad + lost + doubled + (shots + pulled != n);
}

/* Cancels at once, and fires again: what was left over of the first must serve the second, and no
 * third may come. */
static int try_cancel(Capture *c, int n)
{
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        int cancelled = 0, in_time = 0, doubled = 0, lost = 0;

        if (capture_thread_new(c, &t, getpid(), atomic_load(&spinner_tid), NULL))
                return 1;
        for (int i = 0; i < n; i++) {
                CaptureResult result;
                void *userdata;

                if (capture_pull(c, &t, 1, &result) < 0)
                        return 1;
                if (result.status != CAPTURE_RUNNING)
                        continue;
                if (capture_cancel(t, &result))
                        in_time++;
                else
                        cancelled++;
                capture_release(t);
                doubled += capture_collect(c, &userdata, &result);
                if (capture_pull(c, &t, 1, &result) < 0)
                        return 1;
                if (result.status != CAPTURE_RUNNING)
                        continue;
                lost += !wait_answer(c, t, &result);
                doubled += capture_collect(c, &userdata, &result);
                capture_release(t);
        }
        printf("  cancelled shots: %d, answered before that: %d, lost after: %d, doubled: %d\n",
                cancelled, in_time, lost, doubled);
        return lost + doubled;
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                CaptureBackend backend;
        } backends[] = {
                {"auto", CAPTURE_BACKEND_AUTO},
                {"bpf/syscall", CAPTURE_BACKEND_BPF_SYSCALL},
                {"bpf/iter", CAPTURE_BACKEND_BPF_ITER},
        };
        int n = argc > 1 ? atoi(argv[1]) : 200, n_right = 0;
        struct utsname kernel;
        pthread_t threads[2];

        setvbuf(stdout, NULL, _IOLBF, 0);
        if (getenv("DEBUG"))
                log_set_max_level(LOG_DEBUG);
        uname(&kernel);
        printf("Linux %s\n", kernel.release);
        sleeper_fd = eventfd(0, 0);
        pthread_create(&threads[0], NULL, spin, NULL);
        pthread_create(&threads[1], NULL, sleep_in_read, NULL);
        while (!atomic_load(&spinner_tid) || !atomic_load(&sleeper_tid))
                sched_yield();
        for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
                _cleanup_(capture_freep) Capture *c = NULL;
                Config config = {
                        .capture_backend = (int)backends[i].backend,
                        .capture_max_stack_bytes = 65536,
                        .capture_max_targets = 64,
                        .capture_kernel_frames = true,
                };
                CaptureInfo info;
                int bad, r;

                r = capture_new(&c, &config, &info);
                printf("%s: %s, %s\n", backends[i].name, info.backend, info.reason);
                if (r)
                        continue;
                bad = try_sleeper(c);
                bad += try_spinner(c, n);
                bad += try_cancel(c, n);
                n_right += bad == 0;
        }
        atomic_store(&stop, true);
        eventfd_write(sleeper_fd, 1);
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
        printf("%d of 3 right\n", n_right);
        return n_right > 0 ? 0 : 1;
}
