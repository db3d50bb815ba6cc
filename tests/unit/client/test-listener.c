/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/listener.h"
#include "client/peer.h"
#include "core/counter.h"
#include "fake-core.h"
#include "span.pb-c.h"
#include "util/time.h"

/* Daemon and clients in one process, mostly: the loop is run until nothing is left to do, then it
 * is looked at. */

static char dir[64], path[96];
static Config config;
static sd_event *event;
static Listener *listener;
static int n_added, n_removed;

static void on_added(void *userdata, Instance *instance, pid_t pid)
{
        n_added++;
}

static void on_removed(void *userdata, Instance *instance, pid_t pid)
{
        cr_assert_not_null(instance->name);
        n_removed++;
}

static const ListenerOps ops = {on_added, on_removed};

static void setup(void)
{
        strcpy(dir, "/tmp/test-listener.XXXXXX");
        cr_assert_not_null(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/span.sock", dir);
        config = (Config){
                .span_socket = path,
                .limits_clients_per_uid = 8,
                .limits_segments_per_client = 8,
        };
        log_set_max_level(LOG_EMERG);
        cr_assert_geq(sd_event_new(&event), 0);
        cr_assert_eq(listener_new(&listener, event, -1, &config, NULL, &ops, NULL), 0);
}

static void teardown(void)
{
        listener = listener_free(listener);
        event = sd_event_unref(event);
        rmdir(dir);
}

TestSuite(listener, .init = setup, .fini = teardown, .timeout = 60);

static void settle(void)
{
        while (sd_event_run(event, 0) > 0)
                ;
}

static int client_connect(void)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        strcpy(address.sun_path, path);
        cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        return fd;
}

