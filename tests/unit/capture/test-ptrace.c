/* SPDX-License-Identifier: Apache-2.0 */

/* Captures by ptrace, of threads of child processes: no one can trace those of its own. */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "capture/capture.h"
#include "capture/tracee.h"
#include "util/cleanup.h"
#include "util/time.h"

#define RED_ZONE  128
#define COOKIE    0x5157505257415243ULL
#define N_THREADS 100 /* more than there are buffers */
#define NOINLINE  __attribute__((noinline, noclone))

static Config config = {.capture_backend = CAPTURE_BACKEND_PTRACE,
        .capture_max_stack_bytes = 65536,
        .capture_max_targets = 1024};

static Capture *new_capture(void)
{
        CaptureInfo info;
        Capture *c = NULL;
        int r = capture_new(&c, &config, &info);

        cr_assert(r >= 0, "%s", info.reason);
        if (r)
                cr_skip_test("%s", info.reason);
        cr_assert(info.stops && strcmp(info.backend, "ptrace") == 0);
        return c;
}

/* ---- children: what they share with the test ---- */

typedef struct Child {
        pid_t pid;
        int fd; /* eventfd that it reads */
        atomic_int tid;
        atomic_int tids[N_THREADS];
        atomic_uint n_wakes, n_signals, n_rounds;
        atomic_bool stop, done;
        _Atomic uintptr_t local;
} Child;

static uint64_t value; /* what children read into */

static NOINLINE void wait_once(Child *c)
{
        if (read(c->fd, &value, sizeof(value)) == sizeof(value))
                atomic_fetch_add(&c->n_wakes, 1);
}

static Child *child_start(void (*run)(Child *c))
{
        Child *c =
                mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t pid;

        cr_assert(c != MAP_FAILED);
        c->fd = eventfd(0, EFD_SEMAPHORE);
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                run(c);
                _exit(0);
        }
        c->pid = pid;
        while (!atomic_load(&c->tid))
                sched_yield();
        return c;
}

/* When it has ended; the backend, which in here is the parent too, may have seen that first. */
static void child_free(Child *c)
{
        cr_assert(waitpid(c->pid, NULL, 0) == c->pid || errno == ECHILD);
        close(c->fd);
        munmap(c, sizeof(*c));
}

static void child_kill(Child *c)
{
        kill(c->pid, SIGKILL);
        child_free(c);
}

/* One read() of the child further. */
static void child_step(Child *c)
{
        unsigned n = atomic_load(&c->n_wakes);

        eventfd_write(c->fd, 1);
        while (atomic_load(&c->n_wakes) == n)
                sched_yield();
}

static CaptureThread *follow(Capture *c, Child *child)
{
        CaptureThread *t = NULL;

        cr_assert(capture_thread_new(c, &t, child->pid, atomic_load(&child->tid), child) == 0);
        return t;
}

static CaptureStatus pull(Capture *c, CaptureThread *t, CaptureResult *ret)
{
        for (;;) {
                cr_assert(capture_pull(c, &t, 1, ret) == 0);
                if (ret->status != CAPTURE_UNSTABLE)
                        return ret->status;
                sched_yield(); /* it may need this CPU to stop */
        }
}

/* Until the thread sleeps in read(). */
static CaptureStatus pull_asleep(Capture *c, CaptureThread *t, CaptureResult *ret)
{
        while (pull(c, t, ret) == CAPTURE_TAKEN && ret->syscall != SYS_read)
                capture_thread_forget(t);
        return ret->status;
}

/* A line of /proc/PID/status, or of another file of the process that has one line: its value. */
static unsigned long long read_number(pid_t pid, const char *file, const char *name)
{
        char path[64], text[4096], *found;
        ssize_t n;
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        cr_assert_geq(fd, 0);
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
        cr_assert_gt(n, 0);
        text[n] = '\0';
        found = strstr(text, name);
        cr_assert_not_null(found, "%s", name);
        return strtoull(found + strlen(name), NULL, 10);
}

