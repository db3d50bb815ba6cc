/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Real captures of real threads, by each backend. Skipped, with the reason, where the host allows
 * none. */

#include "threads.h"
#include "util/time.h"

#define N_WORDS 4096

/* ---- sleeping threads ---- */

BACKENDS(capture, sleeping_thread)
ParameterizedTest(int *backend, capture, sleeping_thread)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        char path[64], line[256];
        unsigned long number, args[6], sp, pc;
        CaptureResult r;
        uint64_t cookie;
        Thread t;
        FILE *f;

        thread_start(&t, sleeper);
        ct = follow(c, &t);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)t.tid);
        f = fopen(path, "re");
        cr_assert(f && fgets(line, sizeof(line), f));
        fclose(f);
        cr_assert(sscanf(line, "%lu %lx %lx %lx %lx %lx %lx %lx %lx", &number, &args[0], &args[1],
                          &args[2], &args[3], &args[4], &args[5], &sp, &pc) == 9,
                "%s", line);
        cr_assert_eq(r.syscall, (int64_t)number);
        cr_assert_eq(r.copy.regs.r[X86_RSP], sp);
        cr_assert_eq(r.copy.regs.r[X86_RIP], pc);
        cr_assert_eq(r.copy.regs.r[X86_RDI], args[0]);
        cr_assert_eq(r.copy.regs.r[X86_RSI], args[1]);
        cr_assert_eq(r.copy.addr, sp - RED_ZONE);
        cr_assert(!r.shot && r.n_kernel_pcs == 0 && r.space.exec_vm > 0 &&
                  r.fsbase == (uint64_t)t.thread);
        cr_assert(t.local >= sp && t.local + sizeof(cookie) <= r.copy.addr + r.copy.n);
        memcpy(&cookie, r.copy.bytes + (t.local - r.copy.addr), sizeof(cookie));
        cr_assert_eq(cookie, 0x5157505257415243);

        /* Not a byte is left behind. */
        capture_release(ct);
        for (size_t i = 0; i < r.copy.n; i++)
                cr_assert_eq(r.copy.bytes[i], 0);
        thread_stop(&t);
}

BACKENDS(capture, repeated_until_it_runs)
ParameterizedTest(int *backend, capture, repeated_until_it_runs)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        CaptureResult r;
        Thread t;

        thread_start(&t, sleeper);
        ct = follow(c, &t);
        for (int i = 0; i < 20; i++) {
                cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
                cr_assert(pull_asleep(c, ct, &r) == CAPTURE_REPEATED);
                cr_assert(pull_asleep(c, ct, &r) == CAPTURE_REPEATED);
                thread_step(&t);
        }
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        thread_stop(&t);
}

/* A wait's begin, and the end of the one before, lie where the clock says. */
BACKENDS(capture, times_of_waits)
ParameterizedTest(int *backend, capture, times_of_waits)
{
        const uint64_t slack_ns = NS_PER_MS; /* the two clocks' corrections */
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        unsigned n_known = 0;
        CaptureResult r;
        Thread t;

        thread_start(&t, sleeper);
        ct = follow(c, &t);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.waited_until_mono_ns, 0, "nothing was before");
        cr_assert(r.waits_since_mono_ns > 0 && r.waits_since_mono_ns <= r.mono_ns);
        for (int i = 0; i < 100; i++) {
                uint64_t begin_ns = mono_now_ns();

                thread_step(&t);
                cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
                cr_assert_geq(r.waits_since_mono_ns, begin_ns - slack_ns);
                cr_assert_leq(r.waits_since_mono_ns, r.mono_ns);
                /* It may have been preempted in between. */
                if (!r.waited_until_mono_ns)
                        continue;
                n_known++;
                cr_assert_geq(r.waited_until_mono_ns, begin_ns - slack_ns);
                cr_assert_leq(r.waited_until_mono_ns, r.waits_since_mono_ns);
        }
        cr_assert_geq(n_known, 1);
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.waited_until_mono_ns, 0, "the capture before is forgotten");
        thread_stop(&t);
}

