/* SPDX-License-Identifier: Apache-2.0 */
#include <elfutils/libdwfl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture/capture.h"
#include "manager/module-cache.h"
#include "unwind/unwind.h"
#include "util/time.h"

/*
 * What a capture costs the daemon, and its unwinding: CPU time, unless it says otherwise.
 *
 *   capture-bench capture BACKEND N    µs per capture of threads of a child process, N times each
 *   capture-bench unwind PID N         captures a process at random moments, and unwinds these
 *                                      captures with the daemon's unwinder and with libdwfl: ns per
 *                                      frame, N times each
 *
 * Output: a line for each kind of capture, of its name and its N values.
 */

enum {
        N_SLEEPERS = 100,
        N_AT_ONCE = 50, /* copies: there are 64 buffers */
        N_ROUNDS = 40,  /* in one measurement */
        N_SHOTS = 100,
        N_FRAMES = 15,
        FRAME_BYTES = 250, /* so that a copy of 4 KiB is enough, and most of it is needed */
        FRAMES_MAX = 4096,
        MAX_STACK = 64 << 10,
        N_STACKS = 200,
        PULLS_MAX = 1000,
        SHOT_TIMEOUT_MS = 1000,
};

typedef struct Child {
        pid_t sleepers[N_SLEEPERS];
        pid_t runner;
        int n_ready;
        bool run; /* the runner */
} Child;

typedef struct Bench {
        Capture *capture;
        ModuleCache *modules;
        ProcMap *map;
        pid_t pid;
        CaptureThread *sleepers[N_SLEEPERS], *runner;
        CaptureResult results[N_SLEEPERS];
        Frame frames[FRAMES_MAX];
        size_t n_frames; /* found, since it was reset */
        bool has_no_shots;
} Bench;

/* ---- the child ---- */

static Child *child;

static __attribute__((noipa)) void sleep_below(unsigned depth)
{
        volatile char room[FRAME_BYTES];

        room[0] = (char)depth;
        if (depth > 0) {
                sleep_below(depth - 1);
        } else {
                __atomic_add_fetch(&child->n_ready, 1, __ATOMIC_RELEASE);
                while (child->n_ready > 0)
                        pause();
        }
        (void)room[0];
}

static void *sleep_deep(void *tid)
{
        *(pid_t *)tid = (pid_t)syscall(SYS_gettid);
        sleep_below(N_FRAMES - 5); /* with pause(), this one, and the C library's two */
        return NULL;
}

/* So that those who are captured have one beside the one who captures. */
static void use_cpu(int i)
{
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(i, &set);
        sched_setaffinity(0, sizeof(set), &set); /* one CPU alone: never mind */
}

static void *run(void *tid)
{
        *(pid_t *)tid = (pid_t)syscall(SYS_gettid);
        __atomic_add_fetch(&child->n_ready, 1, __ATOMIC_RELEASE);
        while (!__atomic_load_n(&child->run, __ATOMIC_RELAXED))
                usleep(1000);
        for (volatile unsigned i = 0;; i++)
                ;
        return NULL;
}

