/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/counter.h"
#include "fake-core.h"
#include "fixture.h"

TestSuite(identity, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static void wait_child(pid_t pid)
{
        int status;

        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %#x", status);
}

Test(identity, packet_of_another_process)
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

Test(identity, process_exit)
{
        pid_t pid = foreign(orphan);
        siginfo_t info;

        /* It has ended, unread: what it sent counts, then its end does. */
        cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        settle();
        wait_child(pid);
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

Test(identity, threads)
{
        pid_t pid = foreign(send_own_threads);

        settle();
        cr_assert_str_eq(fake_take(), "attach s i 1\nstart main '/op' ''\nstart thread '/op' "
                                      "''\nstart thread-again '/op' ''\n");
        cr_assert_eq(counter_get(COUNTER_EVENTS_BAD_THREAD), 1);
        foreign_end(pid);
}

/* The client is pid 1 in there. */
Test(identity, threads_of_a_pid_namespace)
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

Test(identity, client_outside_of_our_pid_namespace)
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
