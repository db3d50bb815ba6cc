/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What does this host allow, and why not more? Nothing is concluded from version numbers: each way
 * to capture is loaded and has to capture a thread of our own that sleeps where we know, and one
 * that runs. No one can ptrace threads of its own process: there it is a child that sleeps.
 */

#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture/capture-private.h"
#include "capture/host.h"
#include "util/error.h"
#include "util/log.h"
#include "util/time.h"

/* Far more than a loaded host needs; when it has passed, something is denied for good. */
#define PROOF_NS (2 * NS_PER_S)

/* A thread asleep in read(fd, &value, 8), of ours or the one of a child. */
typedef struct Sleeper {
        pthread_t thread;
        pid_t pid;
        int fd, tid_fd; /* eventfds */
        pid_t tid;
        uint64_t value;
} Sleeper;

static void append(CaptureInfo *info, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
static void append(CaptureInfo *info, const char *format, ...)
{
        size_t n = strlen(info->reason);
        va_list args;

        va_start(args, format);
        vsnprintf(info->reason + n, sizeof(info->reason) - n, format, args);
        va_end(args);
}

static void *sleeper_main(void *userdata)
{
        Sleeper *s = userdata;

        s->tid = (pid_t)syscall(SYS_gettid);
        eventfd_write(s->tid_fd, 1);
        while (read(s->fd, &s->value, sizeof(s->value)) < 0 && errno == EINTR)
                ;
        return NULL;
}

static int sleeper_start(Sleeper *s)
{
        eventfd_t value;
        int r;

        s->fd = eventfd(0, EFD_CLOEXEC);
        if (s->fd < 0)
                return error_origin(-errno);
        s->tid_fd = eventfd(0, EFD_CLOEXEC);
        if (s->tid_fd < 0) {
                r = -errno;
                close(s->fd);
                return error_origin(r);
        }
        r = pthread_create(&s->thread, NULL, sleeper_main, s);
        if (r) {
                close(s->fd);
                close(s->tid_fd);
                return error_origin(-r);
        }
        eventfd_read(s->tid_fd, &value);
        s->pid = getpid();
        return 0;
}

static void sleeper_stop(Sleeper *s)
{
        eventfd_write(s->fd, 1);
        pthread_join(s->thread, NULL);
        close(s->fd);
        close(s->tid_fd);
}

static int child_start(Sleeper *s)
{
        pid_t pid;
        int r;

        s->fd = eventfd(0, EFD_CLOEXEC);
        if (s->fd < 0)
                return error_origin(-errno);
        pid = fork();
        if (pid < 0) {
                r = -errno;
                close(s->fd);
                return error_origin(r);
        }
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                while (read(s->fd, &s->value, sizeof(s->value)) < 0 && errno == EINTR)
                        ;
                _exit(0);
        }
        s->pid = s->tid = pid;
        return 0;
}

static void child_stop(Sleeper *s)
{
        eventfd_write(s->fd, 1);
        waitpid(s->pid, NULL, 0);
        close(s->fd);
}

/* The registers of the system call that the sleeper is in: no other thread has just these. */
static bool is_sleeper(const Sleeper *s, const CaptureResult *r)
{
        return r->syscall == SYS_read && r->copy.regs.r[X86_RDI] == (uint64_t)s->fd &&
               r->copy.regs.r[X86_RSI] == (uint64_t)(uintptr_t)&s->value && r->copy.n > 0;
}

/* Return: NULL, or what went wrong. */
static const char *prove_pull(Capture *c, const Sleeper *s)
{
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        uint64_t begin = mono_now_ns();
        CaptureResult result;
        int r;

        r = capture_thread_new(c, &t, s->pid, s->tid, NULL);
        if (r == CAPTURE_E_GONE && c->bpf && capture_bpf_iter(c->bpf))
                return "it does not find a thread of the daemon's own (kernels before 6.1.115 find "
                       "main threads only)";
        if (r == CAPTURE_E_GONE)
                return "it does not find a thread of the daemon's own (nested pid namespace)";
        if (r)
                return "it cannot follow a thread";
        /* The sleeper may be on its way into the system call still. */
        do {
                if (capture_pull(c, &t, 1, &result) < 0)
                        return "the program does not run";
                if (result.status == CAPTURE_TAKEN && is_sleeper(s, &result))
                        return NULL;
                if (result.status == CAPTURE_DENIED)
                        return "a child process cannot be traced (another tracer, a security "
                               "module "
                               "or seccomp)";
                capture_thread_forget(t);
                sched_yield();
        } while (mono_now_ns() - begin < PROOF_NS);
        return "it finds another thread than the one asked for (nested pid namespace)";
}

/* The calling thread, which runs and waits in user space for the interrupt. */
static const char *prove_shot(Capture *c, int *ret_error)
{
        Shot shot = SHOT_INIT;
        uint64_t begin = mono_now_ns();
        struct swp_slot *slot = capture_bpf_slot(c->bpf, 0);
        CaptureResult result;
        bool answered = false;
        void *userdata;
        int r;

        *slot = (struct swp_slot){.want = 8, .buffer = SWP_NO_BUFFER, .request = 1};
        r = shot_fire(&shot, c->bpf, (pid_t)syscall(SYS_gettid), 0);
        while (r == 0 && !answered && mono_now_ns() - begin < PROOF_NS)
                answered = __atomic_load_n(&slot->answered, __ATOMIC_ACQUIRE) == 1;
        shot_deinit(&shot);
        *slot = (struct swp_slot){0};
        capture_collect(c, &userdata, &result); /* takes the announcement, which is no thread's */
        *ret_error = r;
        if (r)
                return "perf events of single threads cannot be opened";
        return answered ? NULL : "perf events do not fire";
}

