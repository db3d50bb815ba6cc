/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service with one endpoint, "/song", that is slow for known reasons: of the 620 ms that a
 * request takes, its handler sleeps 500, method3 60, method2 40 and method1 20. What the profiler
 * shows can be held against that.
 */
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include <swprof.h>

#define MS 1000000L

/* Not inlined, as functions of a real program's size would not be. */
#define FUNCTION __attribute__((noinline)) static

struct request {
        unsigned steps; /* written after each call, so that no call is a jump */
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
        stopped = 1;
}

static inline void sleep_ms(long ms)
{
        nanosleep(&(struct timespec){.tv_nsec = ms * MS}, NULL);
}

FUNCTION void method1(struct request *r)
{
        sleep_ms(20);
        r->steps++;
}

FUNCTION void method2(struct request *r)
{
        sleep_ms(40);
        method1(r);
        r->steps++;
}

FUNCTION void method3(struct request *r)
{
        sleep_ms(60);
        method2(r);
        r->steps++;
}

FUNCTION void handler(struct request *r)
{
        sleep_ms(500);
        method3(r);
        r->steps++;
}

FUNCTION void serve(struct swprof *client)
{
        struct request request = {0};
        struct swprof_span span;

        swprof_span_start(client, &span, NULL, "/song");
        handler(&request);
        swprof_span_stop(client, &span, request.steps != 4);
}

int main(int argc, char **argv)
{
        struct swprof_options options = {
                .size = sizeof(options),
                .service = argc > 1 ? argv[1] : "demo",
                .instance = argc > 2 ? argv[2] : NULL,
                .language = "c",
        };
        struct swprof *client;

        signal(SIGTERM, on_signal);
        signal(SIGINT, on_signal);
        if (swprof_open(&client, &options) < 0)
                return EXIT_FAILURE;
        while (!stopped)
                serve(client);
        swprof_close(client);
        return EXIT_SUCCESS;
}
