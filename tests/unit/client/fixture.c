/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/counter.h"
#include "fake-core.h"
#include "fixture.h"
#include "util/log.h"

char socket_path[96];
Config config;
sd_event *event;
Listener *listener;
int n_added, n_removed;

static char dir[64];

static void on_added(void *userdata, Instance *instance, pid_t pid)
{
        n_added++;
}

static void on_removed(void *userdata, Instance *instance, pid_t pid)
{
        cr_assert_not_null(instance->name);
        n_removed++;
}

const ListenerOps ops = {on_added, on_removed};

void fixture_setup(void)
{
        strcpy(dir, "/tmp/test-listener.XXXXXX");
        cr_assert_not_null(mkdtemp(dir));
        snprintf(socket_path, sizeof(socket_path), "%s/span.sock", dir);
        config = (Config){
                .span_socket = socket_path,
                .limits_clients_per_uid = 8,
                .limits_segments_per_client = 8,
        };
        log_set_max_level(LOG_EMERG);
        cr_assert_geq(sd_event_new(&event), 0);
        cr_assert_eq(listener_new(&listener, event, -1, &config, NULL, &ops, NULL), 0);
}

void fixture_teardown(void)
{
        listener = listener_free(listener);
        event = sd_event_unref(event);
        rmdir(dir);
}

void settle(void)
{
        while (sd_event_run(event, 0) > 0)
                ;
}

int client_connect(void)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        strcpy(address.sun_path, socket_path);
        cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        return fd;
}

void client_send(int fd, const Swprof__ClientPacket *m)
{
        uint8_t bytes[CLIENT_PACKET_MAX];
        size_t size = swprof__client_packet__pack(m, bytes);

        if (send(fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
                abort();
}

void client_hello(int fd, const char *service)
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

void client_start(int fd, const char *segment, pid_t tid, uint64_t mono_ns)
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
Swprof__DaemonPacket *client_receive(int fd, int *ret_page, bool *ret_eof)
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
uint64_t client_list(int fd, size_t *ret_n)
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

int client_welcome(int fd)
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
void client_expect_error(int fd, const char *text)
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

int client_ready(void)
{
        int fd = client_connect();

        client_hello(fd, "s");
        settle();
        close(client_welcome(fd));
        fake_take();
        return fd;
}

void expect_broken(int fd, const char *text)
{
        uint64_t n = counter_get(COUNTER_CLIENTS_BROKEN);

        settle();
        client_expect_error(fd, text);
        cr_assert_eq(counter_get(COUNTER_CLIENTS_BROKEN), n + 1);
        close(fd);
}
