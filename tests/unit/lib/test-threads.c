/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "clock.h"
#include "fake-clock.h"
#include "fake-daemon.h"
#include "swprof.h"

/*
 * Threads start and stop spans while the lists change and the daemon comes and goes, as fast as it
 * can. A plain program, for it to run under the thread sanitizer too. The daemon checks that what
 * it hears makes sense: on each connection, segments that it knows, operations that were in a list.
 */

#define THREADS    8
#define ROUNDS     100 /* of the daemon */
#define LIVE_MAX   256
#define OPERATIONS 4

#ifdef __SANITIZE_THREAD__
/*
 * The sanitizer takes mmap() over the page that others read for a write. All else that is read so
 * is atomic.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
        return "race:^load$";
}
#endif

static struct swprof *client;
static _Atomic bool done;
static _Atomic unsigned n_told;

static const char *const operations[OPERATIONS] = {"/0", "/1", "/2", "/3"};

static void *work(void *arg)
{
        unsigned seed = (unsigned)(uintptr_t)arg;

        while (!done) {
                struct swprof_span span, child;

                if (swprof_span_start(client, &span, NULL, operations[rand_r(&seed) % 4]) == 1)
                        n_told++;
                if (rand_r(&seed) % 4 == 0)
                        swprof_span_rename(client, &span, operations[rand_r(&seed) % 4]);
                if (rand_r(&seed) % 4 == 0) {
                        swprof_span_continue(
                                client, &child, swprof_span_segment_id(&span), NULL, NULL);
                        swprof_span_switch(client, &child, (int)rand_r(&seed) % 2);
                        swprof_span_stop(client, &child, 0);
                }
                swprof_watched(client, "/1");
                swprof_span_stop(client, &span, 0);
        }
        return NULL;
}

/* ---- the daemon ---- */

static FakeDaemon daemon_;
static char live[LIVE_MAX][40];
static unsigned n_live, n_starts, n_stops;

static void fail(const char *what, const char *line)
{
        fprintf(stderr, "%s: %s\n", what, line);
        exit(1);
}

static unsigned find_live(const char *segment)
{
        for (unsigned i = 0; i < n_live; i++)
                if (strcmp(live[i], segment) == 0)
                        return i;
        return n_live;
}

static void add_live(const char *segment, const char *line)
{
        /* It may be told again of one that it may have let go. */
        if (find_live(segment) < n_live)
                return;
        if (n_live == LIVE_MAX)
                fail("too many live segments", line);
        strcpy(live[n_live++], segment);
        n_starts++;
}

static void check_line(const char *line)
{
        char a[40], b[40], c[40];

        if (strncmp(line, "hello", 5) == 0) {
                if (n_live > 0)
                        fail("second hello", line);
        } else if (sscanf(line, "start %39s %39s", a, b) == 2) {
                if (b[0] != '/' || b[1] < '0' || b[1] > '2')
                        fail("never watched", line);
                add_live(a, line);
        } else if (sscanf(line, "continue %39s %39s", a, b) == 2) {
                if (find_live(a) == n_live)
                        fail("unknown parent", line);
                add_live(b, line);
        } else if (sscanf(line, "stop %39s", a) == 1) {
                unsigned i = find_live(a);

                if (i == n_live)
                        fail("unknown segment", line);
                memcpy(live[i], live[--n_live], sizeof(live[i]));
                n_stops++;
        } else if (sscanf(line, "rename %39s %39s", a, c) == 2 ||
                   sscanf(line, "switch %39s", a) == 1) {
                if (find_live(a) == n_live)
                        fail("unknown segment", line);
        } else {
                fail("what is this", line);
        }
}

static void check(void)
{
        char *rest = NULL, *text = (char *)fake_take(&daemon_);

        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
                check_line(line);
}

static void wait_readable(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        poll(&p, 1, 20);
}

static void daemon_round(unsigned round)
{
        if (!fake_accept(&daemon_))
                return;
        n_live = 0;
        fake_welcome(&daemon_);
        for (unsigned i = 0; i < 20; i++) {
                wait_readable(daemon_.fd);
                check();
                if (i % 4 == 0)
                        FAKE_WATCH(&daemon_);
                else if (i % 2 == 0)
                        FAKE_WATCH(&daemon_, "/0", "/1");
                else
                        FAKE_WATCH(&daemon_, "/2");
        }
        fake_hang_up(&daemon_, round % 2);
        if (round % 3 == 0) {
                fake_unlisten(&daemon_);
                fake_listen(&daemon_);
        }
}

int main(void)
{
        struct swprof_options options = {.size = sizeof(options), .service = "threads"};
        pthread_t threads[THREADS];

        fake_daemon_init(&daemon_);
        options.socket_path = daemon_.path;
        fake_tick_ns = NS_PER_MS;
        if (swprof_open(&client, &options) < 0)
                return 1;
        for (unsigned i = 0; i < THREADS; i++)
                if (pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) != 0)
                        return 1;
        for (unsigned i = 0; i < ROUNDS; i++) {
                wait_readable(daemon_.listener);
                daemon_round(i);
        }
        done = true;
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        swprof_close(client);
        fake_daemon_deinit(&daemon_);
        printf("%u starts told, %u heard of, %u stops\n", n_told, n_starts, n_stops);
        return n_starts == 0 || n_stops == 0;
}
