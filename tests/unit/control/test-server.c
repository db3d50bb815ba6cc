/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.pb-c.h"
#include "control/connection.h"
#include "control/server.h"
#include "core/counter.h"
#include "util/log.h"

static char dir[64], path[96];
static Config config;
static sd_event *event;
static ControlServer *server;
static int n_handled;
static size_t reply_filling;

static bool answer_later;
static ControlCall *waiting;
static int n_hurried;

static void answer(ControlCall *call)
{
        Swprof__Control__Reply reply = SWPROF__CONTROL__REPLY__INIT;
        Swprof__Control__Status status = SWPROF__CONTROL__STATUS__INIT;
        char *filling = calloc(1, reply_filling + 1);

        memset(filling, 'x', reply_filling);
        status.version = filling;
        reply.result_case = SWPROF__CONTROL__REPLY__RESULT_STATUS;
        reply.status = &status;
        control_call_respond(call, &reply);
        free(filling);
}

static void on_request(void *userdata, ControlCall *call, const Swprof__Control__Request *request)
{
        n_handled++;
        if (answer_later)
                waiting = call;
        else if (control_call_peer(call)->trusted)
                answer(call);
        else
                control_call_fail(call, "not you", true);
}

static void on_hurry(void *userdata, ControlCall *call, bool gone)
{
        cr_assert_eq(call, waiting);
        n_hurried++;
        if (gone)
                waiting = NULL;
}

static const ControlOps ops = {.request = on_request, .hurry = on_hurry};

static void start(const char *group)
{
        config = (Config){.control_socket = path, .control_group = (char *)group};
        cr_assert_eq(control_server_new(&server, event, -1, &config, &ops, NULL), 0);
}

static void setup(void)
{
        strcpy(dir, "/tmp/test-control.XXXXXX");
        cr_assert_not_null(mkdtemp(dir));
        cr_assert_eq(chmod(dir, 0755), 0);
        snprintf(path, sizeof(path), "%s/control.sock", dir);
        log_set_max_level(LOG_EMERG);
        cr_assert_geq(sd_event_new(&event), 0);
}

static void teardown(void)
{
        server = control_server_free(server);
        event = sd_event_unref(event);
        rmdir(dir);
}

TestSuite(server, .init = setup, .fini = teardown, .timeout = 60);

static void settle(void)
{
        while (sd_event_run(event, 0) > 0)
                ;
}

static int client_connect(void)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        strcpy(address.sun_path, path);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
                abort();
        return fd;
}

static size_t request_pack(uint8_t *bytes, uint32_t protocol)
{
        Swprof__Control__Request request = SWPROF__CONTROL__REQUEST__INIT;
        Swprof__Control__Empty empty = SWPROF__CONTROL__EMPTY__INIT;
        size_t n;

        request.protocol = protocol;
        request.verb_case = SWPROF__CONTROL__REQUEST__VERB_STATUS;
        request.status = &empty;
        n = swprof__control__request__pack(&request, bytes + 4);
        memcpy(bytes, &(uint32_t){(uint32_t)n}, 4);
        return 4 + n;
}

