/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What does this host allow, and why not more? Nothing is concluded from version numbers: each way
 * to capture is loaded and has to capture a thread of our own that sleeps where we know, and one
 * that runs.
 */

#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "capture/capture-private.h"
#include "util/error.h"
#include "util/log.h"
#include "util/time.h"

/* Far more than a loaded host needs; when it has passed, something is denied for good. */
#define PROOF_NS (2 * NS_PER_S)

/* A thread asleep in read(fd, &value, 8). */
typedef struct Sleeper {
        pthread_t thread;
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
        return 0;
}

static void sleeper_stop(Sleeper *s)
{
        eventfd_write(s->fd, 1);
        pthread_join(s->thread, NULL);
        close(s->fd);
        close(s->tid_fd);
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

        r = capture_thread_new(c, &t, getpid(), s->tid, NULL);
        if (r == CAPTURE_E_GONE && capture_bpf_iter(c->bpf))
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

static bool has_capability(unsigned capability)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

        return syscall(SYS_capget, &header, data) == 0 &&
               (data[capability / 32].effective & 1U << capability % 32);
}

static bool is_locked_down(void)
{
        _cleanup_(fclosep) FILE *f = fopen("/sys/kernel/security/lockdown", "re");
        char line[128];

        return f && fgets(line, sizeof(line), f) && strstr(line, "[confidentiality]");
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
                if (!has_capability(needed[i].capability)) {
                        append(info, "%s%s", missing ? ", " : "; missing: ", needed[i].name);
                        missing = true;
                }
        if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
                append(info,
                        "; no /sys/kernel/btf/vmlinux: the kernel needs CONFIG_DEBUG_INFO_BTF");
        else if (is_locked_down())
                append(info, "; the kernel is locked down (confidentiality): boot without that");
        else if (!missing && error == -EPERM)
                append(info, "; denied by a security module, seccomp or a user namespace");
}

/* Return: 0; CAPTURE_E_UNAVAILABLE, the reason appended; -errno. */
static int try_backend(
        Capture **ret, const Config *config, bool iter, const Sleeper *sleeper, CaptureInfo *info)
{
        _cleanup_(capture_freep) Capture *c = NULL;
        const char *name = iter ? "bpf/iter" : "bpf/syscall";
        const char *problem = NULL;
        int r, error = 0;

        if (info->reason[0])
                append(info, "; ");
        r = capture_new_unproven(&c, config, iter);
        if (r == -ENOMEM)
                return error_trace(r);
        if (r) {
                error = r;
                problem = iter || r == -EPERM ? "the programs cannot be loaded"
                                              : "the programs cannot be loaded (bpf_task_from_pid "
                                                "came with Linux 6.2)";
        }
        if (!problem)
                problem = prove_pull(c, sleeper);
        if (!problem)
                problem = prove_shot(c, &error);
        if (!problem) {
                append(info, "%s: captures sleeping and running threads, tried on the daemon's own",
                        name);
                info->backend = name;
                *ret = TAKE_PTR(c);
                return 0;
        }
        append(info, "%s: %s", name, problem);
        if (error)
                append(info, ": %s", strerror(-error));
        if (iter || config->capture_backend == CAPTURE_BACKEND_BPF_SYSCALL)
                append_advice(info, error);
        return CAPTURE_E_UNAVAILABLE;
}

int capture_new(Capture **ret, const Config *config, CaptureInfo *ret_info)
{
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
        if (config->capture_backend != CAPTURE_BACKEND_BPF_ITER)
                r = try_backend(ret, config, false, &sleeper, ret_info);
        if (r == CAPTURE_E_UNAVAILABLE && config->capture_backend != CAPTURE_BACKEND_BPF_SYSCALL)
                r = try_backend(ret, config, true, &sleeper, ret_info);
        sleeper_stop(&sleeper);
        if (uname(&kernel) == 0)
                append(ret_info, " (Linux %s)", kernel.release);
        if (r < 0)
                append(ret_info, "; %s", strerror(-r));
        return error_trace(r);
}