static char state_of(pid_t pid)
{
        char path[64], text[512], *found;
        ssize_t n;
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        cr_assert_geq(fd, 0);
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
        cr_assert_gt(n, 0);
        text[n] = '\0';
        found = strrchr(text, ')');
        cr_assert_not_null(found);
        return found[2];
}

static unsigned long long n_switches(pid_t pid)
{
        return read_number(pid, "status", "\nvoluntary_ctxt_switches:\t") +
               read_number(pid, "status", "nonvoluntary_ctxt_switches:\t");
}

/* ---- threads that wait, and that run ---- */

static void sleeper(Child *c)
{
        volatile uint64_t cookie[2] = {COOKIE, ~COOKIE};

        atomic_store(&c->local, (uintptr_t)&cookie[0]);
        atomic_store(&c->tid, getpid());
        while (cookie[0] == COOKIE)
                wait_once(c);
}

Test(ptrace, waiting)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(sleeper);
        unsigned long long switches;
        uint64_t offset, cookie;
        CaptureResult r;

        t = follow(c, child);
        for (int i = 0; i < 50; i++) {
                capture_thread_forget(t);
                cr_assert_eq(pull_asleep(c, t, &r), CAPTURE_TAKEN, "round %d: %d", i, r.status);
                cr_assert(!r.shot && r.mono_ns <= mono_now_ns());
                cr_assert_eq(r.syscall, SYS_read);
                cr_assert_eq(r.copy.regs.r[X86_RDI], (uint64_t)child->fd);
                cr_assert_eq(r.copy.addr, r.copy.regs.r[X86_RSP] - RED_ZONE);
                cr_assert(r.space.exec_vm && r.space.mm && r.space.process_start_boottime);
                cr_assert_gt(r.runtime_ns, 0);
                offset = atomic_load(&child->local) - r.copy.addr;
                cr_assert_lt(offset + 8, r.copy.n);
                memcpy(&cookie, r.copy.bytes + offset, sizeof(cookie));
                cr_assert_eq(cookie, COOKIE);
                capture_release(t);
                /* Back in its call, it is left alone. */
                while (pull(c, t, &r) != CAPTURE_REPEATED)
                        capture_release(t);
                switches = n_switches(child->pid);
                for (int k = 0; k < 100; k++)
                        cr_assert_eq(pull(c, t, &r), CAPTURE_REPEATED);
                cr_assert_eq(n_switches(child->pid), switches, "it was stopped");
                child_step(child);
        }
        /* As it is when it waits just there again. */
        while (pull(c, t, &r) != CAPTURE_REPEATED)
                capture_release(t);
        cr_assert(!r.copy.bytes);
        child_kill(child);
}

static NOINLINE void first_place(Child *c)
{
        wait_once(c);
        __asm__ volatile("");
}

static NOINLINE void second_place(Child *c)
{
        wait_once(c);
        __asm__ volatile("nop");
}

static void wanderer(Child *c)
{
        atomic_store(&c->tid, getpid());
        for (;;) {
                first_place(c);
                second_place(c);
        }
}

static bool returns_to(const CaptureResult *r, void (*function)(Child *c))
{
        uint64_t begin = (uintptr_t)function, word;

        for (size_t i = RED_ZONE; i + 8 <= r->copy.n; i += 8) {
                memcpy(&word, r->copy.bytes + i, sizeof(word));
                if (word > begin && word < begin + 64)
                        return true;
        }
        return false;
}

/* The same call, arguments and stack pointer, yet called from elsewhere. */
Test(ptrace, waiting_elsewhere)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(wanderer);
        CaptureResult r;

        t = follow(c, child);
        for (int i = 0; i < 60; i++) {
                void (*place)(Child *) = i % 2 ? second_place : first_place;

                cr_assert_eq(pull_asleep(c, t, &r), CAPTURE_TAKEN, "round %d: %d", i, r.status);
                cr_assert(returns_to(&r, place), "round %d", i);
                capture_release(t);
                if (i % 4 < 2)
                        while (pull(c, t, &r) != CAPTURE_REPEATED)
                                capture_release(t);
                child_step(child);
        }
        child_kill(child);
}