BACKENDS(capture, copies_as_much_as_wanted)
ParameterizedTest(int *backend, capture, copies_as_much_as_wanted)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        CaptureResult r;
        Thread t;

        thread_start(&t, sleeper);
        ct = follow(c, &t);
        capture_thread_set_want(ct, 24);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.copy.n, 24);
        cr_assert(r.space.exec_vm > 0);
        capture_thread_set_want(ct, 1 << 20);
        cr_assert_eq(capture_thread_want(ct), 65536);
        thread_stop(&t);
}

static void *map_stack(size_t size, int fd, int flags)
{
        void *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

        cr_assert(stack != MAP_FAILED);
        return stack;
}

static void thread_start_on(Thread *t, void *stack, size_t size)
{
        pthread_attr_t attr;

        *t = (Thread){.fd = eventfd(0, EFD_SEMAPHORE)};
        pthread_attr_init(&attr);
        pthread_attr_setstack(&attr, stack, size);
        cr_assert(pthread_create(&t->thread, &attr, sleeper, t) == 0);
        pthread_attr_destroy(&attr);
        while (!atomic_load(&t->tid))
                sched_yield();
}

/* Memory whose owner could make a reader wait: of a file, shared, or under userfaultfd. */
BACKENDS(capture, refuses_memory_that_could_block)
ParameterizedTest(int *backend, capture, refuses_memory_that_could_block)
{
        enum { SIZE = 256 * 1024 };
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        struct uffdio_api api = {.api = UFFD_API};
        int fd = memfd_create("stack", MFD_CLOEXEC), uffd;
        struct uffdio_register reg;
        void *stacks[3];

        cr_assert(fd >= 0 && ftruncate(fd, SIZE) == 0);
        stacks[0] = map_stack(SIZE, fd, MAP_PRIVATE);
        stacks[1] = map_stack(SIZE, -1, MAP_SHARED | MAP_ANONYMOUS);
        stacks[2] = map_stack(SIZE, -1, MAP_PRIVATE | MAP_ANONYMOUS);
        memset(stacks[2], 0, SIZE);
        uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
        reg = (struct uffdio_register){
                .range = {(uintptr_t)stacks[2], SIZE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0 || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
                stacks[2] = NULL; /* this kernel has no userfaultfd */
        for (int i = 0; i < 3 && stacks[i]; i++) {
                _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
                CaptureResult r;
                Thread t;

                thread_start_on(&t, stacks[i], SIZE);
                ct = follow(c, &t);
                cr_assert_eq(pull_asleep(c, ct, &r), CAPTURE_FAULT, "stack %d", i);
                cr_assert(r.copy.n == 0 && r.copy.bytes == NULL);
                thread_stop(&t);
        }
        close(uffd);
        close(fd);
}

/* The stack that a signal interrupted: half a buffer of it, as far as it goes, and no memory that
 * could block. */
BACKENDS(capture, copies_another_stack)
ParameterizedTest(int *backend, capture, copies_another_stack)
{
        enum { SIZE = 65536, HALF = 32768 };
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        /* What is behind it must be another mapping. */
        uint8_t *other = map_stack(SIZE + 4096, -1, MAP_PRIVATE | MAP_ANONYMOUS);
        static const uint8_t zeros[HALF];
        int fd = memfd_create("stack", MFD_CLOEXEC);
        const uint8_t *file;
        CaptureResult r;
        Thread t;

        cr_assert(munmap(other + SIZE, 4096) == 0);
        for (int i = 0; i < SIZE; i++)
                other[i] = (uint8_t)(i % 251 + 1);
        cr_assert(fd >= 0 && ftruncate(fd, SIZE) == 0);
        file = map_stack(SIZE, fd, MAP_PRIVATE);
        thread_start(&t, deep_sleeper);
        ct = follow(c, &t);
        capture_thread_set_want(ct, 65536);
        for (int begin = 0; begin < SIZE; begin += 20008) {
                int n = SIZE - begin < HALF ? SIZE - begin : HALF;

                capture_thread_set_other(ct, (uintptr_t)other + begin + RED_ZONE);
                capture_thread_forget(ct);
                cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
                cr_assert_eq(r.copy.n, HALF);
                cr_assert_eq(r.copy.other_addr, (uintptr_t)other + begin);
                /* Page by page: its last one may be left out. */
                cr_assert(r.copy.other_n <= (size_t)n && r.copy.other_n + 4096 > (size_t)n,
                        "%zu of %d bytes", r.copy.other_n, n);
                cr_assert_arr_eq(r.copy.other_bytes, other + begin, r.copy.other_n);
                capture_release(ct);
                cr_assert_arr_eq(r.copy.other_bytes, zeros, r.copy.other_n);
        }
        capture_thread_set_other(ct, (uintptr_t)file + RED_ZONE);
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.copy.other_n, 0);
        capture_thread_set_other(ct, 0);
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.copy.other_n, 0);
        cr_assert_eq(r.copy.n, 65536);
        thread_stop(&t);
        close(fd);
}

