/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/counter.h"
#include "fake-core.h"
#include "fixture.h"
#include "util/time.h"

TestSuite(listener, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

Test(listener, session)
{
        int fd = client_connect(), page;
        const _Atomic uint64_t *word;
        Swprof__SpanStop stop = SWPROF__SPAN_STOP__INIT;
        Swprof__ClientPacket m = SWPROF__CLIENT_PACKET__INIT;
        uint64_t begin = mono_now_ns();

        client_hello(fd, "svc");
        settle();
        cr_assert_str_eq(fake_take(), "attach svc i 1\n");
        cr_assert_eq(n_added, 1);
        page = client_welcome(fd);
        word = mmap(NULL, 4096, PROT_READ, MAP_SHARED, page, 0);
        cr_assert_neq(word, MAP_FAILED);
        cr_assert_eq(*word, 1);

        client_start(fd, "seg", gettid(), begin);
        settle();
        cr_assert_str_eq(fake_take(), "start seg '/op' ''\n");
        cr_assert_eq(fake_start.pid, getpid());
        cr_assert_eq(fake_start.tid, gettid());
        cr_assert_eq(fake_start.start_mono_ns, begin);

        stop.segment = (char *)"seg";
        stop.error = true;
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_STOP;
        m.stop = &stop;
        client_send(fd, &m);
        settle();
        cr_assert_str_eq(fake_take(), "stop seg 1\n");
        cr_assert_geq(fake_time, begin);

        close(fd);
        settle();
        cr_assert_str_eq(fake_take(), "gone\ndetach i\n");
        cr_assert_eq(n_removed, 1);
        cr_assert_eq(*word, UINT64_MAX);
        cr_assert_eq(counter_get(COUNTER_CLIENTS_BROKEN), 0);
}

Test(listener, page_is_read_only)
{
        int fd = client_connect(), page;

        client_hello(fd, "s");
        settle();
        page = client_welcome(fd);
        cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0), MAP_FAILED);
        cr_assert_lt(write(page, "x", 1), 0);
        cr_assert_lt(ftruncate(page, 0), 0);
        cr_assert_lt(ftruncate(page, 8192), 0);
        cr_assert_lt(fallocate(page, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
        cr_assert_lt(fcntl(page, F_ADD_SEALS, F_SEAL_WRITE), 0);
}

Test(listener, all_events)
{
        int fd = client_ready();
        Swprof__SpanContinue continued = SWPROF__SPAN_CONTINUE__INIT;
        Swprof__SpanRename rename = SWPROF__SPAN_RENAME__INIT;
        Swprof__SpanSwitch switched = SWPROF__SPAN_SWITCH__INIT;
        Swprof__SpanParent parent = SWPROF__SPAN_PARENT__INIT;
        Swprof__SpanTag tag = SWPROF__SPAN_TAG__INIT;
        Swprof__ClientPacket m = SWPROF__CLIENT_PACKET__INIT;

        config.profile_max_depth = 2;
        continued.parent = (char *)"p";
        continued.segment = (char *)"c";
        continued.tid = gettid();
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_CONTINUED;
        m.continued = &continued;
        client_send(fd, &m);
        rename.segment = (char *)"s";
        rename.operation = (char *)"/new";
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_RENAME;
        m.rename = &rename;
        client_send(fd, &m);
        switched.segment = (char *)"s";
        switched.tid = gettid();
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_SWITCHED;
        m.switched = &switched;
        client_send(fd, &m);
        switched.tid = 0;
        client_send(fd, &m);
        /* Cut as other stacks are. */
        switched.stack = (char *[]){(char *)"a:1", (char *)"b:2", (char *)"c:3"};
        switched.n_stack = 2;
        client_send(fd, &m);
        switched.n_stack = 3;
        client_send(fd, &m);
        switched.n_stack = 0;
        /* A thread that is not there: the segment is on none, rather than on the one before. */
        switched.tid = 1;
        client_send(fd, &m);
        parent.segment = (char *)"s";
        parent.sw8 = (char *)"1-a";
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_PARENT;
        m.parent = &parent;
        client_send(fd, &m);
        tag.segment = (char *)"s";
        tag.key = (char *)"k";
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_TAG;
        m.tag = &tag;
        client_send(fd, &m);
        settle();
        cr_assert_str_eq(fake_take(), "continue p c '' ''\nrename s '/new'\nswitch s "
                                      "thread\nswitch s none\nswitch s none a:1 b:2\n"
                                      "switch s none a:1 b:2\nswitch s none\n"
                                      "parent s '1-a'\ntag s 'k' ''\n");
        cr_assert_eq(counter_get(COUNTER_STACKS_CUT), 1);
        cr_assert_eq(counter_get(COUNTER_EVENTS_BAD_THREAD), 1);
        cr_assert_eq(counter_get(COUNTER_EVENTS_RECEIVED), 9);
}

/* All that was sent before, not just what a peer's turn has room for; of those that matter. */
Test(listener, catch_up)
{
        int fd = client_ready(), other = client_ready();

        for (unsigned i = 0; i < 100; i++)
                client_start(fd, "seg", gettid(), mono_now_ns());
        listener_catch_up(listener);
        cr_assert_eq(counter_get(COUNTER_EVENTS_RECEIVED), 0);
        fake_n_segments = 1;
        listener_catch_up(listener);
        cr_assert_eq(counter_get(COUNTER_EVENTS_RECEIVED), 100);
        fake_take();
        /* Also its end, and its mistakes. */
        close(fd);
        cr_assert_eq(send(other, "x", 1, 0), 1);
        listener_catch_up(listener);
        cr_assert_str_eq(fake_take(), "gone\ndetach i\ngone\ndetach i\n");
        cr_assert_eq(n_removed, 2);
        client_expect_error(other, "");
        close(other);
}

Test(listener, watch)
{
        const char *two[] = {"/a", "/b"};
        int fd = client_connect(), page;
        const _Atomic uint64_t *word;
        size_t n;

        client_hello(fd, "s");
        settle();
        page = client_welcome(fd);
        word = mmap(NULL, 4096, PROT_READ, MAP_SHARED, page, 0);
        fake_watch(2, two);
        listener_watch_changed(listener, fake_instance);
        cr_assert_eq(*word, 2);
        cr_assert_eq(client_list(fd, &n), 2);
        cr_assert_eq(n, 2);
        listener_watch_changed(listener, NULL);
        cr_assert_eq(*word, 2);
        cr_assert_eq(client_list(fd, &n), 0);
}

/* A client that does not read gets the newest list as soon as it does; the word never runs ahead of
 * the socket. */
Test(listener, watch_without_room)
{
        const char *one[] = {"/a"};
        int fd = client_connect(), page;
        const _Atomic uint64_t *word;
        uint64_t generation, last = 1, sent;
        size_t n;

        client_hello(fd, "s");
        settle();
        page = client_welcome(fd);
        word = mmap(NULL, 4096, PROT_READ, MAP_SHARED, page, 0);
        for (unsigned i = 0; i < 10000; i++)
                listener_watch_changed(listener, fake_instance);
        sent = *word;
        cr_assert_lt(sent, 10001);
        settle();
        cr_assert_eq(*word, sent);
        fake_watch(1, one);
        listener_watch_changed(listener, fake_instance);
        cr_assert_eq(*word, sent);
        while ((generation = client_list(fd, &n)))
                last = generation;
        cr_assert_eq(last, sent);
        settle();
        cr_assert_eq(*word, 10002);
        cr_assert_eq(client_list(fd, &n), 10002);
        cr_assert_eq(n, 1);
}

Test(listener, watch_larger_than_a_packet)
{
        static char operation[1024];
        const char *many[100];
        int fd = client_ready();
        size_t n;

        memset(operation, 'o', 1023);
        for (size_t i = 0; i < 100; i++)
                many[i] = operation;
        fake_watch(100, many);
        listener_watch_changed(listener, fake_instance);
        cr_assert_eq(client_list(fd, &n), 2);
        cr_assert_eq(n, 63);
}

Test(listener, broken)
{
        static const char large[CLIENT_PACKET_MAX + 1];
        int other = client_ready(), fd;

        fd = client_ready();
        cr_assert_eq(send(fd, "\xff\xff", 2, 0), 2);
        client_start(fd, "unread", 0, 0);
        expect_broken(fd, "malformed");

        fd = client_ready();
        cr_assert_eq(send(fd, large, sizeof(large), 0), (ssize_t)sizeof(large));
        expect_broken(fd, "32768");

        fd = client_ready();
        client_hello(fd, "s");
        expect_broken(fd, "second hello");

        fd = client_connect();
        client_start(fd, "seg", 0, 0);
        expect_broken(fd, "before the hello");

        fd = client_ready();
        cr_assert_eq(send(fd, "", 0, 0), 0);
        expect_broken(fd, "no event");

        fake_take();
        client_start(other, "seg", 0, 0);
        settle();
        cr_assert_str_eq(fake_take(), "start seg '/op' ''\n");
        cr_assert_eq(fake_start.tid, 0);
}

Test(listener, refused)
{
        int fd = client_connect();

        client_hello(fd, "");
        settle();
        client_expect_error(fd, "service");
        cr_assert_eq(counter_get(COUNTER_CLIENTS_REFUSED), 1);
        cr_assert_eq(n_added, 0);
}

Test(listener, limit_per_uid)
{
        int fds[9];

        for (size_t i = 0; i < 9; i++)
                fds[i] = client_connect();
        settle();
        client_expect_error(fds[8], "limits.clients_per_uid");
        cr_assert_eq(counter_get(COUNTER_CLIENTS_REFUSED), 1);
        close(fds[0]);
        settle();
        close(client_ready());
}

Test(listener, no_hello)
{
        PeerSet *set = calloc(1, sizeof(*set));
        int fds[2];

        peer_set_init(set, event, &config, NULL, &ops, NULL);
        set->hello_timeout_us = 0;
        cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds), 0);
        cr_assert_eq(peer_new(set, fds[0]), 0);
        while (set->n_peers)
                cr_assert_geq(sd_event_run(event, UINT64_MAX), 0);
        client_expect_error(fds[1], "no hello");
        peer_set_deinit(set);
        free(set);
}

