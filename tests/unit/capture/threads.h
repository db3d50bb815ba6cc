/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Threads of this process, and captures of them. */

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "capture/capture.h"
#include "util/cleanup.h"

#define RED_ZONE 128

#define BACKENDS(suite, test)                                                                    \
        ParameterizedTestParameters(suite, test)                                                 \
        {                                                                                        \
                static int backends[] = {CAPTURE_BACKEND_BPF_SYSCALL, CAPTURE_BACKEND_BPF_ITER}; \
                                                                                                 \
                return cr_make_param_array(int, backends, 2);                                    \
        }

static inline Config config_of(int backend)
{
        return (Config){.capture_backend = backend,
                .capture_max_stack_bytes = 65536,
                .capture_max_targets = 1024};
}

/* How often a test is to try: less often on a machine that is that many times slower. */
static inline int rounds(int n)
{
        const char *slow = getenv("SWPROFD_TEST_SLOW");

        return slow && atoi(slow) > 1 ? n / atoi(slow) : n;
}

static inline Capture *new_capture(const Config *config)
{
        CaptureInfo info;
        Capture *c = NULL;
        int r = capture_new(&c, config, &info);

        cr_assert(r >= 0, "%s", info.reason);
        if (r)
                cr_skip_test("%s", info.reason);
        return c;
}

/* ---- threads to capture ---- */

typedef struct Thread {
        pthread_t thread;
        _Atomic pid_t tid;
        int fd;
        atomic_uint n_wakes;
        atomic_bool stop;
        _Atomic uintptr_t local; /* address in the thread's own frame */
} Thread;

static inline void *sleeper(void *userdata)
{
        Thread *t = userdata;
        volatile uint64_t cookie[2] = {0x5157505257415243, 0x1122334455667788};
        uint64_t value;

        atomic_store(&t->local, (uintptr_t)&cookie[0]);
        atomic_store(&t->tid, (pid_t)syscall(SYS_gettid));
        while (!atomic_load(&t->stop))
                if (read(t->fd, &value, sizeof(value)) == sizeof(value))
                        atomic_fetch_add(&t->n_wakes, 1);
        return cookie[0] ? NULL : t;
}

/* With more on its stack than any copy. */
static inline void *deep_sleeper(void *userdata)
{
        volatile char local[100000];

        memset((char *)local, 1, sizeof(local));
        sleeper(userdata);
        return local[0] ? NULL : userdata;
}

static inline void *spinner(void *userdata)
{
        Thread *t = userdata;

        atomic_store(&t->tid, (pid_t)syscall(SYS_gettid));
        while (!atomic_load_explicit(&t->stop, memory_order_relaxed))
                ;
        return NULL;
}

static inline void thread_start(Thread *t, void *(*start)(void *))
{
        pthread_attr_t attr;

        *t = (Thread){.fd = eventfd(0, EFD_SEMAPHORE)};
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 256 * 1024);
        cr_assert(pthread_create(&t->thread, &attr, start, t) == 0);
        pthread_attr_destroy(&attr);
        while (!atomic_load(&t->tid))
                sched_yield();
}

static inline void thread_stop(Thread *t)
{
        atomic_store(&t->stop, true);
        eventfd_write(t->fd, 1);
        pthread_join(t->thread, NULL);
        close(t->fd);
}

/* One system call of the thread further. */
static inline void thread_step(Thread *t)
{
        unsigned n = atomic_load(&t->n_wakes);

        eventfd_write(t->fd, 1);
        while (atomic_load(&t->n_wakes) == n)
                sched_yield();
}

static inline CaptureThread *follow(Capture *c, Thread *t)
{
        CaptureThread *ret = NULL;

        cr_assert(capture_thread_new(c, &ret, getpid(), t->tid, t) == 0);
        return ret;
}

/* Until the thread sleeps in read(). */
static inline CaptureStatus pull_asleep(Capture *c, CaptureThread *t, CaptureResult *ret)
{
        do {
                cr_assert(capture_pull(c, &t, 1, ret) == 0);
                if (ret->status == CAPTURE_TAKEN && ret->syscall != SYS_read)
                        capture_thread_forget(t);
        } while (ret->status == CAPTURE_RUNNING || ret->status == CAPTURE_UNSTABLE ||
                 (ret->status == CAPTURE_TAKEN && ret->syscall != SYS_read));
        return ret->status;
}

static inline void pull_running(Capture *c, CaptureThread *t)
{
        CaptureResult r;

        for (;;) {
                cr_assert(capture_pull(c, &t, 1, &r) == 0);
                capture_release(t);
                if (r.status == CAPTURE_RUNNING)
                        return;
                /* Where CPUs are scarce, it comes onto one while this thread leaves one, and is there
                 * still when this one is back: whoever waits busily waits a hundred times as long. */
                usleep(500);
        }
}

static inline bool wait_shot(Capture *c, CaptureThread *t, CaptureResult *ret)
{
        struct pollfd p = {.fd = capture_fd(c), .events = POLLIN};
        void *userdata;

        while (poll(&p, 1, 10000) == 1)
                if (capture_collect(c, &userdata, ret))
                        return true;
        return false;
}