static void runner(Child *c)
{
        atomic_store(&c->tid, getpid());
        for (;;)
                atomic_fetch_add(&c->n_rounds, 1);
}

Test(ptrace, running)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(runner);
        CaptureResult r;

        t = follow(c, child);
        for (int i = 0; i < 60; i++) {
                unsigned n;

                cr_assert_eq(pull(c, t, &r), CAPTURE_TAKEN, "round %d: %d", i, r.status);
                cr_assert(!r.shot && r.copy.n > RED_ZONE);
                capture_release(t);
                cr_assert_eq(read_number(child->pid, "status", "TracerPid:\t"), 0);
                n = atomic_load(&child->n_rounds);
                while (atomic_load(&child->n_rounds) == n)
                        sched_yield();
        }
        child_kill(child);
}

static void runner_in_a_call(Child *c)
{
        static char bytes[1 << 20];

        atomic_store(&c->tid, getpid());
        while (syscall(SYS_getrandom, bytes, sizeof(bytes), 0) > 0)
                ;
}

/* Whoever is in a call need not wait there. */
Test(ptrace, waits_or_runs_in_a_call)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        Child *running = child_start(runner_in_a_call), *waiting = child_start(sleeper);
        CaptureThread *t = follow(c, running);
        CaptureResult r;

        for (int n_in_call = 0; n_in_call < 20; n_in_call += r.syscall == SYS_getrandom) {
                cr_assert_eq(pull(c, t, &r), CAPTURE_TAKEN);
                cr_assert(!r.blocked && !r.queued);
                capture_release(t);
        }
        capture_thread_free(t);
        child_kill(running);

        t = follow(c, waiting);
        do {
                capture_thread_forget(t);
                cr_assert_eq(pull(c, t, &r), CAPTURE_TAKEN);
                capture_release(t);
        } while (!r.blocked || r.syscall != SYS_read);
        capture_thread_free(t);
        child_kill(waiting);
}

static void sleeper_of_many_groups(Child *c)
{
        gid_t groups[1500];

        for (int i = 0; i < 1500; i++)
                groups[i] = 1000000000U + (gid_t)i;
        if (setgroups(1500, groups) < 0)
                _exit(1);
        sleeper(c);
}

/* The kernel names them all before it comes to the memory. */
Test(ptrace, many_groups)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        CaptureResult r;
        Child *child;

        if (geteuid() != 0)
                cr_skip_test("needs root, to have groups");
        child = child_start(sleeper_of_many_groups);
        t = follow(c, child);
        cr_assert_eq(pull_asleep(c, t, &r), CAPTURE_TAKEN);
        cr_assert_gt(r.space.exec_vm, 0);
        child_kill(child);
}

/* ---- many, and more than there are buffers ---- */

static void *crowd_thread(void *userdata)
{
        Child *c = userdata;

        atomic_store(&c->tids[atomic_fetch_add(&c->n_rounds, 1)], (pid_t)syscall(SYS_gettid));
        for (;;)
                wait_once(c);
        return NULL;
}

static void crowd(Child *c)
{
        pthread_t thread;

        for (int i = 0; i < N_THREADS; i++)
                if (pthread_create(&thread, NULL, crowd_thread, c))
                        _exit(1);
        for (int i = 0; i < N_THREADS; i++)
                while (!atomic_load(&c->tids[i]))
                        sched_yield();
        atomic_store(&c->tid, getpid());
        pause();
}