/* A page that cannot be read ends the copy, also when that is inside of the mapping given. */
BACKENDS(capture, copies_up_to_a_fault)
ParameterizedTest(int *backend, capture, copies_up_to_a_fault)
{
        enum { SIZE = 256 * 1024 };
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        Thread t = {.fd = eventfd(0, EFD_SEMAPHORE)};
        pthread_attr_t attr;
        CaptureResult r;
        uint8_t *stack;

        stack = mmap(
                NULL, SIZE + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert(stack != MAP_FAILED);
        cr_assert(mprotect(stack + SIZE, 65536, PROT_NONE) == 0);
        pthread_attr_init(&attr);
        pthread_attr_setstack(&attr, stack, SIZE);
        cr_assert(pthread_create(&t.thread, &attr, sleeper, &t) == 0);
        while (!atomic_load(&t.tid))
                sched_yield();
        ct = follow(c, &t);
        capture_thread_set_want(ct, 65536);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.copy.addr + r.copy.n, (uint64_t)(uintptr_t)(stack + SIZE));
        cr_assert(memcmp(r.copy.bytes + (t.local - r.copy.addr), (void *)t.local, 16) == 0);
        thread_stop(&t);
        pthread_attr_destroy(&attr);
        munmap(stack, SIZE + 65536);
}

BACKENDS(capture, kernel_frames)
ParameterizedTest(int *backend, capture, kernel_frames)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = NULL;
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        CaptureResult r;
        Thread t;

        config.capture_kernel_frames = true;
        c = new_capture(&config);
        thread_start(&t, sleeper);
        ct = follow(c, &t);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_gt(r.n_kernel_pcs, 3);
        for (size_t i = 0; i < r.n_kernel_pcs; i++)
                cr_assert_gt(r.kernel_pcs[i], 1ULL << 63);
        thread_stop(&t);
}

/* A thread that always changes its stack and a register together: what is captured asleep has both
 * of one time. */
static void *writer(void *userdata)
{
        Thread *t = userdata;
        volatile uint64_t words[N_WORDS];

        for (uint64_t n = 0; !atomic_load(&t->stop); n++) {
                struct timespec pause = {.tv_nsec = 1};

                for (int i = 0; i < N_WORDS; i++)
                        words[i] = n;
                atomic_store(&t->local, (uintptr_t)words);
                if (n == 0)
                        atomic_store(&t->tid, (pid_t)syscall(SYS_gettid));
                /* Without a signal mask the kernel does not look at the last argument. */
                syscall(SYS_ppoll, NULL, 0, &pause, NULL, n);
        }
        return NULL;
}

BACKENDS(capture, never_torn)
ParameterizedTest(int *backend, capture, never_torn)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        const int n_captures = rounds(3000);
        CaptureResult r;
        Thread t;

        thread_start(&t, writer);
        ct = follow(c, &t);
        capture_thread_set_want(ct, N_WORDS * 8 + 4096);
        for (int n = 0; n < n_captures;) {
                uint64_t words[N_WORDS], number;

                cr_assert(capture_pull(c, &ct, 1, &r) == 0);
                if (r.status != CAPTURE_TAKEN || r.syscall != SYS_ppoll) {
                        capture_release(ct);
                        continue;
                }
                number = r.copy.regs.r[X86_R8];
                cr_assert(t.local >= r.copy.addr &&
                          t.local + sizeof(words) <= r.copy.addr + r.copy.n);
                memcpy(words, r.copy.bytes + (t.local - r.copy.addr), sizeof(words));
                for (int i = 0; i < N_WORDS; i++)
                        cr_assert_eq(words[i], number, "word %d of capture %d", i, n);
                capture_release(ct);
                n++;
        }
        thread_stop(&t);
}

