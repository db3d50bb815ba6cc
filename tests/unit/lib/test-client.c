/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "fake-clock.h"
#include "fake-daemon.h"
#include "swprof.h"

/* The client looks at the clock that seldom while nothing is watched. */
#define LOOKS 16

static FakeDaemon daemon_;
static struct swprof *client;

static struct swprof_options default_options(void)
{
        return (struct swprof_options){
                .size = sizeof(struct swprof_options),
                .socket_path = daemon_.path,
                .service = "svc",
                .instance = "inst",
        };
}

static void setup(void)
{
        fake_daemon_init(&daemon_);
}

static void teardown(void)
{
        client = swprof_close(client);
        fake_daemon_deinit(&daemon_);
}

static void open_client(void)
{
        struct swprof_options options = default_options();

        cr_assert_eq(swprof_open(&client, &options), 1);
        cr_assert(fake_accept(&daemon_));
        fake_welcome(&daemon_);
}

/* Lets the time pass that the client waits between looks for the welcome. */
static void look(void)
{
        fake_now_ns += 10 * NS_PER_MS;
        swprof_watched(client, NULL);
}

/* A client that has the list. */
#define OPEN_WATCHING(...)                                                   \
        do {                                                                 \
                open_client();                                               \
                FAKE_WATCH(&daemon_ __VA_OPT__(, ) __VA_ARGS__);             \
                look();                                                      \
                cr_assert_str_eq(fake_take(&daemon_), "hello svc inst c\n"); \
        } while (0)

static int start(struct swprof_span *span, const char *segment, const char *operation)
{
        return swprof_span_start(client, span, segment, operation);
}

