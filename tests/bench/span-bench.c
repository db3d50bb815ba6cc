/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the client library costs:
 *
 *   span-bench cost N          prints, N times, the ns of a span's start and stop
 *   span-bench rate P MS SPANS waits for a task for /bench; P processes start and stop so many spans
 *                              a ms each, or (0) as many as they can, for so long; prints how many
 *                              of these events were told to the daemon, and were not
 */
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "../e2e/programs/program.h"

enum {
        N_SPANS = 1000 * 1000,
        PROCESSES_MAX = 64,
};

typedef struct Told {
        uint64_t told, untold;
} Told;

static void bench_cost(struct swprof *c, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                uint64_t ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);

                for (unsigned k = 0; k < N_SPANS; k++) {
                        struct swprof_span span;

                        swprof_span_start(c, &span, NULL, "/none");
                        swprof_span_stop(c, &span, 0);
                }
                ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - ns;
                printf("%.2f\n", (double)ns / N_SPANS);
        }
}

/* `spans_per_ms` 0: as many as go. */
static void tell(struct swprof *c, unsigned ms, unsigned spans_per_ms, Told *ret)
{
        uint64_t begin = clock_ns(CLOCK_MONOTONIC), now = begin, told = 0, n = 0;

        while (now - begin < ms * 1000000ULL) {
                uint64_t due = spans_per_ms ? (now - begin) * spans_per_ms / 1000000 : n + 100;

                for (; n < due; n++) {
                        struct swprof_span span;

                        told += (uint64_t)swprof_span_start(c, &span, NULL, "/bench");
                        told += (uint64_t)swprof_span_stop(c, &span, 0);
                }
                if (spans_per_ms)
                        sleep_ms(1);
                now = clock_ns(CLOCK_MONOTONIC);
        }
        *ret = (Told){.told = told, .untold = 2 * n - told};
}

static void bench_rate(struct swprof *c, unsigned n, unsigned ms, unsigned spans_per_ms)
{
        Told *each = mmap(NULL, PROCESSES_MAX * sizeof(*each), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        Told sum = {0};

        wait_watched(c, "/bench");
        if (each == MAP_FAILED || n > PROCESSES_MAX)
                exit(1);
        for (unsigned i = 0; i < n; i++)
                if (fork() == 0) {
                        wait_watched(c, "/bench");
                        tell(c, ms, spans_per_ms, &each[i]);
                        swprof_close(c);
                        exit(0);
                }
        while (wait(NULL) > 0)
                ;
        for (unsigned i = 0; i < n; i++) {
                sum.told += each[i].told;
                sum.untold += each[i].untold;
        }
        printf("%" PRIu64 " %" PRIu64 "\n", sum.told, sum.untold);
}

int main(int argc, char **argv)
{
        struct swprof *c;

        if (argc < 3)
                return 1;
        c = connect_daemon("bench", NULL);
        if (strcmp(argv[1], "cost") == 0)
                bench_cost(c, (unsigned)atoi(argv[2]));
        else if (argc > 4)
                bench_rate(c, (unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]),
                        (unsigned)atoi(argv[4]));
        swprof_close(c);
        return 0;
}