/* ---- many ---- */

BACKENDS(capture, five_hundred_at_once)
ParameterizedTest(int *backend, capture, five_hundred_at_once)
{
        enum { N = 500 };
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        static Thread threads[N];
        static CaptureThread *all[N], *pending[N];
        static CaptureResult results[N];
        size_t n = N, n_taken = 0;

        for (int i = 0; i < N; i++) {
                thread_start(&threads[i], sleeper);
                all[i] = pending[i] = follow(c, &threads[i]);
        }
        /* More copies than there are buffers: the rest is BUSY until some are released. */
        while (n > 0) {
                size_t n_next = 0;

                cr_assert(capture_pull(c, pending, n, results) == 0);
                for (size_t i = 0; i < n; i++) {
                        cr_assert(results[i].status == CAPTURE_TAKEN ||
                                  results[i].status == CAPTURE_BUSY ||
                                  results[i].status == CAPTURE_RUNNING ||
                                  results[i].status == CAPTURE_UNSTABLE);
                        n_taken += results[i].status == CAPTURE_TAKEN;
                }
                for (size_t i = 0; i < n; i++) {
                        if (results[i].status == CAPTURE_TAKEN && results[i].syscall == SYS_read) {
                                capture_release(pending[i]);
                                continue;
                        }
                        capture_thread_forget(pending[i]);
                        capture_release(pending[i]);
                        pending[n_next++] = pending[i];
                }
                n = n_next;
        }
        cr_assert_geq(n_taken, N);
        cr_assert(capture_pull(c, all, N, results) == 0);
        for (int i = 0; i < N; i++)
                cr_assert_eq(
                        results[i].status, CAPTURE_REPEATED, "thread %d: %d", i, results[i].status);
        for (int i = 0; i < N; i++)
                thread_stop(&threads[i]);
        cr_assert(capture_pull(c, all, N, results) == 0);
        for (int i = 0; i < N; i++)
                cr_assert_eq(results[i].status, CAPTURE_GONE);
        for (int i = 0; i < N; i++)
                capture_thread_free(all[i]);
}

BACKENDS(capture, limit_of_threads)
ParameterizedTest(int *backend, capture, limit_of_threads)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = NULL;
        CaptureThread *a, *b, *more = NULL;
        Thread t;

        config.capture_max_targets = 2;
        c = new_capture(&config);
        thread_start(&t, sleeper);
        a = follow(c, &t);
        b = follow(c, &t);
        cr_assert_eq(capture_thread_new(c, &more, getpid(), t.tid, NULL), CAPTURE_E_LIMIT);
        cr_assert_null(more);
        capture_thread_free(a);
        a = follow(c, &t);
        capture_thread_free(a);
        capture_thread_free(b);
        thread_stop(&t);
}

/* ---- identity ---- */

BACKENDS(capture, threads_of_others_and_none)
ParameterizedTest(int *backend, capture, threads_of_others_and_none)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        CaptureThread *ct = NULL;
        siginfo_t info;
        pid_t child;

        child = fork();
        if (child == 0) {
                pause();
                _exit(0);
        }
        cr_assert_eq(capture_thread_new(c, &ct, getpid(), child, NULL), CAPTURE_E_GONE);
        cr_assert_eq(capture_thread_new(c, &ct, child, child, NULL), 0);
        ct = capture_thread_free(ct);
        kill(child, SIGKILL);
        /* Dead, but its number is not free yet. */
        cr_assert(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
        cr_assert_eq(capture_thread_new(c, &ct, child, child, NULL), CAPTURE_E_GONE);
        waitpid(child, NULL, 0);
        cr_assert_eq(capture_thread_new(c, &ct, child, child, NULL), CAPTURE_E_GONE);
        cr_assert_eq(capture_thread_new(c, &ct, 2, 2, NULL), CAPTURE_E_GONE, "a kernel thread");
        cr_assert_eq(capture_thread_new(c, &ct, getpid(), 0, NULL), CAPTURE_E_GONE);
        cr_assert_eq(capture_thread_new(c, &ct, getpid(), -1, NULL), CAPTURE_E_GONE);
        cr_assert_null(ct);
}

