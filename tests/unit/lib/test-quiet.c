/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fake-daemon.h"
#include "swprof.h"

/*
 * Spans without one system call: when nothing is watched, when others are, and when there is no
 * daemon. The kernel kills the child at its first other than exit().
 */

#define SKIP 77

/*
 * The one that looks for the daemon again is due after that time: a run that was held up so long is
 * repeated.
 */
#define PATIENCE_S 1.0
#define TRIES      5

typedef struct Scene {
        const char *name;
        bool daemon, others;
        unsigned n_spans;
} Scene;

static double now_s(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Not the strict mode of seccomp, in which reading the clock is forbidden too. */
static bool forbid_system_calls(void)
{
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 1, 0),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
               prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void play(const Scene *scene)
{
        static FakeDaemon d;
        struct swprof_options options = {.size = sizeof(options), .service = "quiet"};
        struct swprof *client;
        int told = 0;

        fake_daemon_init(&d);
        options.socket_path = d.path;
        if (!scene->daemon)
                fake_unlisten(&d);
        if (swprof_open(&client, &options) != scene->daemon)
                _exit(2);
        if (scene->daemon) {
                if (!fake_accept(&d))
                        _exit(3);
                fake_welcome(&d);
                FAKE_WATCH(&d, "/other");
                while (swprof_watched(client, "/other") != 1)
                        ;
                if (!scene->others)
                        FAKE_WATCH(&d);
                if (swprof_watched(client, NULL) != scene->others)
                        _exit(4);
                fake_unlisten(&d);
        }
        if (!forbid_system_calls())
                _exit(SKIP);
        for (unsigned i = 0; i < scene->n_spans; i++) {
                struct swprof_span span;

                told += swprof_span_start(client, &span, NULL, "/operation");
                told += swprof_span_stop(client, &span, 0);
        }
        syscall(SYS_exit, told == 0 ? 0 : 5);
}

static int run(const Scene *scene)
{
        int status = 0;

        for (unsigned i = 0; i < TRIES; i++) {
                double begin = now_s(), took;
                pid_t pid = fork();

                if (pid == 0)
                        play(scene);
                if (pid < 0 || waitpid(pid, &status, 0) != pid)
                        return 1;
                took = now_s() - begin;
                printf("%s: status %#x, %u spans in %.0f ms\n", scene->name, (unsigned)status,
                        scene->n_spans, took * 1e3);
                if (status == 0 || took < PATIENCE_S)
                        break;
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void)
{
        const Scene scenes[] = {
                {"nothing watched", true, false, 1000000},
                {"others watched", true, true, 1000000},
                {"no daemon", false, false, 200000},
        };

        for (unsigned i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
                int r = run(&scenes[i]);

                if (r)
                        return r;
        }
        return 0;
}