Test(ptrace, many)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        CaptureThread *t[N_THREADS], *pending[N_THREADS];
        CaptureResult r[N_THREADS];
        Child *child = child_start(crowd);
        size_t n_taken = 0, n_pending = N_THREADS;

        for (int i = 0; i < N_THREADS; i++) {
                cr_assert(capture_thread_new(
                                  c, &t[i], child->pid, atomic_load(&child->tids[i]), NULL) == 0);
                pending[i] = t[i];
        }
        while (n_pending > 0) {
                size_t n_before = n_pending;

                cr_assert(capture_pull(c, pending, n_before, r) == 0);
                n_pending = 0;
                for (size_t i = 0; i < n_before; i++) {
                        n_taken += r[i].status == CAPTURE_TAKEN;
                        if (r[i].status == CAPTURE_BUSY || r[i].status == CAPTURE_UNSTABLE)
                                pending[n_pending++] = pending[i];
                        else
                                cr_assert_eq(r[i].status, CAPTURE_TAKEN);
                        if (r[i].status == CAPTURE_TAKEN)
                                capture_release(pending[i]);
                }
        }
        cr_assert_eq(n_taken, N_THREADS);
        for (int i = 0; i < N_THREADS; i++)
                capture_thread_free(t[i]);
        child_kill(child);
}

/* ---- signals, job control, other tracers ---- */

static Child *handler_child;

static void count_signal(int signal)
{
        atomic_fetch_add(
                signal == SIGRTMIN ? &handler_child->n_signals : &handler_child->n_rounds, 1);
}

static void signalled(Child *c)
{
        struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};

        handler_child = c;
        sigfillset(&action.sa_mask); /* one handler after the other */
        sigaction(SIGRTMIN, &action, NULL);
        sigaction(SIGRTMIN + 1, &action, NULL);
        atomic_store(&c->tid, getpid());
        for (;;)
                wait_once(c);
}

Test(ptrace, signals_arrive)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(signalled);
        CaptureResult r;
        pid_t sender;

        t = follow(c, child);
        sender = fork();
        if (sender == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                while (!atomic_load(&child->stop))
                        if (sigqueue(child->pid, SIGRTMIN, (union sigval){0}) == 0)
                                atomic_fetch_add(&child->n_wakes, 1);
                _exit(0);
        }
        for (int i = 0; i < 500; i++) {
                capture_thread_forget(t);
                cr_assert_eq(pull(c, t, &r), CAPTURE_TAKEN);
                capture_release(t);
        }
        atomic_store(&child->stop, true);
        cr_assert_eq(waitpid(sender, NULL, 0), sender);
        /* Delivered after all that have a lower number. */
        kill(child->pid, SIGRTMIN + 1);
        while (atomic_load(&child->n_rounds) == 0)
                sched_yield();
        cr_assert_eq(atomic_load(&child->n_signals), atomic_load(&child->n_wakes));
        child_kill(child);
}

/* A stop that turns out to be that of a signal's delivery must not swallow it. Here it is nothing
 * else: the thread is not asked to stop. */
Test(ptrace, stops_at_a_signal)
{
        Child *child = child_start(signalled);
        Tracee t = TRACEE_INIT(child->pid, child->pid);

        if (ptrace(PTRACE_SEIZE, child->pid, NULL, NULL) < 0)
                cr_skip_test("ptrace: %s", strerror(errno));
        t.wait_tid = child->pid;
        t.seized = true;
        kill(child->pid, SIGRTMIN);
        while (tracee_stop(&t, NS_PER_S) == TRACEE_E_RUNNING)
                ;
        cr_assert(t.seized);
        cr_assert_eq(t.signal, SIGRTMIN);
        cr_assert_eq(atomic_load(&child->n_signals), 0);
        tracee_resume(&t);
        cr_assert(!t.seized);
        kill(child->pid, SIGRTMIN + 1);
        while (atomic_load(&child->n_rounds) == 0)
                sched_yield();
        cr_assert_eq(atomic_load(&child->n_signals), 1);
        child_kill(child);
}

Test(ptrace, stopped_by_job_control)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(sleeper);
        CaptureResult r;
        int status;

        t = follow(c, child);
        for (int i = 0; i < 20; i++) {
                kill(child->pid, SIGSTOP);
                cr_assert_eq(waitpid(child->pid, &status, WUNTRACED), child->pid);
                cr_assert(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
                capture_thread_forget(t);
                cr_assert_eq(pull(c, t, &r), CAPTURE_TAKEN);
                capture_release(t);
                while (state_of(child->pid) != 'T')
                        sched_yield();
                kill(child->pid, SIGCONT);
                child_step(child);
        }
        child_kill(child);
}