/* It has the same number and the same start, but nothing to do any more with what it did. */
BACKENDS(capture, gone_with_exec)
ParameterizedTest(int *backend, capture, gone_with_exec)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        int go = eventfd(0, 0), done[2];
        CaptureResult r;
        uint64_t value;
        pid_t child;
        char byte;

        cr_assert_eq(pipe2(done, O_CLOEXEC), 0);
        child = fork();
        if (child == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (read(go, &value, sizeof(value)) == sizeof(value))
                        execl("/bin/sleep", "sleep", "1000", NULL);
                _exit(1);
        }
        close(done[1]);
        cr_assert_eq(capture_thread_new(c, &ct, child, child, NULL), 0);
        cr_assert_eq(pull_asleep(c, ct, &r), CAPTURE_TAKEN);
        capture_release(ct);
        eventfd_write(go, 1);
        cr_assert_eq(read(done[0], &byte, 1), 0, "closed by exec");
        cr_assert_eq(capture_pull(c, &ct, 1, &r), 0);
        cr_assert_eq(r.status, CAPTURE_GONE);
        capture_thread_forget(ct);
        cr_assert_eq(capture_pull(c, &ct, 1, &r), 0);
        cr_assert_eq(r.status, CAPTURE_GONE);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        close(done[0]);
        close(go);
}

/* ---- running threads ---- */

BACKENDS(capture, running_thread)
ParameterizedTest(int *backend, capture, running_thread)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        const int n = rounds(60);
        CaptureResult r, again;
        void *userdata;
        Thread t;

        thread_start(&t, spinner);
        ct = follow(c, &t);
        for (int i = 0; i < n; i++) {
                pull_running(c, ct);
                cr_assert(wait_shot(c, ct, &r), "shot %d", i);
                cr_assert(r.status == CAPTURE_TAKEN && r.shot && r.copy.n > 0);
                cr_assert(r.copy.regs.r[X86_RSP] - RED_ZONE == r.copy.addr);
                cr_assert(r.copy.addr < (uint64_t)t.thread &&
                          r.copy.addr > (uint64_t)t.thread - 256 * 1024);
                cr_assert(!capture_collect(c, &userdata, &again));
                cr_assert(!capture_cancel(ct, &again));
                capture_release(ct);
        }
        thread_stop(&t);
}

BACKENDS(capture, cancelled_shots)
ParameterizedTest(int *backend, capture, cancelled_shots)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        const int n = rounds(60);
        CaptureResult r, again;
        void *userdata;
        Thread t;

        thread_start(&t, spinner);
        ct = follow(c, &t);
        for (int i = 0; i < n; i++) {
                pull_running(c, ct);
                if (capture_cancel(ct, &r))
                        cr_assert_eq(r.status, CAPTURE_TAKEN);
                cr_assert(!capture_cancel(ct, &again));
                cr_assert(!capture_collect(c, &userdata, &again),
                        "announced after it was fetched, %d", i);
                capture_release(ct);
                pull_running(c, ct);
                cr_assert(wait_shot(c, ct, &r), "shot %d after a cancelled one", i);
                cr_assert_eq(r.status, CAPTURE_TAKEN);
                cr_assert(!capture_collect(c, &userdata, &again), "two shots for one, %d", i);
                capture_release(ct);
        }
        /* Pulled or freed with a shot out. */
        pull_running(c, ct);
        pull_running(c, ct);
        ct = capture_thread_free(ct);
        cr_assert(!capture_collect(c, &userdata, &again));
        thread_stop(&t);
}

/* A shot's announcement comes when the shot was fetched already, and the next one is out. */
BACKENDS(capture, announced_too_late)
ParameterizedTest(int *backend, capture, announced_too_late)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        const int n = rounds(50);
        struct pollfd p = {.fd = capture_fd(c), .events = POLLIN};
        Thread t;

        thread_start(&t, spinner);
        ct = follow(c, &t);
        for (int i = 0; i < n; i++) {
                CaptureResult r;
                uint64_t begin_ns;

                pull_running(c, ct);
                cr_assert_eq(poll(&p, 1, 10000), 1);
                cr_assert(capture_cancel(ct, &r));
                capture_release(ct);
                begin_ns = mono_now_ns();
                pull_running(c, ct);
                cr_assert(wait_shot(c, ct, &r));
                cr_assert(
                        r.status == CAPTURE_TAKEN && r.mono_ns >= begin_ns, "%d: %d", i, r.status);
                capture_release(ct);
        }
        thread_stop(&t);
}