Test(listener, times)
{
        int fd = client_ready();
        uint64_t now;

        client_start(fd, "a", 0, mono_now_ns() + 3600 * NS_PER_S);
        settle();
        cr_assert_leq(fake_start.start_mono_ns, mono_now_ns());
        cr_assert_eq(counter_get(COUNTER_EVENTS_BAD_TIME), 1);

        now = mono_now_ns();
        client_start(fd, "b", 0, 1);
        settle();
        if (now > 3601 * NS_PER_S) {
                cr_assert_geq(fake_start.start_mono_ns, now);
                cr_assert_eq(counter_get(COUNTER_EVENTS_BAD_TIME), 2);
        }

        now = mono_now_ns();
        client_start(fd, "c", 0, 0);
        settle();
        cr_assert_geq(fake_start.start_mono_ns, now);
}

/* The kernel tells of a reset before it gives out what was sent earlier. */
Test(listener, events_before_an_end_with_a_list_unread)
{
        int fd = client_ready();
        const char *operations[] = {"/b"};

        fake_watch(1, operations);
        listener_watch_changed(listener, fake_instance);
        client_start(fd, "seg", 0, 0);
        fake_take();
        close(fd);
        settle();
        cr_assert_str_eq(fake_take(), "start seg '/op' ''\ngone\ndetach i\n");
}

