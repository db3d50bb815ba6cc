/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fake-daemon.h"

#define PAGE_SIZE 4096

static void require(bool good, const char *what)
{
        if (good)
                return;
        fprintf(stderr, "fake daemon: %s: %s\n", what, strerror(errno));
        abort();
}

void fake_listen(FakeDaemon *d)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        strcpy(address.sun_path, d->path);
        d->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        require(d->listener >= 0 &&
                        bind(d->listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                        listen(d->listener, 8) == 0,
                d->path);
}

void fake_unlisten(FakeDaemon *d)
{
        close(d->listener);
        unlink(d->path);
        d->listener = -1;
}

void fake_daemon_init(FakeDaemon *d)
{
        static _Atomic unsigned n;

        *d = (FakeDaemon){.listener = -1, .fd = -1, .page_fd = -1};
        snprintf(d->path, sizeof(d->path), "/tmp/swprof-test-%d-%u.sock", (int)getpid(), n++);
        fake_listen(d);
}

void fake_daemon_deinit(FakeDaemon *d)
{
        fake_hang_up(d, true);
        if (d->listener >= 0)
                fake_unlisten(d);
        if (d->last)
                swprof__client_packet__free_unpacked(d->last, NULL);
        d->last = NULL;
}

bool fake_accept(FakeDaemon *d)
{
        int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return false;
        fake_hang_up(d, true);
        d->fd = fd;
        return true;
}

int fake_send(FakeDaemon *d, const void *bytes, size_t size, int attach)
{
        struct iovec iov = {(void *)bytes, size};
        union {
                struct cmsghdr head;
                uint8_t bytes[CMSG_SPACE(sizeof(int))];
        } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

        if (attach >= 0) {
                memcpy(CMSG_DATA(&control.head), &attach, sizeof(attach));
                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
        }
        return sendmsg(d->fd, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int send_packet(FakeDaemon *d, const Swprof__DaemonPacket *packet, int attach)
{
        static __thread uint8_t bytes[65536];

        return fake_send(d, bytes, swprof__daemon_packet__pack(packet, bytes), attach);
}

int fake_make_page(uint64_t generation, int seals)
{
        int fd = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        require(fd >= 0 && ftruncate(fd, PAGE_SIZE) == 0 &&
                        pwrite(fd, &generation, sizeof(generation), 0) == sizeof(generation),
                "page");
        require(fcntl(fd, F_ADD_SEALS, seals) == 0, "seals");
        return fd;
}

void fake_welcome(FakeDaemon *d)
{
        Swprof__Welcome welcome = SWPROF__WELCOME__INIT;
        Swprof__DaemonPacket packet = SWPROF__DAEMON_PACKET__INIT;

        d->generation = 1;
        /* Mapped writable before it is sealed, as the daemon does. */
        d->page_fd = fake_make_page(d->generation, 0);
        d->word = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, d->page_fd, 0);
        require(d->word != MAP_FAILED, "mmap");
        require(fcntl(d->page_fd, F_ADD_SEALS,
                        F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0,
                "seals");
        welcome.protocol = 1;
        welcome.daemon = (char *)"fake";
        packet.event_case = SWPROF__DAEMON_PACKET__EVENT_WELCOME;
        packet.welcome = &welcome;
        (void)send_packet(d, &packet, d->page_fd);
}

void fake_watch(FakeDaemon *d, const char *const *operations)
{
        Swprof__WatchList list = SWPROF__WATCH_LIST__INIT;
        Swprof__DaemonPacket packet = SWPROF__DAEMON_PACKET__INIT;

        list.generation = ++d->generation;
        list.operations = (char **)operations;
        while (operations[list.n_operations])
                list.n_operations++;
        packet.event_case = SWPROF__DAEMON_PACKET__EVENT_WATCH;
        packet.watch = &list;
        if (send_packet(d, &packet, -1) == 0)
                *d->word = d->generation;
}

void fake_hang_up(FakeDaemon *d, bool orderly)
{
        if (d->word) {
                if (orderly)
                        *d->word = UINT64_MAX;
                munmap((void *)d->word, PAGE_SIZE);
                d->word = NULL;
        }
        if (d->page_fd >= 0)
                close(d->page_fd);
        if (d->fd >= 0)
                close(d->fd);
        d->page_fd = d->fd = -1;
}

static int describe(char *text, size_t size, const Swprof__ClientPacket *m)
{
        switch (m->event_case) {
        case SWPROF__CLIENT_PACKET__EVENT_HELLO:
                return snprintf(text, size, "hello %s %s %s\n", m->hello->service,
                        m->hello->instance, m->hello->language);
        case SWPROF__CLIENT_PACKET__EVENT_START:
                return snprintf(
                        text, size, "start %s %s\n", m->start->segment, m->start->operation);
        case SWPROF__CLIENT_PACKET__EVENT_RENAME:
                return snprintf(
                        text, size, "rename %s %s\n", m->rename->segment, m->rename->operation);
        case SWPROF__CLIENT_PACKET__EVENT_STOP:
                return snprintf(text, size, "stop %s\n", m->stop->segment);
        case SWPROF__CLIENT_PACKET__EVENT_CONTINUED:
                return snprintf(text, size, "continue %s %s %s\n", m->continued->parent,
                        m->continued->segment, m->continued->operation);
        case SWPROF__CLIENT_PACKET__EVENT_SWITCHED:
                return snprintf(text, size, "switch %s\n", m->switched->segment);
        case SWPROF__CLIENT_PACKET__EVENT_PARENT:
                return snprintf(text, size, "parent %s %s\n", m->parent->segment, m->parent->sw8);
        case SWPROF__CLIENT_PACKET__EVENT_TAG:
                return snprintf(text, size, "tag %s %s '%s'\n", m->tag->segment, m->tag->key,
                        m->tag->value);
        default:
                return snprintf(text, size, "?\n");
        }
}

const char *fake_take(FakeDaemon *d)
{
        uint8_t bytes[4096];
        size_t used = 0;
        ssize_t n;

        d->text[0] = '\0';
        /* What there is no room to describe stays for the next call. */
        while (used < sizeof(d->text) / 2 &&
                (n = recv(d->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
                if (d->last)
                        swprof__client_packet__free_unpacked(d->last, NULL);
                d->last = swprof__client_packet__unpack(NULL, (size_t)n, bytes);
                require(d->last, "the packet is malformed");
                used += (size_t)describe(d->text + used, sizeof(d->text) - used, d->last);
                require(used < sizeof(d->text), "too many packets");
        }
        return d->text;
}