static unsigned n_descriptors(void)
{
        unsigned n = 0;

        for (int fd = 0; fd < 256; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

TestSuite(client, .init = setup, .fini = teardown, .timeout = 60);

Test(client, hello)
{
        struct swprof_options options = default_options();
        char expected[300], host[65] = "";

        options.instance = NULL;
        options.language = "c++";
        options.agent = 1;
        cr_assert_eq(swprof_open(&client, &options), 1);
        cr_assert(fake_accept(&daemon_));
        gethostname(host, sizeof(host) - 1);
        snprintf(expected, sizeof(expected), "hello svc %d@%s c++\n", (int)getpid(), host);
        cr_assert_str_eq(fake_take(&daemon_), expected);
        cr_assert_eq(daemon_.last->hello->protocol, 1);
        cr_assert(daemon_.last->hello->agent);
        cr_assert_eq(strncmp(daemon_.last->hello->client, "libswprof ", 10), 0);
        cr_assert_eq(fcntl(daemon_.fd, F_GETFD), FD_CLOEXEC);
}

Test(client, options)
{
        struct swprof_options options = default_options();
        struct {
                struct swprof_options options;
                uint64_t later;
        } newer = {default_options(), 0};
        struct swprof *untouched = (struct swprof *)&options, *c = untouched;
        char name[300];

        cr_assert_eq(swprof_open(NULL, &options), -EINVAL);
        cr_assert_eq(swprof_open(&c, NULL), -EINVAL);
        options.size = 8;
        cr_assert_eq(swprof_open(&c, &options), -EINVAL);
        options = default_options();
        options.service = NULL;
        cr_assert_eq(swprof_open(&c, &options), -EINVAL);
        options.service = "";
        cr_assert_eq(swprof_open(&c, &options), -EINVAL);
        memset(name, 'x', sizeof(name));
        name[256] = '\0';
        options.service = name;
        cr_assert_eq(swprof_open(&c, &options), -EINVAL);
        options = default_options();
        options.instance = "line\nfeed";
        cr_assert_eq(swprof_open(&c, &options), -EINVAL);
        options = default_options();
        options.socket_path = name;
        cr_assert_eq(swprof_open(&c, &options), -EINVAL);
        newer.options.size = sizeof(newer);
        newer.later = 1;
        cr_assert_eq(swprof_open(&c, &newer.options), -EINVAL);
        cr_assert_eq(c, untouched);

        newer.later = 0;
        name[255] = '\0';
        newer.options.service = newer.options.instance = newer.options.language = name;
        cr_assert_eq(swprof_open(&client, &newer.options), 1);
        cr_assert(fake_accept(&daemon_));
        fake_take(&daemon_);
        cr_assert_str_eq(daemon_.last->hello->language, name);
}

Test(client, path_of_the_environment)
{
        struct swprof_options options = default_options();

        options.socket_path = NULL;
        setenv("SWPROFD_SOCKET", daemon_.path, 1);
        cr_assert_eq(swprof_open(&client, &options), 1);
        cr_assert(fake_accept(&daemon_));
}

Test(client, no_client)
{
        struct swprof_span span;

        cr_assert_eq(swprof_span_start(NULL, &span, "s", "/a"), 0);
        cr_assert_eq(swprof_span_rename(NULL, &span, "/b"), 0);
        cr_assert_eq(swprof_span_switch(NULL, &span, 1), 0);
        cr_assert_eq(swprof_span_stop(NULL, &span, 0), 0);
        cr_assert_eq(swprof_span_continue(NULL, &span, "p", "s", NULL), 0);
        cr_assert_eq(swprof_watched(NULL, "/a"), 0);
        cr_assert_null(swprof_close(NULL));
        cr_assert_str_eq(swprof_span_segment_id(&span), "s");
        cr_assert_not_null(swprof_version());
}

Test(client, misuse)
{
        struct swprof_span span;
        char operation[1100], segment[300];

        OPEN_WATCHING("/a");
        memset(operation, 'x', sizeof(operation));
        operation[1024] = '\0';
        memset(segment, 'x', sizeof(segment));
        segment[256] = '\0';
        cr_assert_eq(swprof_span_start(client, NULL, NULL, "/a"), -EINVAL);
        cr_assert_eq(start(&span, "s", NULL), -EINVAL);
        cr_assert_eq(start(&span, "s", ""), -EINVAL);
        cr_assert_eq(start(&span, "s", operation), -EINVAL);
        cr_assert_eq(start(&span, segment, "/a"), -EINVAL);
        cr_assert_eq(start(&span, "", "/a"), -EINVAL);
        cr_assert_eq(start(&span, "\xff", "/a"), -EINVAL);
        /* It is initialised nevertheless. */
        cr_assert_eq(swprof_span_stop(client, &span, 0), 0);
        cr_assert_eq(strlen(swprof_span_segment_id(&span)), 32);
        cr_assert_eq(swprof_span_continue(client, &span, NULL, "s", NULL), -EINVAL);
        cr_assert_eq(swprof_span_continue(client, &span, "p", "s", ""), -EINVAL);
        cr_assert_eq(swprof_span_rename(client, &span, NULL), -EINVAL);
        cr_assert_eq(swprof_span_rename(client, NULL, "/a"), -EINVAL);
        cr_assert_eq(swprof_span_switch(client, NULL, 1), -EINVAL);
        cr_assert_eq(swprof_span_stop(client, NULL, 1), -EINVAL);
        cr_assert_eq(swprof_watched(client, ""), -EINVAL);
        cr_assert_null(swprof_span_segment_id(NULL));
        cr_assert_str_empty(fake_take(&daemon_));

        cr_assert_eq(start(&span, "s", "/a"), 1);
        cr_assert_eq(swprof_span_rename(client, &span, "\x1b[2J"), -EINVAL);
        cr_assert_str_eq(fake_take(&daemon_), "start s /a\n");
}

Test(client, nothing_is_sent_when_nothing_is_watched)
{
        struct swprof_span span;

        OPEN_WATCHING();
        for (unsigned i = 0; i < 1000; i++) {
                cr_assert_eq(start(&span, NULL, "/a"), 0);
                cr_assert_eq(swprof_span_rename(client, &span, "/b"), 0);
                cr_assert_eq(swprof_span_switch(client, &span, 1), 0);
                cr_assert_eq(swprof_span_stop(client, &span, 0), 0);
        }
        cr_assert_str_empty(fake_take(&daemon_));
}

Test(client, start_and_stop)
{
        struct swprof_span span, other;
        uint64_t begin = fake_now_ns;

        OPEN_WATCHING("/x", "/a");
        cr_assert_eq(swprof_watched(client, NULL), 1);
        cr_assert_eq(swprof_watched(client, "/a"), 1);
        cr_assert_eq(swprof_watched(client, "/ab"), 0);
        begin = fake_now_ns;
        cr_assert_eq(start(&other, "t", "/b"), 0);
        cr_assert_eq(start(&span, "s", "/a"), 1);
        fake_now_ns += 5;
        cr_assert_str_eq(fake_take(&daemon_), "start s /a\n");
        cr_assert_eq(daemon_.last->start->start_mono_ns, begin);
        cr_assert_eq(daemon_.last->start->tid, syscall(SYS_gettid));
        cr_assert_eq(swprof_span_stop(client, &other, 0), 0);
        cr_assert_eq(swprof_span_stop(client, &span, 7), 1);
        cr_assert_str_eq(fake_take(&daemon_), "stop s\n");
        cr_assert_eq(daemon_.last->stop->stop_mono_ns, begin + 5);
        cr_assert(daemon_.last->stop->error);
        cr_assert_eq(swprof_span_stop(client, &span, 0), 0);
        cr_assert_str_empty(fake_take(&daemon_));
}

Test(client, errno_is_kept)
{
        struct swprof_span span;

        OPEN_WATCHING("/a");
        fake_hang_up(&daemon_, false);
        errno = EXDEV;
        cr_assert_eq(start(&span, NULL, "/a"), 0);
        cr_assert_eq(errno, EXDEV);
        fake_unlisten(&daemon_);
        errno = EXDEV;
        fake_now_ns += NS_PER_S;
        cr_assert_eq(start(&span, NULL, "/a"), 0);
        client = swprof_close(client);
        cr_assert_eq(errno, EXDEV);
}

Test(client, segment_ids_are_made)
{
        struct swprof_span a, b;
        char first[33];

        OPEN_WATCHING("/a");
        cr_assert_eq(start(&a, NULL, "/a"), 1);
        cr_assert_eq(start(&b, NULL, "/b"), 0);
        fake_take(&daemon_);
        strcpy(first, swprof_span_segment_id(&a));
        cr_assert_eq(strspn(first, "0123456789abcdef"), 32);
        cr_assert_str_eq(daemon_.last->start->segment, first);
        cr_assert_eq(strlen(swprof_span_segment_id(&b)), 32);
        cr_assert_str_neq(swprof_span_segment_id(&b), first);
        cr_assert_str_eq(swprof_span_segment_id(&a), first);
}

Test(client, longest_texts)
{
        struct swprof_span span, child;
        char operation[1024], segment[256], other[256];

        memset(operation, 'o', sizeof(operation) - 1);
        memset(segment, 's', sizeof(segment) - 1);
        memset(other, 'p', sizeof(other) - 1);
        operation[1023] = segment[255] = other[255] = '\0';
        OPEN_WATCHING(operation);
        cr_assert_eq(start(&span, segment, operation), 1);
        fake_take(&daemon_);
        cr_assert_str_eq(daemon_.last->start->operation, operation);
        cr_assert_str_eq(daemon_.last->start->segment, segment);
        cr_assert_eq(swprof_span_continue(client, &child, segment, other, operation), 1);
        fake_take(&daemon_);
        cr_assert_str_eq(daemon_.last->continued->operation, operation);
        cr_assert_str_eq(daemon_.last->continued->parent, segment);
        cr_assert_str_eq(daemon_.last->continued->segment, other);
}

Test(client, rename_to_a_watched_name_has_the_true_start)
{
        struct swprof_span span;
        uint64_t begin;

        OPEN_WATCHING("/a");
        begin = fake_now_ns;
        cr_assert_eq(start(&span, "s", "/b"), 0);
        fake_now_ns += NS_PER_S;
        cr_assert_eq(swprof_span_rename(client, &span, "/c"), 0);
        cr_assert_eq(swprof_span_rename(client, &span, "/a"), 1);
        cr_assert_str_eq(fake_take(&daemon_), "start s /a\n");
        cr_assert_eq(daemon_.last->start->start_mono_ns, begin);
}

Test(client, rename_when_nothing_was_watched_at_the_start)
{
        struct swprof_span span;

        OPEN_WATCHING();
        cr_assert_eq(start(&span, "s", "/b"), 0);
        FAKE_WATCH(&daemon_, "/a");
        fake_now_ns += NS_PER_S;
        cr_assert_eq(swprof_span_rename(client, &span, "/a"), 1);
        cr_assert_str_eq(fake_take(&daemon_), "start s /a\n");
        cr_assert_eq(daemon_.last->start->start_mono_ns, fake_now_ns);
}

Test(client, rename_of_an_announced_span)
{
        struct swprof_span span;

        OPEN_WATCHING("/a", "/b");
        cr_assert_eq(start(&span, "s", "/a"), 1);
        cr_assert_eq(swprof_span_rename(client, &span, "/b"), 1);
        cr_assert_str_eq(fake_take(&daemon_), "start s /a\nrename s /b\n");
        /* The daemon may let it go now, and must hear the whole story then. */
        cr_assert_eq(swprof_span_rename(client, &span, "/c"), 1);
        cr_assert_str_eq(fake_take(&daemon_), "rename s /c\n");
        cr_assert_eq(swprof_span_rename(client, &span, "/a"), 1);
        cr_assert_str_eq(fake_take(&daemon_), "rename s /a\nstart s /a\n");
        cr_assert_eq(swprof_span_stop(client, &span, 0), 1);
        cr_assert_str_eq(fake_take(&daemon_), "stop s\n");
}

static void *continue_in_thread(void *arg)
{
        struct swprof_span span;
        int *r = arg;

        r[0] = swprof_span_continue(client, &span, "s", "t", NULL);
        r[1] = swprof_span_switch(client, &span, 0);
        r[2] = swprof_span_switch(client, &span, 1);
        r[3] = (int)syscall(SYS_gettid);
        return NULL;
}

Test(client, continue_and_switch)
{
        struct swprof_span span, child;
        pthread_t thread;
        int r[4];

        OPEN_WATCHING("/a");
        cr_assert_eq(swprof_span_continue(client, &child, "unknown", "t", "/a"), 0);
        cr_assert_eq(start(&span, "s", "/a"), 1);
        fake_take(&daemon_);
        cr_assert_eq(pthread_create(&thread, NULL, continue_in_thread, r), 0);
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert_eq(r[0], 1);
        cr_assert_eq(r[1], 1);
        cr_assert_eq(r[2], 1);
        cr_assert_str_eq(fake_take(&daemon_), "continue s t \nswitch t\nswitch t\n");
        cr_assert_eq(daemon_.last->switched->tid, r[3]);
        cr_assert_eq(swprof_span_switch(client, &span, 0), 1);
        fake_take(&daemon_);
        cr_assert_eq(daemon_.last->switched->tid, 0);
        cr_assert_eq(daemon_.last->switched->at_mono_ns, fake_now_ns);
}

Test(client, trace_details)
{
        char sw8[SWPROF_SW8_MAX + 2];
        struct swprof_span span;

        memset(sw8, 'x', sizeof(sw8));
        sw8[SWPROF_SW8_MAX + 1] = '\0';
        OPEN_WATCHING("/a");
        cr_assert_eq(start(&span, "s", "/b"), 0);
        cr_assert_eq(swprof_span_parent(client, &span, "1-a"), 0, "nobody was told of it");
        cr_assert_eq(start(&span, "s", "/a"), 1);
        fake_take(&daemon_);
        cr_assert_eq(swprof_span_parent(client, &span, "1-a"), 1);
        cr_assert_eq(swprof_span_tag(client, &span, "k", "v w"), 1);
        cr_assert_eq(swprof_span_tag(client, &span, "k", ""), 1);
        cr_assert_str_eq(fake_take(&daemon_), "parent s 1-a\ntag s k 'v w'\ntag s k ''\n");
        cr_assert_eq(swprof_span_parent(client, &span, sw8), -EINVAL);
        sw8[SWPROF_SW8_MAX] = '\0';
        cr_assert_eq(swprof_span_parent(client, &span, sw8), 1);
        fake_take(&daemon_);
        cr_assert_str_eq(daemon_.last->parent->sw8, sw8);
        cr_assert_eq(swprof_span_parent(client, &span, ""), -EINVAL);
        cr_assert_eq(swprof_span_parent(client, NULL, "1-a"), -EINVAL);
        cr_assert_eq(swprof_span_tag(client, &span, "", "v"), -EINVAL);
        cr_assert_eq(swprof_span_tag(client, &span, "k", NULL), -EINVAL);
        cr_assert_eq(swprof_span_tag(client, &span, "k\n", "v"), -EINVAL);
        cr_assert_eq(swprof_span_stop(client, &span, 0), 1);
        cr_assert_eq(swprof_span_tag(client, &span, "k", "v"), 0);
        cr_assert_eq(swprof_span_tag(NULL, &span, "k", "v"), 0);
        cr_assert_str_eq(fake_take(&daemon_), "stop s\n");
}

Test(client, list_changes_while_it_runs)
{
        struct swprof_span span;

        OPEN_WATCHING();
        cr_assert_eq(swprof_watched(client, "/a"), 0);
        FAKE_WATCH(&daemon_, "/a");
        cr_assert_eq(swprof_watched(client, "/a"), 1);
        FAKE_WATCH(&daemon_, "/a");
        FAKE_WATCH(&daemon_, "/b");
        cr_assert_eq(swprof_watched(client, "/a"), 0);
        cr_assert_eq(swprof_watched(client, "/b"), 1);
        cr_assert_eq(start(&span, "s", "/b"), 1);
        FAKE_WATCH(&daemon_);
        cr_assert_eq(swprof_watched(client, NULL), 0);
        cr_assert_eq(swprof_span_stop(client, &span, 0), 1);
        cr_assert_str_eq(fake_take(&daemon_), "start s /b\nstop s\n");
}

Test(client, list_that_is_large)
{
        enum { N = 9000 };
        static char names[N][8];
        static const char *operations[N + 1];

        open_client();
        for (unsigned i = 0; i < N; i++) {
                snprintf(names[i], sizeof(names[i]), "%u", i);
                operations[i] = names[i];
        }
        fake_watch(&daemon_, operations);
        look();
        for (unsigned i = 0; i < N; i += 7)
                cr_assert_eq(swprof_watched(client, names[i]), 1);
        cr_assert_eq(swprof_watched(client, "9000"), 0);
        /* More than a look reads. */
        for (unsigned i = 0; i < 100; i++)
                FAKE_WATCH(&daemon_, "/before");
        FAKE_WATCH(&daemon_, "/a");
        for (unsigned i = 0; i < 8; i++)
                swprof_watched(client, NULL);
        cr_assert_eq(swprof_watched(client, "/a"), 1);
        cr_assert_eq(swprof_watched(client, "/before"), 0);
}

/* ---- the daemon comes and goes ---- */

Test(client, daemon_that_comes_late)
{
        struct swprof_options options = default_options();
        struct swprof_span span;

        fake_unlisten(&daemon_);
        cr_assert_eq(swprof_open(&client, &options), 0);
        cr_assert_eq(start(&span, "s", "/a"), 0);
        fake_listen(&daemon_);
        cr_assert_eq(start(&span, "s", "/a"), 0);
        cr_assert_not(fake_accept(&daemon_));
        fake_now_ns += NS_PER_S;
        cr_assert_eq(start(&span, "s", "/a"), 0);
        cr_assert(fake_accept(&daemon_));
        cr_assert_str_eq(fake_take(&daemon_), "hello svc inst c\n");
}

Test(client, tries_get_rarer)
{
        struct swprof_options options = default_options();
        const unsigned waits_s[] = {1, 2, 4, 8, 16, 32, 60, 60};

        fake_unlisten(&daemon_);
        cr_assert_eq(swprof_open(&client, &options), 0);
        for (unsigned i = 0; i < sizeof(waits_s) / sizeof(waits_s[0]); i++) {
                fake_listen(&daemon_);
                fake_now_ns += waits_s[i] * NS_PER_S - 1;
                swprof_watched(client, NULL);
                cr_assert_not(fake_accept(&daemon_), "before %u s", waits_s[i]);
                fake_unlisten(&daemon_);
                fake_now_ns += 1;
                swprof_watched(client, NULL);
        }
}

static void restart(bool orderly)
{
        struct swprof_span a, b, child, renamed;
        uint64_t begin;

        OPEN_WATCHING("/a", "/b");
        begin = fake_now_ns;
        cr_assert_eq(start(&a, "a", "/a"), 1);
        cr_assert_eq(swprof_span_continue(client, &child, "a", "child", NULL), 1);
        cr_assert_eq(start(&b, "b", "/b"), 1);
        cr_assert_eq(start(&renamed, "r", "/b"), 1);
        cr_assert_eq(swprof_span_rename(client, &renamed, "/a"), 1);
        cr_assert_eq(swprof_span_switch(client, &a, 0), 1);
        fake_take(&daemon_);
        fake_hang_up(&daemon_, orderly);

        /* Told of now by nobody's list, or by the send that fails. */
        cr_assert_eq(swprof_span_switch(client, &b, 1), 0);
        fake_now_ns += NS_PER_S;
        cr_assert_eq(swprof_watched(client, NULL), 0);
        cr_assert(fake_accept(&daemon_));
        fake_welcome(&daemon_);
        FAKE_WATCH(&daemon_);
        look();
        cr_assert_str_eq(fake_take(&daemon_), "hello svc inst c\n");
        /* The new daemon learns of the tasks later. */
        FAKE_WATCH(&daemon_, "/a");
        look();
        cr_assert_str_eq(fake_take(&daemon_), "start a /a\ncontinue a child \nstart r /a\n");
        cr_assert_eq(daemon_.last->start->start_mono_ns, begin);
        cr_assert_eq(swprof_span_stop(client, &b, 0), 0);
        cr_assert_eq(swprof_span_stop(client, &child, 0), 1);
        cr_assert_eq(swprof_span_stop(client, &a, 0), 1);
        cr_assert_str_eq(fake_take(&daemon_), "stop child\nstop a\n");

        /* It worked: the next time is a first time. */
        fake_hang_up(&daemon_, true);
        swprof_watched(client, NULL);
        fake_now_ns += NS_PER_S;
        swprof_watched(client, NULL);
        cr_assert(fake_accept(&daemon_));
}

Test(client, daemon_restarts)
{
        restart(true);
}

Test(client, daemon_is_killed_and_comes_back)
{
        signal(SIGPIPE, SIG_DFL);
        restart(false);
}

Test(client, killed_daemon_is_missed_when_nothing_is_watched)
{
        OPEN_WATCHING();
        fake_hang_up(&daemon_, false);
        for (unsigned i = 0; i < 2 * LOOKS; i++)
                swprof_watched(client, NULL);
        cr_assert_not(fake_accept(&daemon_));
        fake_now_ns += 10 * NS_PER_S;
        for (unsigned i = 0; i < LOOKS; i++)
                swprof_watched(client, NULL);
        fake_now_ns += NS_PER_S;
        swprof_watched(client, NULL);
        cr_assert(fake_accept(&daemon_));
}

Test(client, daemon_that_says_nothing)
{
        struct swprof_options options = default_options();

        cr_assert_eq(swprof_open(&client, &options), 1);
        cr_assert(fake_accept(&daemon_));
        fake_now_ns += 10 * NS_PER_S;
        swprof_watched(client, NULL);
        cr_assert_not(fake_accept(&daemon_));
        fake_now_ns += NS_PER_S;
        swprof_watched(client, NULL);
        fake_now_ns += NS_PER_S;
        swprof_watched(client, NULL);
        cr_assert(fake_accept(&daemon_));
}

static void require_dropped(void)
{
        char byte;

        look();
        while (recv(daemon_.fd, &byte, 1, MSG_DONTWAIT) > 0)
                ;
        cr_assert_eq(recv(daemon_.fd, &byte, 1, MSG_DONTWAIT), 0);
        cr_assert_eq(swprof_watched(client, NULL), 0);
}

static void bad_welcome(const char *bytes, size_t size, int page)
{
        struct swprof_options options = default_options();

        cr_assert_eq(swprof_open(&client, &options), 1);
        cr_assert(fake_accept(&daemon_));
        cr_assert_eq(fake_send(&daemon_, bytes, size, page), 0);
        if (page >= 0)
                close(page);
        require_dropped();
}

Test(client, welcome_without_page)
{
        bad_welcome("\x0a\x02\x08\x01", 4, -1);
}

Test(client, welcome_with_a_page_that_can_shrink)
{
        bad_welcome("\x0a\x02\x08\x01", 4, fake_make_page(1, F_SEAL_GROW));
}

Test(client, welcome_with_a_page_that_is_short)
{
        int fd = memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        cr_assert_eq(ftruncate(fd, 100), 0);
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
        bad_welcome("\x0a\x02\x08\x01", 4, fd);
}

Test(client, welcome_of_another_protocol)
{
        bad_welcome("\x0a\x02\x08\x02", 4, fake_make_page(1, F_SEAL_SHRINK));
}

Test(client, malformed_packet)
{
        bad_welcome("\x0a\x7f", 2, fake_make_page(1, F_SEAL_SHRINK));
}

Test(client, error_of_the_daemon)
{
        bad_welcome("\x12\x04\x0a\x02no", 6, -1);
}

Test(client, list_before_the_welcome)
{
        bad_welcome("\x1a\x04\x12\x02/a", 6, -1);
}

/* A later version may say more. */
Test(client, unknown_packets_and_fields)
{
        open_client();
        cr_assert_eq(fake_send(&daemon_, "\x22\x01x", 3, daemon_.page_fd), 0);
        cr_assert_eq(
                fake_send(&daemon_, "\x1a\x0b\x12\x02/a\x1d\x01\x02\x03\x04\x38\x05", 13, -1), 0);
        look();
        cr_assert_eq(swprof_watched(client, "/a"), 1);
}

/* Names that no span can have are no names. */
Test(client, operations_of_the_list_are_checked)
{
        open_client();
        FAKE_WATCH(&daemon_, "", "\x1b[2J", "/a");
        look();
        cr_assert_eq(swprof_watched(client, "/a"), 1);
        cr_assert_eq(swprof_watched(client, "\x1b[2J"), 0);
}

/* ---- a daemon that does not read ---- */

static unsigned fill_socket(void)
{
        struct swprof_span span;
        unsigned n = 0;

        while (start(&span, NULL, "/a") == 1)
                cr_assert_lt(n++, 10000);
        return n;
}

Test(client, lost_start)
{
        struct swprof_span span;

        OPEN_WATCHING("/a");
        fill_socket();
        cr_assert_eq(start(&span, "lost", "/a"), 0);
        fake_take(&daemon_);
        cr_assert_eq(swprof_span_stop(client, &span, 0), 0);
        cr_assert_str_empty(fake_take(&daemon_));
        cr_assert_eq(swprof_watched(client, "/a"), 1);
}

/* A start that is lost costs a profile, a stop that is lost a wrong one: there is room left for it. */
Test(client, stop_after_lost_starts)
{
        static struct swprof_span spans[100];
        struct swprof_span span;

        OPEN_WATCHING("/a");
        for (unsigned i = 0; i < 100; i++)
                cr_assert_eq(start(&spans[i], NULL, "/a"), 1);
        fill_socket();
        for (unsigned i = 0; i < 100; i++)
                cr_assert_eq(swprof_span_stop(client, &spans[i], 0), 1);
        cr_assert_eq(start(&span, NULL, "/a"), 0);
        cr_assert_eq(swprof_watched(client, "/a"), 1);
}

Test(client, lost_stop)
{
        static struct swprof_span spans[1000];
        unsigned n = 0;

        OPEN_WATCHING("/a");
        for (unsigned i = 0; i < 1000; i++) {
                cr_assert_eq(start(&spans[i], i ? NULL : "s", "/a"), 1);
                fake_take(&daemon_);
        }
        fill_socket();
        while (swprof_span_stop(client, &spans[999 - n], 0) == 1)
                cr_assert_lt(++n, 999);
        require_dropped();
        cr_assert_eq(swprof_span_stop(client, &spans[0], 0), 0);
        fake_now_ns += NS_PER_S;
        swprof_watched(client, NULL);
        cr_assert(fake_accept(&daemon_));
        fake_welcome(&daemon_);
        FAKE_WATCH(&daemon_, "/a");
        look();
        cr_assert_null(strstr(fake_take(&daemon_), "start s "));
}

Test(client, spans_that_are_never_stopped)
{
        struct swprof_span span;
        unsigned n = 0;

        OPEN_WATCHING("/a");
        for (unsigned i = 0; i < 5000; i++) {
                n += (unsigned)start(&span, "s", "/a");
                fake_take(&daemon_);
        }
        cr_assert_eq(n, 4096);
        cr_assert_eq(swprof_span_stop(client, &span, 0), 0);
}

/* ---- close, fork, descriptors ---- */

/* A child that never uses the client holds a copy of the socket: the end must be seen all the same. */
Test(client, close_while_a_child_lives)
{
        pid_t child;
        ssize_t n;
        char byte;

        open_client();
        child = fork();
        if (child == 0) {
                alarm(5);
                pause();
                _exit(0);
        }
        fake_take(&daemon_);
        client = swprof_close(client);
        n = recv(daemon_.fd, &byte, 1, MSG_DONTWAIT);
        cr_assert_eq(kill(child, SIGKILL), 0);
        cr_assert_eq(waitpid(child, NULL, 0), child);
        cr_assert_eq(n, 0);
}

Test(client, close_with_live_spans)
{
        struct swprof_options options = default_options();
        struct swprof_span span;
        unsigned before = n_descriptors();
        char byte;

        OPEN_WATCHING("/a");
        cr_assert_eq(start(&span, "s", "/a"), 1);
        client = swprof_close(client);
        fake_take(&daemon_);
        cr_assert_eq(recv(daemon_.fd, &byte, 1, MSG_DONTWAIT), 0);
        cr_assert_eq(swprof_span_stop(client, &span, 0), 0);
        fake_hang_up(&daemon_, false);
        cr_assert_eq(n_descriptors(), before);

        /* A span of before means nothing to another client. */
        cr_assert_eq(start(&span, "s", "/a"), 0);
        OPEN_WATCHING("/a");
        cr_assert_eq(start(&span, "s", "/a"), 1);
        swprof_close(client);
        cr_assert_eq(swprof_open(&client, &options), 1);
        cr_assert_eq(swprof_span_stop(client, &span, 0), 0);
}

static void in_child(struct swprof_span *inherited)
{
        struct swprof_span span;

        if (swprof_span_stop(client, inherited, 0) != 0 || start(&span, "child", "/a") != 0)
                _exit(1);
        /* Accepted by the child itself: it has the listener, too. */
        daemon_.fd = daemon_.page_fd = -1;
        daemon_.word = NULL;
        if (!fake_accept(&daemon_))
                _exit(2);
        fake_welcome(&daemon_);
        FAKE_WATCH(&daemon_, "/a");
        look();
        if (start(&span, "child", "/a") != 1 || swprof_span_stop(client, &span, 0) != 1)
                _exit(3);
        if (strcmp(fake_take(&daemon_), "hello svc inst c\nstart child /a\nstop child\n") != 0)
                _exit(4);
        swprof_close(client);
        _exit(0);
}

Test(client, child_has_a_connection_of_its_own)
{
        struct swprof_span span;
        int status;
        pid_t pid;

        OPEN_WATCHING("/a");
        cr_assert_eq(start(&span, "s", "/a"), 1);
        fake_take(&daemon_);
        pid = fork();
        if (pid == 0)
                in_child(&span);
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert_eq(status, 0, "child: %d", WEXITSTATUS(status));
        cr_assert_str_empty(fake_take(&daemon_));
        cr_assert_eq(swprof_span_stop(client, &span, 0), 1);
        cr_assert_str_eq(fake_take(&daemon_), "stop s\n");
}

/* A child of a multi-threaded process gets the mutex as it was. */
static void *hammer(void *arg)
{
        _Atomic bool *done = arg;

        while (!*done) {
                struct swprof_span span;

                start(&span, NULL, "/a");
                swprof_span_stop(client, &span, 0);
        }
        return NULL;
}

Test(client, fork_while_threads_are_at_work)
{
        _Atomic bool done = false;
        pthread_t threads[3];
        int status;

        OPEN_WATCHING("/a");
        for (unsigned i = 0; i < 3; i++)
                cr_assert_eq(pthread_create(&threads[i], NULL, hammer, &done), 0);
        for (unsigned i = 0; i < 50; i++) {
                pid_t pid = fork();

                if (pid == 0) {
                        struct swprof_span span;

                        start(&span, NULL, "/a");
                        swprof_span_stop(client, &span, 0);
                        _exit(swprof_watched(client, "/a") == 0 ? 0 : 1);
                }
                cr_assert_eq(waitpid(pid, &status, 0), pid);
                cr_assert_eq(status, 0);
        }
        done = true;
        for (unsigned i = 0; i < 3; i++)
                pthread_join(threads[i], NULL);
}

/* The page says so before the socket does. */
Test(client, daemon_closes_the_page)
{
        OPEN_WATCHING("/a");
        *daemon_.word = UINT64_MAX;
        cr_assert_eq(swprof_watched(client, NULL), 0);
        require_dropped();
}

/* A program that becomes a daemon closes what it does not know. */
Test(client, descriptor_that_somebody_else_has_now)
{
        struct swprof_span span;
        int fd, other[2];
        char byte;

        OPEN_WATCHING("/a");
        cr_assert_eq(start(&span, "s", "/a"), 1);
        for (fd = 3; fd < 256; fd++) {
                struct sockaddr_un peer = {0};
                socklen_t size = sizeof(peer);

                if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
                        strcmp(peer.sun_path, daemon_.path) == 0)
                        break;
        }
        cr_assert_lt(fd, 256);
        cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
        cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, other), 0);
        cr_assert_eq(dup2(other[0], fd), fd);
        close(other[0]);
        cr_assert_eq(swprof_span_stop(client, &span, 0), 0);
        client = swprof_close(client);
        /* Neither was anything sent there, nor is it closed. */
        cr_assert_eq(recv(other[1], &byte, 1, MSG_DONTWAIT), -1);
        cr_assert_eq(errno, EAGAIN);
}
