/* SPDX-License-Identifier: Apache-2.0 */
/* crowd SERVICE INSTANCE FAST TIMES: FAST threads answer requests of 50 ms, one thread one of 600 ms, all on /mixed;
 * all of it takes so many times as long. */
#include <pthread.h>
#include <stdatomic.h>

#include "program.h"

static struct swprof *client;
static atomic_bool done;
static unsigned times;

static NOINLINE void fast_request(void)
{
        sleep_ms(50 * times);
        NO_TAIL_CALL();
}

static void *fast(void *arg)
{
        while (!done) {
                struct swprof_span span;

                start_span(client, &span, "/mixed");
                fast_request();
                swprof_span_stop(client, &span, 0);
        }
        return NULL;
}

static NOINLINE void slow_first(void)
{
        sleep_ms(100 * times);
        NO_TAIL_CALL();
}

static NOINLINE void slow_rest(void)
{
        sleep_ms(500 * times);
        NO_TAIL_CALL();
}

int main(int argc, char **argv)
{
        int n = atoi(argv[3]);
        pthread_t *threads = calloc((size_t)n, sizeof(*threads));
        struct swprof_span span;
        double start;

        times = (unsigned)atoi(argv[4]);
        client = connect_daemon(argv[1], argv[2]);
        wait_watched(client, "/mixed");
        for (int i = 0; i < n; i++)
                pthread_create(&threads[i], NULL, fast, NULL);
        sleep_ms(200 * times);
        start = now_wall_ms();
        start_span(client, &span, "/mixed");
        slow_first();
        slow_rest();
        printf("{\"segment\": \"%s\", \"start\": %.3f, ", swprof_span_segment_id(&span), start);
        swprof_span_stop(client, &span, 0);
        printf("\"stop\": %.3f}\n", now_wall_ms());
        done = true;
        for (int i = 0; i < n; i++)
                pthread_join(threads[i], NULL);
        free(threads);
        swprof_close(client);
        return 0;
}