Test(ptrace, another_tracer)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(sleeper);
        int pipe_fds[2];
        CaptureResult r;
        pid_t tracer;
        char word;

        t = follow(c, child);
        cr_assert_eq(pipe(pipe_fds), 0);
        tracer = fork();
        if (tracer == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                word = ptrace(PTRACE_SEIZE, child->pid, NULL, NULL) == 0 ? 'y' : 'n';
                if (write(pipe_fds[1], &word, 1) == 1)
                        pause();
                _exit(1);
        }
        cr_assert(read(pipe_fds[0], &word, 1) == 1 && word == 'y');
        cr_assert_eq(pull(c, t, &r), CAPTURE_DENIED);
        kill(tracer, SIGKILL);
        waitpid(tracer, NULL, 0);
        cr_assert_eq(pull(c, t, &r), CAPTURE_TAKEN);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        child_kill(child);
}

/* ---- ends ---- */

Test(ptrace, gone)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        CaptureThread *none = NULL;
        Child *child = child_start(runner);
        pid_t pid = child->pid;
        siginfo_t info;
        CaptureResult r;

        t = follow(c, child);
        cr_assert_eq(pull(c, t, &r), CAPTURE_TAKEN);
        capture_release(t);
        kill(pid, SIGKILL);
        cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        cr_assert_eq(pull(c, t, &r), CAPTURE_GONE, "a zombie");
        child_kill(child);
        cr_assert_eq(pull(c, t, &r), CAPTURE_GONE);
        cr_assert_eq(capture_thread_new(c, &none, pid, pid, NULL), CAPTURE_E_GONE);
}

static void end_at_once(Child *c)
{
        atomic_store(&c->tid, getpid());
}

/* Ends while it is being stopped, as often as that happens; its parent learns of it. */
Test(ptrace, ends_meanwhile)
{
        _cleanup_(capture_freep) Capture *c = new_capture();

        for (int i = 0; i < 40; i++) {
                CaptureThread *t = NULL;
                CaptureResult r;
                Child *child = child_start(end_at_once);

                if (capture_thread_new(c, &t, child->pid, child->pid, NULL) == 0)
                        while (pull(c, t, &r) != CAPTURE_GONE) {
                                cr_assert_eq(r.status, CAPTURE_TAKEN);
                                capture_thread_forget(t);
                        }
                capture_thread_free(t);
                child_kill(child);
        }
}

static void *outlive(void *userdata)
{
        Child *c = userdata;

        while (!atomic_load(&c->stop))
                sched_yield();
        return NULL;
}

static void leader_ends(Child *c)
{
        pthread_t thread;

        if (pthread_create(&thread, NULL, outlive, c))
                _exit(1);
        atomic_store(&c->tid, getpid());
        pthread_exit(NULL);
}

/* No wait tells of a leader that ended before its threads; its parent is to learn of it all the
 * same when they have. */
Test(ptrace, leader_ends_meanwhile)
{
        _cleanup_(capture_freep) Capture *c = new_capture();

        for (int i = 0; i < 40; i++) {
                CaptureThread *t = NULL;
                CaptureResult r;
                Child *child = child_start(leader_ends);

                if (capture_thread_new(c, &t, child->pid, child->pid, NULL) == 0)
                        while (pull(c, t, &r) != CAPTURE_GONE) {
                                cr_assert_eq(r.status, CAPTURE_TAKEN);
                                capture_thread_forget(t);
                        }
                capture_thread_free(t);
                atomic_store(&child->stop, true);
                child_kill(child);
        }
}

static void exec_sleep(Child *c)
{
        atomic_store(&c->tid, getpid());
        wait_once(c);
        execlp("sleep", "sleep", "1000", (char *)NULL);
        _exit(1);
}