/* What an administrator can do about it. */
static void append_advice(CaptureInfo *info, int error)
{
        static const struct {
                unsigned capability;
                const char *name;
        } needed[] = {{CAP_BPF, "CAP_BPF"}, {CAP_PERFMON, "CAP_PERFMON"},
                {CAP_SYS_PTRACE, "CAP_SYS_PTRACE"}};
        bool missing = false;

        for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
                if (!host_has_capability(needed[i].capability)) {
                        append(info, "%s%s", missing ? ", " : "; missing: ", needed[i].name);
                        missing = true;
                }
        if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
                append(info,
                        "; no /sys/kernel/btf/vmlinux: the kernel needs CONFIG_DEBUG_INFO_BTF");
        else if (host_is_locked_down())
                append(info, "; the kernel is locked down (confidentiality): boot without that");
        else if (!missing && error == -EPERM)
                append(info, "; denied by a security module, seccomp or a user namespace");
}

static const char *const backend_names[] = {
        [CAPTURE_BACKEND_BPF_SYSCALL] = "bpf/syscall",
        [CAPTURE_BACKEND_BPF_ITER] = "bpf/iter",
        [CAPTURE_BACKEND_PTRACE] = "ptrace",
};

/* Return: NULL, or what went wrong. */
static const char *prove_ptrace(Capture *c)
{
        Sleeper child = {.fd = -1};
        const char *problem;

        /* Without it a child can be traced, yet no process of another user. */
        if (!host_has_capability(CAP_SYS_PTRACE))
                return "not allowed; missing: CAP_SYS_PTRACE";
        if (child_start(&child))
                return "no child process to try it on";
        problem = prove_pull(c, &child);
        child_stop(&child);
        return problem;
}

/* Return: 0; CAPTURE_E_UNAVAILABLE, the reason appended; -errno. */
static int try_ptrace(Capture **ret, const Config *config, CaptureInfo *info)
{
        _cleanup_(capture_freep) Capture *c = NULL;
        const char *problem;
        int r;

        r = capture_new_unproven(&c, config, CAPTURE_BACKEND_PTRACE);
        if (r)
                return error_trace(r);
        problem = prove_ptrace(c);
        append(info, "ptrace: %s",
                problem ?: "captures a sleeping thread, tried on a child process");
        if (problem)
                return CAPTURE_E_UNAVAILABLE;
        *ret = TAKE_PTR(c);
        return 0;
}

/* The same, with the sleeper of ours. `last`: no other BPF backend will be tried. */
static int try_bpf(Capture **ret, const Config *config, CaptureBackend backend, bool last,
        const Sleeper *sleeper, CaptureInfo *info)
{
        _cleanup_(capture_freep) Capture *c = NULL;
        const char *name = backend_names[backend];
        const char *problem = NULL;
        int r, error = 0;

        r = capture_new_unproven(&c, config, backend);
        if (r == -ENOMEM)
                return error_trace(r);
        if (r) {
                error = r;
                problem = backend == CAPTURE_BACKEND_BPF_ITER || r == -EPERM
                                  ? "the programs cannot be loaded"
                                  : "the programs cannot be loaded (bpf_task_from_pid came with "
                                    "Linux 6.2)";
        }
        if (!problem)
                problem = prove_pull(c, sleeper);
        if (!problem)
                problem = prove_shot(c, &error);
        if (!problem) {
                append(info, "%s: captures sleeping and running threads, tried on the daemon's own",
                        name);
                *ret = TAKE_PTR(c);
                return 0;
        }
        append(info, "%s: %s", name, problem);
        if (error)
                append(info, ": %s", strerror(-error));
        if (last)
                append_advice(info, error);
        return CAPTURE_E_UNAVAILABLE;
}

static bool is_wanted(const Config *config, CaptureBackend backend)
{
        switch (config->capture_backend) {
        case CAPTURE_BACKEND_AUTO:
                return true;
        case CAPTURE_BACKEND_BPF:
                return backend != CAPTURE_BACKEND_PTRACE;
        default:
                return config->capture_backend == (int)backend;
        }
}

int capture_new(Capture **ret, const Config *config, CaptureInfo *ret_info)
{
        static const CaptureBackend backends[] = {
                CAPTURE_BACKEND_BPF_SYSCALL, CAPTURE_BACKEND_BPF_ITER, CAPTURE_BACKEND_PTRACE};
        Sleeper sleeper = {.fd = -1};
        struct utsname kernel;
        int r;

        *ret_info = (CaptureInfo){.backend = "none"};
        r = sleeper_start(&sleeper);
        if (r) {
                append(ret_info, "no thread to try captures on: %s", strerror(-r));
                return error_trace(r);
        }
        r = CAPTURE_E_UNAVAILABLE;
        for (size_t i = 0; i < 3 && r == CAPTURE_E_UNAVAILABLE; i++) {
                CaptureBackend b = backends[i];

                if (!is_wanted(config, b))
                        continue;
                if (ret_info->reason[0])
                        append(ret_info, "; ");
                if (b == CAPTURE_BACKEND_PTRACE)
                        r = try_ptrace(ret, config, ret_info);
                else
                        r = try_bpf(ret, config, b,
                                b == CAPTURE_BACKEND_BPF_ITER ||
                                        !is_wanted(config, CAPTURE_BACKEND_BPF_ITER),
                                &sleeper, ret_info);
                if (r == 0) {
                        ret_info->backend = backend_names[b];
                        ret_info->stops = b == CAPTURE_BACKEND_PTRACE;
                }
        }
        sleeper_stop(&sleeper);
        if (uname(&kernel) == 0)
                append(ret_info, " (Linux %s)", kernel.release);
        if (r < 0)
                append(ret_info, "; %s", strerror(-r));
        return error_trace(r);
}
