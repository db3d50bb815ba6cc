/* SPDX-License-Identifier: Apache-2.0 */
/*
 * busy SERVICE INSTANCE PROFILED SLEEPS CPU_MS: a fixed amount of sleeping, system calls and CPU
 * work in one request on /busy; says what the kernel counted for this thread meanwhile. PROFILED 0:
 * no span is told.
 */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "program.h"

static volatile uint64_t sink;

static NOINLINE void cpu_work(unsigned rounds)
{
        for (unsigned i = 0; i < rounds; i++)
                sink = sink * 2862933555777941757ULL + 3037000493ULL;
}

int main(int argc, char **argv)
{
        struct swprof *c = connect_daemon(argv[1], argv[2]);
        bool profiled = atoi(argv[3]);
        int sleeps = atoi(argv[4]), eintr = 0, eintr_epoll = 0, ep = epoll_create1(EPOLL_CLOEXEC);
        unsigned rounds = (unsigned)atoi(argv[5]) * 400000;
        struct rusage before, after;
        struct swprof_span span;
        struct epoll_event event;

        if (profiled) {
                wait_watched(c, "/busy");
                start_span(c, &span, "/busy");
        }
        getrusage(RUSAGE_THREAD, &before);
        for (int i = 0; i < sleeps; i++) {
                struct timespec t = {.tv_nsec = 5000000};

                /* Each of these is cut short by a signal or a stop: signal(7). */
                eintr += nanosleep(&t, NULL) < 0 && errno == EINTR;
                eintr += poll(NULL, 0, 5) < 0 && errno == EINTR;
                eintr_epoll += epoll_wait(ep, &event, 1, 5) < 0 && errno == EINTR;
                cpu_work(rounds / (unsigned)sleeps);
        }
        getrusage(RUSAGE_THREAD, &after);
        if (profiled)
                swprof_span_stop(c, &span, 0);
        printf("{\"eintr\": %d, \"eintr_epoll\": %d, \"voluntary\": %ld, \"involuntary\": %ld, "
               "\"cpu_us\": %ld}\n",
                eintr, eintr_epoll, after.ru_nvcsw - before.ru_nvcsw,
                after.ru_nivcsw - before.ru_nivcsw,
                (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                        before.ru_stime.tv_sec) *
                                1000000L +
                        after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
                        before.ru_stime.tv_usec);
        close(ep);
        swprof_close(c);
        return 0;
}
