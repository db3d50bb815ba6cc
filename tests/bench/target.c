/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is profiled in the benchmarks, as service "bench":
 *
 *   target sleep N            N threads sleep in a request each until stdin ends
 *   target wait N             the same without requests
 *   target cpu|syscall        carries out the lines of stdin, on one thread:
 *                               +   from now on it is in a request (one for all)
 *                               -   from now on it is not
 *                               N   N rounds of work; prints their times as JSON
 *   target gaps               the same, but N ms of looking at the clock: prints for how much of them it could not
 *
 * The thread's time in want of a CPU is told too: others' load is in that, stops by tracers are not.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/resource.h>

#include "../e2e/programs/program.h"

static struct swprof *client;
static volatile uint64_t sink;

static NOINLINE void cpu_round(void)
{
        uint64_t x = sink;

        for (unsigned i = 0; i < 10000; i++)
                x = x * 2862933555777941757ULL + 3037000493ULL;
        sink = x;
}

static NOINLINE void syscall_round(void)
{
        static int fd = -1;
        char bytes[64];

        if (fd < 0)
                fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        for (unsigned i = 0; i < 50; i++) {
                sink += (uint64_t)syscall(SYS_getppid);
                sink += (uint64_t)read(fd, bytes, sizeof(bytes));
        }
}

/* Time that the thread was kept waiting for a CPU. */
static uint64_t queued_ns(void)
{
        uint64_t run, queued = 0;
        FILE *f = fopen("/proc/thread-self/schedstat", "re");

        if (!f || fscanf(f, "%" SCNu64 " %" SCNu64, &run, &queued) != 2)
                exit(1);
        fclose(f);
        return queued;
}

static void work(bool cpu, unsigned n)
{
        uint64_t queued = queued_ns(), cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID),
                 mono = clock_ns(CLOCK_MONOTONIC);

        for (unsigned i = 0; i < n; i++)
                cpu ? cpu_round() : syscall_round();
        mono = clock_ns(CLOCK_MONOTONIC) - mono;
        cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
        printf("{\"wall_ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 ", \"queued_ns\": %" PRIu64 "}\n",
                mono, cpu_ns, queued_ns() - queued);
}

static long n_turns(void)
{
        struct rusage r;

        getrusage(RUSAGE_THREAD, &r);
        return r.ru_nvcsw + r.ru_nivcsw;
}

/* What keeps it from looking at the clock for that long is an interrupt, or others' turn on the CPU. */
#define GAP_MIN_NS 1000

static void watch_clock(unsigned ms)
{
        uint64_t begin = clock_ns(CLOCK_MONOTONIC), now = begin, taken_ns = 0, others_ns = 0;
        long turn = n_turns();

        while (now < begin + ms * UINT64_C(1000000)) {
                uint64_t next = clock_ns(CLOCK_MONOTONIC), gap = next - now;
                long t;

                now = next;
                if (gap < GAP_MIN_NS)
                        continue;
                t = n_turns();
                if (t == turn)
                        taken_ns += gap;
                else
                        others_ns += gap;
                turn = t;
                now = clock_ns(CLOCK_MONOTONIC);
        }
        printf("{\"taken_ns\": %" PRIu64 ", \"own_ns\": %" PRIu64 "}\n", taken_ns,
                now - begin - others_ns);
}

static void carry_out_lines(const char *mode)
{
        bool cpu = strcmp(mode, "cpu") == 0, gaps = strcmp(mode, "gaps") == 0;
        struct swprof_span span;
        bool started = false;
        char line[64];

        while (fgets(line, sizeof(line), stdin)) {
                if (*line == '+' && !started) {
                        wait_watched(client, "/bench");
                        start_span(client, &span, "/bench");
                        started = true;
                } else if (*line == '+' || *line == '-') {
                        swprof_span_switch(client, &span, *line == '+');
                } else if (gaps) {
                        watch_clock((unsigned)atoi(line));
                } else {
                        work(cpu, (unsigned)atoi(line));
                }
                if (*line == '+' || *line == '-')
                        puts("{}");
        }
        if (started)
                swprof_span_stop(client, &span, 0);
}

static void *sleep_in_span(void *stop)
{
        struct swprof_span span;

        swprof_span_start(client, &span, NULL, "/bench");
        pthread_mutex_lock(stop);
        pthread_mutex_unlock(stop);
        swprof_span_stop(client, &span, 0);
        return NULL;
}

static void *sleep_out_of_span(void *stop)
{
        pthread_mutex_lock(stop);
        pthread_mutex_unlock(stop);
        return NULL;
}

static void run_sleepers(unsigned n, bool spans)
{
        static pthread_mutex_t stop = PTHREAD_MUTEX_INITIALIZER;
        pthread_t *threads = calloc(n + 1, sizeof(*threads));
        pthread_attr_t attr;

        if (spans)
                wait_watched(client, "/bench");
        pthread_mutex_lock(&stop);
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 64 << 10);
        for (unsigned i = 0; i < n; i++)
                if (!threads || pthread_create(&threads[i], &attr,
                                        spans ? sleep_in_span : sleep_out_of_span, &stop) != 0)
                        exit(1);
        puts("{}");
        while (getchar() != EOF)
                ;
        pthread_mutex_unlock(&stop);
        for (unsigned i = 0; i < n; i++)
                pthread_join(threads[i], NULL);
        free(threads);
}

int main(int argc, char **argv)
{
        if (argc < 2)
                return 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        client = connect_daemon("bench", "one");
        if (strcmp(argv[1], "sleep") == 0 || strcmp(argv[1], "wait") == 0)
                run_sleepers(argc > 2 ? (unsigned)atoi(argv[2]) : 0, argv[1][0] == 's');
        else
                carry_out_lines(argv[1]);
        swprof_close(client);
        return 0;
}
