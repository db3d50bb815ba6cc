/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "manager/sampler.h"
#include "manager/worker.h"
#include "util/mailbox.h"
#include "util/time.h"

/*
 * The daemon's sampler and symbolizer threads, without the rest of it:
 *
 *   sampler-bench first           for each process whose number stdin has: the ms from the order to
 *                                 sample its main thread to its first stack, and to its names
 *   sampler-bench ticks PID MS    samples the main thread every 10 ms so long: the time of each
 *                                 capture on the monotonic clock, in µs modulo 10 ms, and, in the last
 *                                 line, how many were due and not had
 */

enum {
        PERIOD_MS = 10,
        WAIT_MS = 20000,
};

typedef struct Bench {
        Sampler *sampler;
        Worker *worker;
        TargetId last_id;
} Bench;

static bool add(Bench *b, pid_t pid)
{
        uint64_t now = mono_now_ns();
        TargetSpec spec = {
                .pid = pid, .tid = pid, .first_mono_ns = now, .period_ns = PERIOD_MS * NS_PER_MS};

        return sampler_add(b->sampler, ++b->last_id, &spec) == 0;
}

/* Return: whether there is one within WAIT_MS. */
static bool pop(Mailbox *m, void *ret)
{
        struct pollfd fd = {.fd = mailbox_fd(m), .events = POLLIN};

        return poll(&fd, 1, WAIT_MS) == 1 && mailbox_pop(m, ret) == 0;
}

static bool name(Bench *b, const SamplerEvent *stack)
{
        WorkerStack s = {.map = stack->map,
                .codes = stack->codes,
                .frames = stack->frames,
                .n_frames = stack->n_frames};

        if (worker_symbolize(b->worker, &s) != 0 || !pop(worker_stacks(b->worker), &s))
                return false;
        procmap_unref(s.map);
        cpython_codes_unref(s.codes);
        free(s.signatures);
        free(s.kinds);
        return true;
}

static void drop(const SamplerEvent *e)
{
        if (e->type == SAMPLER_STACK && !e->failed) {
                free(e->frames);
                procmap_unref(e->map);
                cpython_codes_unref(e->codes);
        }
}

static bool bench_first(Bench *b, pid_t pid)
{
        uint64_t begin_ns = mono_now_ns();
        SamplerEvent e;
        uint64_t unwound_ns;

        if (!add(b, pid))
                return false;
        for (;;) {
                if (!pop(sampler_events(b->sampler), &e) || e.type == SAMPLER_GONE)
                        return false;
                if (e.target == b->last_id && e.type == SAMPLER_STACK && !e.failed)
                        break;
                drop(&e);
        }
        unwound_ns = mono_now_ns();
        if (!name(b, &e))
                return false;
        printf("%.3f %.3f\n", (double)(unwound_ns - begin_ns) / NS_PER_MS,
                (double)(mono_now_ns() - begin_ns) / NS_PER_MS);
        sampler_remove(b->sampler, b->last_id);
        return true;
}

static bool bench_ticks(Bench *b, pid_t pid, unsigned ms)
{
        static const CounterId lost[] = {COUNTER_SAMPLES_LATE, COUNTER_SAMPLES_UNSTABLE,
                COUNTER_SAMPLES_FAULT, COUNTER_SAMPLES_DENIED, COUNTER_SAMPLES_QUEUE_FULL};
        uint64_t end_ns = mono_now_ns() + ms * NS_PER_MS, n_lost = 0;
        SamplerEvent e;

        if (!add(b, pid))
                return false;
        while (mono_now_ns() < end_ns) {
                if (!pop(sampler_events(b->sampler), &e) || e.type == SAMPLER_GONE)
                        return false;
                drop(&e);
                /* Not those of a wait's begin and end, nor repeated ones: they have other times. */
                if (e.type == SAMPLER_SAMPLE && e.times.runtime_ns && e.n == 1)
                        printf("%.1f\n", (double)(e.mono_ns % (PERIOD_MS * NS_PER_MS)) / NS_PER_US);
        }
        /* Not what was due less what was captured: one may be under way. */
        for (size_t i = 0; i < sizeof(lost) / sizeof(*lost); i++)
                n_lost += counter_get(lost[i]);
        printf("%" PRIu64 "\n", n_lost);
        return true;
}

int main(int argc, char **argv)
{
        Config config = {
                .capture_backend = CAPTURE_BACKEND_AUTO,
                .capture_max_stack_bytes = 64 << 10,
                .capture_max_targets = 64,
                .capture_realtime = true,
                .symbols_lines = true,
                .profile_max_depth = 512,
        };
        Capture *capture;
        CaptureInfo info;
        Bench b = {0};
        bool ok = true;
        char line[32];

        setvbuf(stdout, NULL, _IOLBF, 0);
        if (capture_new(&capture, &config, &info) != 0 || worker_new(&b.worker, &config) != 0 ||
                sampler_new(&b.sampler, &config, capture, b.worker) != 0) {
                fprintf(stderr, "no way to capture: %s\n", info.reason);
                return EXIT_FAILURE;
        }
        if (argc == 4 && strcmp(argv[1], "ticks") == 0)
                ok = bench_ticks(&b, atoi(argv[2]), (unsigned)atoi(argv[3]));
        else
                while (ok && fgets(line, sizeof(line), stdin))
                        ok = bench_first(&b, atoi(line));
        sampler_free(b.sampler);
        worker_free(b.worker);
        return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