/* Return: its pid; 0: failed. */
static pid_t start_child(void)
{
        pid_t pid;

        child = mmap(
                NULL, sizeof(*child), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (child == MAP_FAILED)
                return 0;
        pid = fork();
        if (pid == 0) {
                pthread_t thread;

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                use_cpu(1);
                for (unsigned i = 0; i < N_SLEEPERS; i++)
                        if (pthread_create(&thread, NULL, sleep_deep, &child->sleepers[i]) != 0)
                                _exit(1);
                run(&child->runner);
        }
        for (unsigned i = 0; i < 10000; i++) {
                if (__atomic_load_n(&child->n_ready, __ATOMIC_ACQUIRE) == N_SLEEPERS + 1)
                        break;
                usleep(1000);
        }
        usleep(10000); /* for the last one to sleep */
        return pid;
}

/* ---- captures ---- */

static double cpu_us(void)
{
        return (double)clock_ns(CLOCK_THREAD_CPUTIME_ID) / NS_PER_US;
}

static void die(const char *what)
{
        fprintf(stderr, "%s\n", what);
        exit(EXIT_FAILURE);
}

/* Until there is a capture; those that run are interrupted. Return: whether there is one. */
static bool take(Bench *b, CaptureThread *t, CaptureResult *ret)
{
        for (unsigned i = 0; i < PULLS_MAX; i++) {
                struct pollfd fd = {.fd = capture_fd(b->capture), .events = POLLIN};
                void *userdata;

                if (capture_pull(b->capture, &t, 1, ret) < 0)
                        return false;
                if (ret->status == CAPTURE_RUNNING)
                        while (poll(&fd, 1, SHOT_TIMEOUT_MS) == 1)
                                if (capture_collect(b->capture, &userdata, ret))
                                        break;
                if (ret->status == CAPTURE_RUNNING)
                        capture_cancel(t, ret);
                if (ret->status == CAPTURE_TAKEN)
                        return true;
                if (ret->status == CAPTURE_GONE || ret->status == CAPTURE_REPEATED)
                        return false;
                usleep(100);
        }
        return false;
}

/* Return: how many have that status. */
static size_t pull(Bench *b, CaptureThread **threads, size_t n, CaptureStatus status)
{
        size_t n_same = 0;

        if (capture_pull(b->capture, threads, n, b->results) < 0)
                die("capture_pull failed");
        for (size_t i = 0; i < n; i++)
                n_same += b->results[i].status == status;
        return n_same;
}

static double sleeping_unchanged(Bench *b)
{
        double begin_us;
        size_t n = 0;

        for (size_t i = 0; i < N_SLEEPERS; i++) {
                if (!take(b, b->sleepers[i], &b->results[0]))
                        die("a sleeping thread cannot be captured");
                capture_release(b->sleepers[i]);
        }
        begin_us = cpu_us();
        for (unsigned i = 0; i < N_ROUNDS; i++)
                n += pull(b, b->sleepers, N_SLEEPERS, CAPTURE_REPEATED);
        begin_us = cpu_us() - begin_us;
        for (unsigned i = 0; i < N_SLEEPERS; i++)
                capture_thread_forget(b->sleepers[i]);
        return n > 0 ? begin_us / (double)n : -1;
}

static double changed(Bench *b, bool unwind)
{
        double begin_us = cpu_us();
        size_t n = 0;

        for (unsigned i = 0; i < N_ROUNDS; i++) {
                for (unsigned k = 0; k < N_AT_ONCE; k++)
                        capture_thread_forget(b->sleepers[k]);
                n += pull(b, b->sleepers, N_AT_ONCE, CAPTURE_TAKEN);
                for (unsigned k = 0; k < N_AT_ONCE; k++) {
                        if (unwind && b->results[k].status == CAPTURE_TAKEN)
                                b->n_frames += unwind_cfi(
                                        &b->results[k].copy, b->map, b->frames, FRAMES_MAX)
                                                       .n_frames;
                        capture_release(b->sleepers[k]);
                }
        }
        begin_us = cpu_us() - begin_us;
        for (unsigned k = 0; k < N_AT_ONCE; k++)
                capture_thread_forget(b->sleepers[k]);
        if (unwind && b->n_frames != n * N_FRAMES)
                fprintf(stderr, "%.2f frames a stack\n", (double)b->n_frames / (double)n);
        return n > 0 ? begin_us / (double)n : -1;
}

static double sleeping_changed(Bench *b)
{
        return changed(b, false);
}

static double sleeping_unwound(Bench *b)
{
        b->n_frames = 0;
        return changed(b, true);
}

/* Of a thread that runs, with a copy of what there is of its stack. */
static double running(Bench *b)
{
        double sum_us = 0;
        unsigned n = 0;

        for (unsigned i = 0; i < 10 * N_SHOTS && n < N_SHOTS; i++) {
                CaptureResult r;
                double begin_us;

                usleep(300);
                begin_us = cpu_us();
                if (!take(b, b->runner, &r))
                        continue;
                capture_release(b->runner);
                capture_thread_forget(b->runner);
                /* Where it had been preempted there was no shot. */
                if (r.shot || b->has_no_shots) {
                        sum_us += cpu_us() - begin_us;
                        n++;
                }
        }
        return n > 0 ? sum_us / n : -1;
}

static CaptureThread *follow(Bench *b, pid_t tid)
{
        CaptureThread *t = NULL;

        if (capture_thread_new(b->capture, &t, b->pid, tid, NULL) != 0)
                die("a thread cannot be followed");
        return t;
}

static void print(Bench *b, const char *name, double (*measure)(Bench *), unsigned n)
{
        printf("%s", name);
        measure(b); /* once, to warm up */
        for (unsigned i = 0; i < n; i++)
                printf(" %.3f", measure(b));
        puts("");
}

static void bench_capture(Bench *b, unsigned n)
{
        for (unsigned i = 0; i < N_SLEEPERS; i++)
                b->sleepers[i] = follow(b, child->sleepers[i]);
        b->runner = follow(b, child->runner);
        print(b, "unchanged", sleeping_unchanged, n);
        print(b, "changed", sleeping_changed, n);
        print(b, "unwound", sleeping_unwound, n);
        __atomic_store_n(&child->run, true, __ATOMIC_RELAXED);
        usleep(20000);
        print(b, "running", running, n);
}

/* ---- unwinding, and libdwfl ---- */

static StackCopy stacks[N_STACKS];
static size_t n_stacks;

/* Of the process's main thread. */
static void collect(Bench *b)
{
        CaptureThread *t = follow(b, b->pid);

        capture_thread_set_want(t, MAX_STACK);
        for (unsigned i = 0; i < 10 * N_STACKS && n_stacks < N_STACKS; i++) {
                struct timespec moment = {.tv_nsec = random() % 2000000};
                StackCopy *s = &stacks[n_stacks];
                CaptureResult r;
                uint8_t *bytes;

                nanosleep(&moment, NULL);
                if (!take(b, t, &r))
                        continue;
                bytes = malloc(r.copy.n);
                if (!bytes)
                        die("out of memory");
                memcpy(bytes, r.copy.bytes, r.copy.n);
                *s = r.copy;
                s->bytes = bytes;
                s->other_n = 0;
                capture_release(t);
                if (unwind_cfi(s, b->map, b->frames, FRAMES_MAX).status == UNWIND_DONE)
                        n_stacks++;
                else
                        free(bytes);
        }
        capture_thread_free(t);
}

static double unwind_ours(Bench *b)
{
        double begin_us = cpu_us();

        b->n_frames = 0;
        for (unsigned i = 0; i < N_ROUNDS; i++)
                for (size_t k = 0; k < n_stacks; k++)
                        b->n_frames +=
                                unwind_cfi(&stacks[k], b->map, b->frames, FRAMES_MAX).n_frames;
        return (cpu_us() - begin_us) * 1000 / (double)b->n_frames;
}

static const StackCopy *dwfl_stack; /* that is unwound */

static pid_t dwfl_next_thread(Dwfl *dwfl, void *pid, void **thread)
{
        (void)dwfl;
        if (*thread)
                return 0;
        *thread = pid;
        return *(pid_t *)pid;
}

static bool dwfl_read(Dwfl *dwfl, Dwarf_Addr addr, Dwarf_Word *ret, void *userdata)
{
        (void)dwfl;
        (void)userdata;
        if (addr < dwfl_stack->addr || addr - dwfl_stack->addr + sizeof(*ret) > dwfl_stack->n)
                return false;
        memcpy(ret, dwfl_stack->bytes + (addr - dwfl_stack->addr), sizeof(*ret));
        return true;
}

static bool dwfl_set_registers(Dwfl_Thread *thread, void *userdata)
{
        (void)userdata;
        return dwfl_thread_state_registers(thread, 0, N_REGS, dwfl_stack->regs.r);
}

static int dwfl_count(Dwfl_Frame *frame, void *n)
{
        Dwarf_Addr pc;

        if (!dwfl_frame_pc(frame, &pc, NULL))
                return DWARF_CB_ABORT;
        ++*(size_t *)n;
        return DWARF_CB_OK;
}

static int dwfl_no_debuginfo(Dwfl_Module *module, void **userdata, const char *name,
        Dwarf_Addr base, const char *file, const char *link, GElf_Word crc, char **ret)
{
        (void)module;
        (void)userdata;
        (void)name;
        (void)base;
        (void)file;
        (void)link;
        (void)crc;
        (void)ret;
        return -1;
}

static Dwfl *dwfl;

static double unwind_dwfl(Bench *b)
{
        double begin_us = cpu_us();

        b->n_frames = 0;
        for (size_t k = 0; k < n_stacks; k++) {
                dwfl_stack = &stacks[k];
                dwfl_getthread_frames(dwfl, b->pid, dwfl_count, &b->n_frames);
        }
        return b->n_frames ? (cpu_us() - begin_us) * 1000 / (double)b->n_frames : -1;
}

static void bench_unwind(Bench *b, unsigned n)
{
        static const Dwfl_Callbacks callbacks = {
                .find_elf = dwfl_linux_proc_find_elf, .find_debuginfo = dwfl_no_debuginfo};
        static const Dwfl_Thread_Callbacks thread_callbacks = {
                .next_thread = dwfl_next_thread,
                .memory_read = dwfl_read,
                .set_initial_registers = dwfl_set_registers,
        };
        size_t n_ours;

        collect(b);
        if (n_stacks == 0)
                die("nothing was captured");
        print(b, "ours", unwind_ours, n);
        n_ours = b->n_frames / N_ROUNDS;
        dwfl = dwfl_begin(&callbacks);
        if (!dwfl || dwfl_linux_proc_report(dwfl, b->pid) != 0 ||
                dwfl_report_end(dwfl, NULL, NULL) != 0 ||
                !dwfl_attach_state(dwfl, NULL, b->pid, &thread_callbacks, &b->pid))
                die(dwfl_errmsg(-1));
        print(b, "dwfl", unwind_dwfl, n);
        printf("frames %zu %zu %zu\n", n_stacks, n_ours, b->n_frames);
        dwfl_end(dwfl);
}

int main(int argc, char **argv)
{
        static const char *const backends[] = {
                [CAPTURE_BACKEND_AUTO] = "auto",
                [CAPTURE_BACKEND_BPF_SYSCALL] = "bpf-syscall",
                [CAPTURE_BACKEND_BPF_ITER] = "bpf-iter",
                [CAPTURE_BACKEND_PTRACE] = "ptrace",
        };
        static Bench b;
        Config config = {
                .capture_max_stack_bytes = MAX_STACK,
                .capture_max_targets = N_SLEEPERS + 1,
        };
        setvbuf(stdout, NULL, _IONBF, 0);
        bool capturing = argc == 4 && strcmp(argv[1], "capture") == 0;
        int stop_fd = eventfd(0, EFD_CLOEXEC);
        CaptureInfo info;

        if (argc != 4)
                die("capture-bench capture BACKEND N | unwind PID N");
        for (unsigned i = 0; capturing && i < sizeof(backends) / sizeof(*backends); i++)
                if (backends[i] && strcmp(argv[2], backends[i]) == 0)
                        config.capture_backend = (CaptureBackend)i;
        use_cpu(0);
        b.pid = capturing ? start_child() : atoi(argv[2]);
        if (capture_new(&b.capture, &config, &info) != 0)
                die(info.reason);
        b.has_no_shots = info.stops;
        if (module_cache_new(&b.modules) != 0 ||
                module_cache_load(b.modules, b.pid, true, stop_fd, &b.map) != 0)
                die("the process cannot be read");
        if (capturing)
                bench_capture(&b, (unsigned)atoi(argv[3]));
        else
                bench_unwind(&b, (unsigned)atoi(argv[3]));
        if (capturing) {
                kill(b.pid, SIGKILL);
                waitpid(b.pid, NULL, 0);
        }
        capture_free(b.capture);
        procmap_unref(b.map);
        module_cache_free(b.modules);
        return EXIT_SUCCESS;
}