/* It has the same number and the same start, but nothing to do any more with what it did. */
Test(ptrace, gone_with_exec)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(exec_sleep);
        CaptureResult r;

        t = follow(c, child);
        cr_assert_eq(pull_asleep(c, t, &r), CAPTURE_TAKEN);
        capture_release(t);
        eventfd_write(child->fd, 1);
        for (;;) {
                capture_thread_forget(t);
                if (pull(c, t, &r) == CAPTURE_GONE)
                        break;
                cr_assert_eq(r.status, CAPTURE_TAKEN);
                cr_assert_neq(r.syscall, SYS_clock_nanosleep, "what sleep(1) does");
                capture_release(t);
        }
        cr_assert_eq(capture_finish(t, &r), CAPTURE_E_GONE);
        child_kill(child);
}

static void *exec_thread(void *userdata)
{
        Child *c = userdata;

        atomic_store(&c->tids[0], (pid_t)syscall(SYS_gettid));
        wait_once(c);
        execlp("true", "true", (char *)NULL);
        _exit(1);
}

static void exec_by_thread(Child *c)
{
        pthread_t thread;

        pthread_create(&thread, NULL, exec_thread, c);
        while (!atomic_load(&c->tids[0]))
                sched_yield();
        atomic_store(&c->tid, atomic_load(&c->tids[0]));
        for (;;)
                pause();
}

/* The thread becomes its process' main thread, under that one's number: it must not stay stopped. */
Test(ptrace, exec_by_a_thread)
{
        _cleanup_(capture_freep) Capture *c = new_capture();

        for (int i = 0; i < 20; i++) {
                Child *child = child_start(exec_by_thread);
                CaptureThread *t = follow(c, child);
                CaptureResult r;

                eventfd_write(child->fd, 1);
                while (pull(c, t, &r) != CAPTURE_GONE) {
                        cr_assert_eq(r.status, CAPTURE_TAKEN);
                        capture_thread_forget(t);
                }
                capture_thread_free(t);
                child_free(child);
        }
}

/* ---- threads that do not stop ---- */

static void uninterruptible(Child *c)
{
        atomic_store(&c->tid, getpid());
        /* Until the new process has ended. */
        if (vfork() == 0) {
                uint64_t v;

                syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
                syscall(SYS_read, c->fd, &v, sizeof(v));
                _exit(0);
        }
        atomic_store(&c->done, true);
        for (;;)
                pause();
}

static void wait_uninterruptible(Child *child)
{
        while (state_of(child->pid) != 'D')
                sched_yield();
}

Test(ptrace, does_not_stop)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(uninterruptible);
        CaptureResult r;

        t = follow(c, child);
        wait_uninterruptible(child);
        for (int i = 0; i < 3; i++) {
                cr_assert(capture_pull(c, &t, 1, &r) == 0);
                cr_assert_eq(r.status, CAPTURE_UNSTABLE);
        }
        eventfd_write(child->fd, 1);
        cr_assert_eq(pull(c, t, &r), CAPTURE_TAKEN);
        while (!atomic_load(&child->done))
                sched_yield();
        child_kill(child);
}

/* Nobody asks for it any more when it stops. */
Test(ptrace, stops_too_late)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        struct pollfd p = {.fd = capture_fd(c), .events = POLLIN};
        Child *child = child_start(uninterruptible);
        CaptureThread *t = follow(c, child);
        void *userdata;
        CaptureResult r;

        wait_uninterruptible(child);
        cr_assert(capture_pull(c, &t, 1, &r) == 0);
        cr_assert_eq(r.status, CAPTURE_UNSTABLE);
        capture_thread_free(t);
        cr_assert_neq(read_number(child->pid, "status", "TracerPid:\t"), 0);
        eventfd_write(child->fd, 1);
        while (read_number(child->pid, "status", "TracerPid:\t") != 0) {
                cr_assert_eq(poll(&p, 1, 10000), 1);
                cr_assert(!capture_collect(c, &userdata, &r));
        }
        while (!atomic_load(&child->done))
                sched_yield();
        /* Nothing is left to be done. */
        cr_assert(!capture_collect(c, &userdata, &r));
        cr_assert_eq(poll(&p, 1, 50), 0);
        child_kill(child);
}

/* ---- memory ---- */

#define HOLE (40 * 1024)

