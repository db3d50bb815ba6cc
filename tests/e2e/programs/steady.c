/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steady SERVICE INSTANCE OPERATION N: N threads open a span each once its operation is watched, and
 * sleep in it until the input ends. Says the ids of the segments. All the while the main thread
 * answers requests of no length, whose words tell that a daemon has gone.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "program.h"

static struct swprof *client;
static const char *operation;
static atomic_bool done;

static NOINLINE void wait_for_end(void)
{
        while (!done)
                sleep_ms(20);
        NO_TAIL_CALL();
}

static void *request(void *arg)
{
        struct swprof_span span;

        start_span(client, &span, operation);
        flockfile(stdout);
        printf("{\"segment\": \"%s\", \"start\": %.3f}\n", swprof_span_segment_id(&span),
                now_wall_ms());
        fflush(stdout);
        funlockfile(stdout);
        wait_for_end();
        swprof_span_stop(client, &span, 0);
        return NULL;
}

int main(int argc, char **argv)
{
        int n = atoi(argv[4]);
        pthread_t *threads = calloc((size_t)n, sizeof(*threads));
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

        operation = argv[3];
        client = connect_daemon(argv[1], argv[2]);
        wait_watched(client, operation);
        for (int i = 0; i < n; i++)
                pthread_create(&threads[i], NULL, request, NULL);
        while (poll(&input, 1, 20) == 0) {
                struct swprof_span span;

                swprof_span_start(client, &span, NULL, operation);
                swprof_span_stop(client, &span, 0);
        }
        done = true;
        for (int i = 0; i < n; i++)
                pthread_join(threads[i], NULL);
        free(threads);
        swprof_close(client);
        return 0;
}