/* Descriptors that a client sends along are not for us. */
Test(listener, descriptors_are_not_taken)
{
        int fd = client_ready(), null = open("/dev/null", O_RDONLY | O_CLOEXEC), before, after;
        uint8_t packet[] = {0x22, 3, 0x0a, 1, 's'};
        union {
                struct cmsghdr head;
                uint8_t bytes[CMSG_SPACE(sizeof(int))];
        } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
        struct iovec iov = {packet, sizeof(packet)};
        struct msghdr message = {.msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control)};

        memcpy(CMSG_DATA(&control.head), &null, sizeof(null));
        cr_assert_eq(sendmsg(fd, &message, 0), 5);
        before = dup(0);
        close(before);
        settle();
        after = dup(0);
        close(after);
        cr_assert_eq(before, after);
        cr_assert_str_eq(fake_take(), "stop s 0\n");
}

/* Without descriptors left the loop sleeps, and goes on when there are some again. */
Test(listener, accept_pauses)
{
        struct rlimit old, none;
        int fd = client_connect();
        int next = dup(0);

        close(next);
        cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
        none = old;
        none.rlim_cur = (rlim_t)next;
        client_hello(fd, "s");
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
        settle();
        cr_assert_eq(n_added, 0);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
        while (n_added == 0)
                cr_assert_geq(sd_event_run(event, UINT64_MAX), 0);
}

Test(listener, socket_file)
{
        Listener *second = NULL;
        struct stat st;
        int fd;

        cr_assert_eq(stat(socket_path, &st), 0);
        cr_assert_eq(st.st_mode & 07777, 0666);
        cr_assert_eq(listener_new(&second, event, -1, &config, NULL, &ops, NULL), -EADDRINUSE);
        cr_assert_null(second);
        listener = listener_free(listener);
        cr_assert_lt(stat(socket_path, &st), 0);

        /* A leftover is replaced, a file that is no socket is not. */
        fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strcpy(address.sun_path, socket_path);
        cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        close(fd);
        cr_assert_eq(listener_new(&listener, event, -1, &config, NULL, &ops, NULL), 0);
        close(client_ready());
        settle();
        listener = listener_free(listener);
        /* Somebody listens, on a socket of another kind. */
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        cr_assert_eq(listen(fd, 1), 0);
        cr_assert_eq(listener_new(&listener, event, -1, &config, NULL, &ops, NULL), -EADDRINUSE);
        close(fd);
        cr_assert_eq(unlink(socket_path), 0);
        close(open(socket_path, O_CREAT | O_WRONLY, 0600));
        cr_assert_lt(listener_new(&listener, event, -1, &config, NULL, &ops, NULL), 0);
        cr_assert_eq(unlink(socket_path), 0);
}

static void visit(void *userdata, const ClientInfo *info)
{
        cr_assert_eq(info->pid, getpid());
        cr_assert_eq(info->uid, getuid());
        cr_assert_str_eq(info->language, info->instance ? "c" : "");
        cr_assert_str_eq(info->client, info->instance ? "test" : "");
        ++*(int *)userdata;
}

Test(listener, clients)
{
        int n = 0;

        client_connect();
        client_ready();
        listener_clients(listener, visit, &n);
        cr_assert_eq(n, 2);
}