static void client_send(int fd, const void *bytes, size_t n)
{
        cr_assert_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* The reply up to the end of the connection; NULL: none. The loop runs meanwhile. */
static Swprof__Control__Reply *client_receive(int fd)
{
        size_t size = CONTROL_REPLY_MAX + 100, n = 0;
        uint8_t *bytes = malloc(size);
        Swprof__Control__Reply *reply = NULL;
        uint32_t length;

        for (;;) {
                ssize_t r = recv(fd, bytes + n, size - n, MSG_DONTWAIT);

                if (r == 0 || (r < 0 && errno != EAGAIN))
                        break;
                if (r > 0)
                        n += (size_t)r;
                else
                        sd_event_run(event, UINT64_MAX);
        }
        close(fd);
        if (n >= 4) {
                memcpy(&length, bytes, 4);
                cr_assert_eq(n, length + 4);
                reply = swprof__control__reply__unpack(NULL, length, bytes + 4);
                cr_assert_not_null(reply);
                cr_assert_eq(reply->protocol, 1);
        }
        free(bytes);
        return reply;
}

static void expect_error(int fd, const char *text)
{
        Swprof__Control__Reply *reply = client_receive(fd);

        cr_assert_not_null(reply);
        cr_assert(strstr(reply->error, text), "%s", reply->error);
        cr_assert(!reply->refused);
        swprof__control__reply__free_unpacked(reply, NULL);
}

static void expect_status(int fd, size_t size)
{
        Swprof__Control__Reply *reply = client_receive(fd);

        cr_assert_not_null(reply);
        cr_assert_str_eq(reply->error, "");
        cr_assert_eq(reply->result_case, SWPROF__CONTROL__REPLY__RESULT_STATUS);
        cr_assert_eq(strlen(reply->status->version), size);
        swprof__control__reply__free_unpacked(reply, NULL);
}

Test(server, status)
{
        uint8_t request[64];
        size_t n = request_pack(request, 1);
        int fd;

        start("");
        fd = client_connect();
        client_send(fd, request, n);
        expect_status(fd, 0);

        /* Byte by byte, and larger than a socket takes at once. */
        reply_filling = 5000000;
        fd = client_connect();
        for (size_t i = 0; i < n; i++) {
                settle();
                cr_assert_eq(n_handled, 1);
                client_send(fd, request + i, 1);
        }
        expect_status(fd, 5000000);
        cr_assert_eq(counter_get(COUNTER_CONTROL_REFUSED), 0);
}

Test(server, reply_too_large)
{
        uint8_t request[64];
        int fd;

        start("");
        reply_filling = CONTROL_REPLY_MAX;
        fd = client_connect();
        client_send(fd, request, request_pack(request, 1));
        expect_error(fd, "64 MiB");
}

Test(server, bad_requests)
{
        uint8_t request[64];
        int fd;

        start("");
        fd = client_connect();
        client_send(fd, "\x02\0\0\0\xff\xff", 6);
        expect_error(fd, "malformed");

        fd = client_connect();
        client_send(fd, "\0\0\0\0", 4);
        expect_error(fd, "protocol");

        fd = client_connect();
        client_send(fd, request, request_pack(request, 2));
        expect_error(fd, "protocol");

        fd = client_connect();
        client_send(fd, "\x02\0\0\0\x08\x01", 6);
        expect_error(fd, "does not know");

        fd = client_connect();
        client_send(fd, "\x01\x10\0\0", 4);
        expect_error(fd, "malformed");

        fd = client_connect();
        client_send(fd, request, 3);
        shutdown(fd, SHUT_WR);
        cr_assert_null(client_receive(fd));
        cr_assert_eq(n_handled, 0);
}

Test(server, connections_are_bounded)
{
        uint8_t request[64];
        int fds[17];

        start("");
        for (size_t i = 0; i < 17; i++)
                fds[i] = client_connect();
        settle();
        expect_error(fds[16], "too many");
        client_send(fds[0], request, request_pack(request, 1));
        expect_status(fds[0], 0);
        client_send(fds[1], request, request_pack(request, 1));
        expect_status(fds[1], 0);
}

Test(server, answers_later)
{
        uint8_t request[64];
        int fd;

        start("");
        answer_later = true;
        fd = client_connect();
        client_send(fd, request, request_pack(request, 1));
        settle();
        cr_assert_not_null(waiting);
        cr_assert_eq(n_hurried, 0);
        shutdown(fd, SHUT_WR);
        settle();
        cr_assert_eq(n_hurried, 1);
        cr_assert_not_null(waiting);
        reply_filling = 3;
        answer(waiting);
        expect_status(fd, 3);

        fd = client_connect();
        client_send(fd, request, request_pack(request, 1));
        settle();
        close(fd);
        settle();
        /* It is seen as the end of what is sent first. */
        cr_assert_geq(n_hurried, 2);
        cr_assert_null(waiting);
}

static ControlCall *calls[3];
static size_t n_calls;

static void on_request_keep(
        void *userdata, ControlCall *call, const Swprof__Control__Request *request)
{
        calls[n_calls++] = call;
}

static void on_hurry_answer_others(void *userdata, ControlCall *call, bool gone)
{
        for (size_t i = 0; i < n_calls; i++) {
                ControlCall *c = calls[i];

                calls[i] = NULL;
                if (c && c != call)
                        answer(c);
        }
}

/* The end of one is the answer to all others. */
Test(server, ends_with_answers)
{
        static const ControlOps keep = {
                .request = on_request_keep, .hurry = on_hurry_answer_others};
        uint8_t request[64];
        size_t n = request_pack(request, 1);
        int fds[3];

        config = (Config){.control_socket = path, .control_group = (char *)""};
        cr_assert_eq(control_server_new(&server, event, -1, &config, &keep, NULL), 0);
        for (size_t i = 0; i < 3; i++) {
                fds[i] = client_connect();
                client_send(fds[i], request, n);
        }
        settle();
        cr_assert_eq(n_calls, 3);
        server = control_server_free(server);
        cr_assert_null(client_receive(fds[0]));
        expect_status(fds[1], 0);
        expect_status(fds[2], 0);
}

/* However long the answer took: who does not read it is not waited for. */
Test(server, answer_that_is_not_read)
{
        uint8_t request[64];
        ConnectionSet set;
        int fds[2];

        answer_later = true;
        connection_set_init(&set, event, &ops, NULL);
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        cr_assert_eq(connection_new(&set, fds[0], &(ControlPeer){.trusted = true}), 0);
        client_send(fds[1], request, request_pack(request, 1));
        settle();
        cr_assert_not_null(waiting);
        control_call_expect(waiting, 3600000000ULL);
        set.timeout_us = 0;
        reply_filling = 5000000;
        answer(waiting);
        while (set.n_connections > 0)
                sd_event_run(event, UINT64_MAX);
        close(fds[1]);
        connection_set_deinit(&set);
}

Test(server, silent_peer)
{
        ConnectionSet set;
        int fds[2];

        connection_set_init(&set, event, &ops, NULL);
        set.timeout_us = 0;
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        cr_assert_eq(connection_new(&set, fds[0], &(ControlPeer){.trusted = true}), 0);
        cr_assert_null(client_receive(fds[1]));
        cr_assert_eq(set.n_connections, 0);
        connection_set_deinit(&set);
}

/* Asks as another user. Return: 0 served, 1 refused. */
static int ask_as(uid_t uid, gid_t gid, gid_t supplementary)
{
        uint8_t request[64];
        size_t n = request_pack(request, 1);
        int fds[2], status;
        pid_t pid;
        char c;

        cr_assert_eq(pipe(fds), 0);
        pid = fork();
        if (pid == 0) {
                uint8_t bytes[4096];
                int fd;
                ssize_t size;
                Swprof__Control__Reply *reply;

                if (setgroups(1, &supplementary) < 0 || setresgid(gid, gid, gid) < 0 ||
                        setresuid(uid, uid, uid) < 0)
                        _exit(2);
                fd = client_connect();
                if (write(fds[1], "r", 1) != 1)
                        _exit(2);
                /* The daemon may have refused already. */
                if (send(fd, request, n, MSG_NOSIGNAL) < 0 && errno != EPIPE)
                        _exit(2);
                size = recv(fd, bytes, sizeof(bytes), 0);
                if (size < 4)
                        _exit(3);
                reply = swprof__control__reply__unpack(NULL, (size_t)size - 4, bytes + 4);
                _exit(reply->refused);
        }
        cr_assert_eq(read(fds[0], &c, 1), 1);
        while (waitpid(pid, &status, WNOHANG) == 0)
                sd_event_run(event, 10000);
        cr_assert(WIFEXITED(status));
        close(fds[0]);
        close(fds[1]);
        return WEXITSTATUS(status);
}

Test(server, permissions)
{
        const struct group *adm = getgrnam("adm");
        struct stat st;

        if (getuid() != 0 || !adm)
                cr_skip_test("needs root and the group adm");
        start("adm");
        cr_assert_eq(stat(path, &st), 0);
        cr_assert_eq(st.st_mode & 07777, 0666);
        cr_assert_eq(st.st_gid, adm->gr_gid);
        cr_assert_eq(ask_as(0, 0, 0), 0);
        cr_assert_eq(ask_as(65534, adm->gr_gid, 65534), 0);
        cr_assert_eq(ask_as(65534, 65534, adm->gr_gid), 0);
        cr_assert_eq(ask_as(65534, 65534, 65534), 1);
}

Test(server, without_group)
{
        start("no-such-group");
        if (getuid() != 0)
                cr_skip_test("needs root");
        cr_assert_eq(ask_as(65534, 65534, 65534), 1);
}