static void client_send(int fd, const Swprof__ClientPacket *m)
{
        uint8_t bytes[CLIENT_PACKET_MAX];
        size_t size = swprof__client_packet__pack(m, bytes);

        if (send(fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
                abort();
}

static void client_hello(int fd, const char *service)
{
        Swprof__Hello hello = SWPROF__HELLO__INIT;
        Swprof__ClientPacket m = SWPROF__CLIENT_PACKET__INIT;

        hello.protocol = 1;
        hello.service = (char *)service;
        hello.instance = (char *)"i";
        hello.language = (char *)"c";
        hello.client = (char *)"test";
        hello.agent = true;
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_HELLO;
        m.hello = &hello;
        client_send(fd, &m);
}

static void client_start(int fd, const char *segment, pid_t tid, uint64_t mono_ns)
{
        Swprof__SpanStart start = SWPROF__SPAN_START__INIT;
        Swprof__ClientPacket m = SWPROF__CLIENT_PACKET__INIT;

        start.segment = (char *)segment;
        start.operation = (char *)"/op";
        start.tid = tid;
        start.start_mono_ns = mono_ns;
        m.event_case = SWPROF__CLIENT_PACKET__EVENT_START;
        m.start = &start;
        client_send(fd, &m);
}

/* The next packet, NULL: none now; *ret_eof tells the end. */
static Swprof__DaemonPacket *client_receive(int fd, int *ret_page, bool *ret_eof)
{
        uint8_t bytes[DAEMON_PACKET_MAX];
        union {
                struct cmsghdr head;
                uint8_t bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = {bytes, sizeof(bytes)};
        struct msghdr message = {.msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control)};
        struct cmsghdr *c;
        ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        *ret_eof = n == 0;
        if (n <= 0)
                return NULL;
        c = CMSG_FIRSTHDR(&message);
        if (c && c->cmsg_type == SCM_RIGHTS && ret_page)
                memcpy(ret_page, CMSG_DATA(c), sizeof(int));
        return swprof__daemon_packet__unpack(NULL, (size_t)n, bytes);
}

/* The generation of the list that comes next, its number of operations in *ret_n; 0: none. */
static uint64_t client_list(int fd, size_t *ret_n)
{
        bool eof;
        Swprof__DaemonPacket *m = client_receive(fd, NULL, &eof);
        uint64_t generation;

        if (!m)
                return 0;
        cr_assert_eq(m->event_case, SWPROF__DAEMON_PACKET__EVENT_WATCH);
        generation = m->watch->generation;
        *ret_n = m->watch->n_operations;
        swprof__daemon_packet__free_unpacked(m, NULL);
        return generation;
}

static int client_welcome(int fd)
{
        bool eof;
        int page = -1;
        Swprof__DaemonPacket *m = client_receive(fd, &page, &eof);
        size_t n;

        cr_assert_not_null(m);
        cr_assert_eq(m->event_case, SWPROF__DAEMON_PACKET__EVENT_WELCOME);
        cr_assert_eq(m->welcome->protocol, 1);
        cr_assert_geq(page, 0);
        swprof__daemon_packet__free_unpacked(m, NULL);
        cr_assert_eq(client_list(fd, &n), 1);
        return page;
}

/* Packets are skipped up to an error that holds `text`, then the end. */
static void client_expect_error(int fd, const char *text)
{
        Swprof__DaemonPacket *m;
        bool eof, found = false;

        while ((m = client_receive(fd, NULL, &eof))) {
                if (m->event_case == SWPROF__DAEMON_PACKET__EVENT_ERROR) {
                        cr_assert(strstr(m->error->message, text), "%s", m->error->message);
                        found = true;
                }
                swprof__daemon_packet__free_unpacked(m, NULL);
        }
        cr_assert(found, "no error");
        cr_assert(eof, "no end: %s", strerror(errno));
}

static int client_ready(void)
{
        int fd = client_connect();

        client_hello(fd, "s");
        settle();
        close(client_welcome(fd));
        fake_take();
        return fd;
}

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
        Swprof__ClientPacket m = SWPROF__CLIENT_PACKET__INIT;

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
        /* A thread that is not there: the segment is on none, rather than on the one before. */
        switched.tid = 1;
        client_send(fd, &m);
        settle();
        cr_assert_str_eq(fake_take(), "continue p c '' ''\nrename s '/new'\nswitch s "
                                      "thread\nswitch s none\nswitch s none\n");
        cr_assert_eq(counter_get(COUNTER_EVENTS_BAD_THREAD), 1);
        cr_assert_eq(counter_get(COUNTER_EVENTS_RECEIVED), 5);
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

static void expect_broken(int fd, const char *text)
{
        uint64_t n = counter_get(COUNTER_CLIENTS_BROKEN);

        settle();
        client_expect_error(fd, text);
        cr_assert_eq(counter_get(COUNTER_CLIENTS_BROKEN), n + 1);
        close(fd);
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
        expect_broken(fd, "4096");

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

static void wait_child(pid_t pid)
{
        int status;

        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %#x", status);
}

Test(listener, packet_of_another_process)
{
        int fd = client_ready();
        pid_t child = fork();

        if (child == 0) {
                client_start(fd, "seg", 0, 0);
                _exit(0);
        }
        wait_child(child);
        expect_broken(fd, "another process");
        cr_assert_str_eq(fake_take(), "gone\ndetach i\n");
}

static int foreign_pipe[2], foreign_out[2];

/* A child that runs f, ends when it is told to, and says a byte when it is ready. */
static pid_t foreign(void (*f)(void))
{
        pid_t pid;
        char c;

        cr_assert_eq(pipe(foreign_pipe), 0);
        cr_assert_eq(pipe(foreign_out), 0);
        pid = fork();
        if (pid == 0) {
                close(foreign_pipe[1]);
                f();
                if (write(foreign_out[1], "r", 1) != 1 || read(foreign_pipe[0], &c, 1) < 0)
                        _exit(1);
                _exit(0);
        }
        close(foreign_pipe[0]);
        cr_assert_eq(read(foreign_out[0], &c, 1), 1);
        return pid;
}

/* The same as process 1 of a pid namespace. */
static pid_t foreign_namespace(void (*f)(void))
{
        int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
        pid_t pid;

        if (unshare(CLONE_NEWPID) < 0)
                cr_skip_test("needs CAP_SYS_ADMIN");
        pid = foreign(f);
        cr_assert_eq(setns(own, CLONE_NEWPID), 0);
        close(own);
        return pid;
}

static void foreign_end(pid_t pid)
{
        close(foreign_pipe[1]);
        wait_child(pid);
}

/* The connection outlives its process in a child of that: it counts as gone. */
static void orphan(void)
{
        int fd = client_connect();
        pid_t pid;
        char c;

        client_hello(fd, "s");
        pid = fork();
        if (pid == 0) {
                if (read(foreign_pipe[0], &c, 1) < 0)
                        _exit(1);
                _exit(0);
        }
        if (write(foreign_out[1], "r", 1) == 1)
                _exit(0);
}

Test(listener, process_exit)
{
        pid_t pid = foreign(orphan);

        settle();
        wait_child(pid);
        settle();
        cr_assert_str_eq(fake_take(), "attach s i 1\ngone\ndetach i\n");
        close(foreign_pipe[1]);
}

static pthread_barrier_t barrier;
static pid_t thread_tid;

static void *thread_main(void *arg)
{
        thread_tid = gettid();
        pthread_barrier_wait(&barrier);
        pause();
        return NULL;
}

static void send_own_threads(void)
{
        int fd = client_connect();
        pthread_t thread;

        pthread_barrier_init(&barrier, NULL, 2);
        if (pthread_create(&thread, NULL, thread_main, NULL) != 0)
                _exit(1);
        pthread_barrier_wait(&barrier);
        client_hello(fd, "s");
        client_start(fd, "main", gettid(), 0);
        client_start(fd, "thread", thread_tid, 0);
        client_start(fd, "thread-again", thread_tid, 0);
        /* Not ours: the test process, as it is called outside, or nobody in here. */
        client_start(fd, "foreign", getppid() ?: 9999, 0);
}

Test(listener, threads)
{
        pid_t pid = foreign(send_own_threads);

        settle();
        cr_assert_str_eq(fake_take(), "attach s i 1\nstart main '/op' ''\nstart thread '/op' "
                                      "''\nstart thread-again '/op' ''\n");
        cr_assert_eq(counter_get(COUNTER_EVENTS_BAD_THREAD), 1);
        foreign_end(pid);
}

/* The client is pid 1 in there. */
Test(listener, threads_of_a_pid_namespace)
{
        char task[64];
        pid_t pid;

        pid = foreign_namespace(send_own_threads);
        settle();
        cr_assert_str_eq(fake_take(), "attach s i 1\nstart main '/op' ''\nstart thread '/op' "
                                      "''\nstart thread-again '/op' ''\n");
        cr_assert_eq(fake_start.pid, pid);
        cr_assert_gt(fake_start.tid, 2);
        cr_assert_neq(fake_start.tid, pid);
        snprintf(task, sizeof(task), "/proc/%d/task/%d", pid, fake_start.tid);
        cr_assert_eq(access(task, F_OK), 0);
        cr_assert_eq(counter_get(COUNTER_EVENTS_BAD_THREAD), 1);
        foreign_end(pid);
}

/* The daemon is in a pid namespace that does not hold the client. It has its own loop: epoll is not
 * shared over fork. */
static void serve_refusal(void)
{
        char c = 'r';

        if (sd_event_new(&event) < 0 ||
                listener_new(&listener, event, -1, &config, NULL, &ops, NULL) != 0 ||
                write(foreign_out[1], &c, 1) != 1)
                _exit(1);
        while (counter_get(COUNTER_CLIENTS_REFUSED) == 0)
                if (sd_event_run(event, UINT64_MAX) < 0)
                        _exit(1);
        listener_free(listener);
        _exit(0);
}

Test(listener, client_outside_of_our_pid_namespace)
{
        pid_t pid;
        int fd;

        listener = listener_free(listener);
        event = sd_event_unref(event);
        pid = foreign_namespace(serve_refusal);
        fd = client_connect();
        wait_child(pid);
        client_expect_error(fd, "pid namespace");
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

        cr_assert_eq(stat(path, &st), 0);
        cr_assert_eq(st.st_mode & 07777, 0666);
        cr_assert_eq(listener_new(&second, event, -1, &config, NULL, &ops, NULL), -EADDRINUSE);
        cr_assert_null(second);
        listener = listener_free(listener);
        cr_assert_lt(stat(path, &st), 0);

        /* A leftover is replaced, a file that is no socket is not. */
        fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strcpy(address.sun_path, path);
        cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        close(fd);
        cr_assert_eq(listener_new(&listener, event, -1, &config, NULL, &ops, NULL), 0);
        close(client_ready());
        settle();
        listener = listener_free(listener);
        close(open(path, O_CREAT | O_WRONLY, 0600));
        cr_assert_lt(listener_new(&listener, event, -1, &config, NULL, &ops, NULL), 0);
        cr_assert_eq(unlink(path), 0);
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