static NOINLINE void wait_below_a_hole(Child *c)
{
        char hole[HOLE];

        __asm__ volatile("" : : "r"(hole) : "memory");
        wait_once(c);
        __asm__ volatile("" : : "r"(hole) : "memory");
}

static void *hole_thread(void *userdata)
{
        Child *c = userdata;
        volatile uint64_t cookie = COOKIE;

        atomic_store(&c->local, (uintptr_t)&cookie);
        atomic_store(&c->tid, (pid_t)syscall(SYS_gettid));
        while (cookie == COOKIE)
                wait_below_a_hole(c);
        return NULL;
}

static void on_a_stack(Child *c, void *stack, size_t size, void *(*run)(void *))
{
        pthread_attr_t attr;
        pthread_t thread;

        pthread_attr_init(&attr);
        pthread_attr_setstack(&attr, stack, size);
        if (stack == MAP_FAILED || pthread_create(&thread, &attr, run, c))
                _exit(1);
        for (;;)
                pause();
}

static void above_a_hole(Child *c)
{
        on_a_stack(c,
                mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                1 << 20, hole_thread);
}

/* Pages that the thread never touched do not end the copy, and larger copies are had by asking. */
Test(ptrace, grows_over_untouched_pages)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(above_a_hole);
        uint64_t offset, cookie;
        CaptureResult r;

        t = follow(c, child);
        cr_assert_eq(pull_asleep(c, t, &r), CAPTURE_TAKEN);
        cr_assert_leq(r.copy.n, 4096);
        capture_release(t);
        capture_thread_set_want(t, 65536);
        capture_thread_forget(t);
        cr_assert_eq(pull_asleep(c, t, &r), CAPTURE_TAKEN);
        offset = atomic_load(&child->local) - r.copy.addr;
        cr_assert(offset > HOLE && offset + 8 <= r.copy.n, "%zu", r.copy.n);
        memcpy(&cookie, r.copy.bytes + offset, sizeof(cookie));
        cr_assert_eq(cookie, COOKIE);
        child_kill(child);
}

static void on_a_file(Child *c)
{
        int fd = memfd_create("stack", MFD_CLOEXEC);

        if (ftruncate(fd, 1 << 20) < 0)
                _exit(1);
        on_a_stack(c, mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), 1 << 20,
                hole_thread);
}

/* Whoever serves the file's pages could make us wait. */
Test(ptrace, stack_in_a_file)
{
        _cleanup_(capture_freep) Capture *c = new_capture();
        _cleanup_(capture_thread_freep) CaptureThread *t = NULL;
        Child *child = child_start(on_a_file);
        CaptureResult r;

        t = follow(c, child);
        cr_assert_eq(pull(c, t, &r), CAPTURE_FAULT);
        child_kill(child);
}

/* ---- the choice ---- */

static void drop_bpf(void)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
        static const unsigned drop[] = {CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN};

        cr_assert_eq(syscall(SYS_capget, &header, data), 0);
        for (size_t i = 0; i < 3; i++)
                data[drop[i] / 32].effective &= ~(1U << drop[i] % 32);
        cr_assert_eq(syscall(SYS_capset, &header, data), 0);
}

Test(ptrace, chosen_without_bpf)
{
        _cleanup_(capture_freep) Capture *c = NULL;
        Config any = config;
        CaptureInfo info;

        capture_free(new_capture()); /* skips where there is no ptrace */
        drop_bpf();
        any.capture_backend = CAPTURE_BACKEND_AUTO;
        cr_assert_eq(capture_new(&c, &any, &info), 0, "%s", info.reason);
        cr_assert_str_eq(info.backend, "ptrace");
        cr_assert(info.stops);
        cr_assert(strstr(info.reason, "missing: CAP_BPF, CAP_PERFMON"), "%s", info.reason);
        c = capture_free(c);
        any.capture_backend = CAPTURE_BACKEND_BPF;
        cr_assert_eq(capture_new(&c, &any, &info), CAPTURE_E_UNAVAILABLE);
        cr_assert_null(strstr(info.reason, "ptrace:"), "%s", info.reason);
}