/* A thread that ends while a shot is out for it. */
BACKENDS(capture, ends_with_a_shot_out)
ParameterizedTest(int *backend, capture, ends_with_a_shot_out)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        CaptureResult r;
        Thread t;

        thread_start(&t, spinner);
        ct = follow(c, &t);
        pull_running(c, ct);
        thread_stop(&t);
        /* It is joined before the kernel has let go of it. */
        while (syscall(SYS_tgkill, getpid(), t.tid, 0) == 0)
                sched_yield();
        capture_cancel(ct, &r);
        cr_assert(capture_pull(c, &ct, 1, &r) == 0);
        cr_assert_eq(r.status, CAPTURE_GONE);
}

static __attribute__((noinline, noclone, no_sanitize("address", "undefined"))) void spin_inner(
        Thread *t)
{
        while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED))
                ;
}

static __attribute__((noinline, noclone)) void spin_outer(Thread *t)
{
        atomic_store(&t->tid, (pid_t)syscall(SYS_gettid));
        spin_inner(t);
        __asm__ volatile("");
}

static void *spin_nested(void *userdata)
{
        spin_outer(userdata);
        return NULL;
}

BACKENDS(capture, frame_pointers_and_kernel_frames_of_shots)
ParameterizedTest(int *backend, capture, frame_pointers_and_kernel_frames_of_shots)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = NULL;
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        CaptureResult r;
        int n_inside = 0;
        Thread t;

        config.capture_unwind = UNWIND_MODE_FP;
        config.capture_kernel_frames = true;
        c = new_capture(&config);
        thread_start(&t, spin_nested);
        ct = follow(c, &t);
        for (int i = 0; i < 50; i++) {
                pull_running(c, ct);
                cr_assert(wait_shot(c, ct, &r));
                cr_assert_eq(r.status, CAPTURE_TAKEN);
                cr_assert(r.shot && r.pcs_only && !r.pcs_cut && r.copy.n == 0);
                cr_assert_geq(r.n_pcs, 3);
                cr_assert_eq(r.pcs[0], r.copy.regs.r[X86_RIP]);
                if (r.pcs[0] < (uint64_t)(uintptr_t)spin_inner ||
                        r.pcs[0] > (uint64_t)(uintptr_t)spin_inner + 64) {
                        capture_release(ct); /* on its way there still */
                        continue;
                }
                /* The test is built with frame pointers: the caller's return address lies in
                 * spin_outer(). */
                cr_assert_gt(r.pcs[1], (uint64_t)(uintptr_t)spin_outer);
                cr_assert_lt(r.pcs[1], (uint64_t)(uintptr_t)spin_outer + 512);
                n_inside++;
                capture_release(ct);
        }
        cr_assert_gt(n_inside, 40);
        thread_stop(&t);
}

/* ---- the choice ---- */

Test(capture, says_what_is_used)
{
        Config config = config_of(CAPTURE_BACKEND_AUTO);
        _cleanup_(capture_freep) Capture *c = NULL;
        CaptureInfo info;
        int r;

        r = capture_new(&c, &config, &info);
        cr_assert(r == 0 || r == CAPTURE_E_UNAVAILABLE);
        cr_assert_eq(strcmp(info.backend, "none") == 0, r == CAPTURE_E_UNAVAILABLE);
        cr_assert_gt(strlen(info.reason), 20);
}

/* Without rights it says which ones are missing. */
Test(capture, says_what_is_missing)
{
        Config config = config_of(CAPTURE_BACKEND_AUTO);
        _cleanup_(capture_freep) Capture *c = NULL;
        CaptureInfo info;

        if (geteuid() == 0)
                cr_assert(setresuid(65534, 65534, 65534) == 0);
        cr_assert_eq(capture_new(&c, &config, &info), CAPTURE_E_UNAVAILABLE);
        cr_assert_null(c);
        cr_assert_str_eq(info.backend, "none");
        cr_assert(strstr(info.reason, "missing: CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE"), "%s",
                info.reason);
}
