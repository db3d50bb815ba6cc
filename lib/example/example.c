/* SPDX-License-Identifier: Apache-2.0 */
/* A server of one request: "swprof-example SERVICE OPERATION MILLISECONDS". */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <swprof.h>

static void work(long ms)
{
        struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

        nanosleep(&t, NULL);
}

static void serve(struct swprof *client, const char *operation, long ms)
{
        struct swprof_span span;

        swprof_span_start(client, &span, NULL, operation);
        work(ms);
        swprof_span_stop(client, &span, 0);
}

int main(int argc, char **argv)
{
        struct swprof_options options = {.size = sizeof(options)};
        struct swprof *client = NULL;

        if (argc != 4) {
                fputs("Usage: swprof-example SERVICE OPERATION MILLISECONDS\n", stderr);
                return 2;
        }
        options.service = argv[1];
        /* If it fails, the client stays NULL: requests are served, and not profiled. */
        swprof_open(&client, &options);
        serve(client, argv[2], atol(argv[3]));
        swprof_close(client);
        return 0;
}
