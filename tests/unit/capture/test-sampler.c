/* SPDX-License-Identifier: Apache-2.0 */

/* The sampler with real threads and captures, and a worker that answers when the test says so. */

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/counter.h"
#include "manager/sampler.h"
#include "util/mailbox.h"
#include "util/time.h"

/* ---- the worker ---- */

struct Worker {
        struct Mailbox *maps;
        atomic_bool busy;  /* requests are refused */
        atomic_bool hold;  /* requests are kept until release() */
        atomic_bool blind; /* answers are NULL */
        atomic_bool lazy;  /* tables are lazy until full ones are asked for */
        atomic_uint n_loads, n_full_loads, n_refused;
        _Atomic uint64_t held_ticket;
        atomic_int held_pid;
        atomic_bool held_full;
};

static Worker worker;

static Module *load_module(const char *path, bool lazy)
{
        Elf *elf;
        CfiTable *cfi = NULL;
        ModuleSegment segments[16];
        GElf_Phdr phdr;
        size_t n, n_segments = 0;
        Module *m;
        int fd;

        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return NULL;
        elf_version(EV_CURRENT);
        elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
        if (!elf || (lazy ? cfi_table_new_lazy(&cfi, elf) : cfi_table_new(&cfi, elf, NULL)) != 0 ||
                elf_getphdrnum(elf, &n) != 0)
                cr_assert_fail("%s", path);
        for (size_t i = 0; i < n; i++)
                if (gelf_getphdr(elf, (int)i, &phdr) && phdr.p_type == PT_LOAD && n_segments < 16)
                        segments[n_segments++] = (ModuleSegment){.offset = phdr.p_offset,
                                .vaddr = phdr.p_vaddr,
                                .filesz = phdr.p_filesz};
        elf_end(elf);
        close(fd);
        m = module_new(path, cfi, n_segments, segments);
        cr_assert_not_null(m);
        return m;
}

/* The table of a module whose table is lazy. */
static void complete(Module *m, const char *path)
{
        Module *full = load_module(path, false);

        module_set_full(m, full->cfi);
        full->cfi = NULL;
        module_unref(full);
}

static ProcMap *read_map(pid_t pid, bool full)
{
        static char text[1 << 20];
        static struct {
                char *path;
                Module *module;
                bool lazy;
        } known[256];
        ProcMap *map = NULL;
        char path[64];
        size_t n = 0;
        ssize_t r;
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        cr_assert_geq(fd, 0);
        while ((r = read(fd, text + n, sizeof(text) - n)) > 0)
                n += (size_t)r;
        close(fd);
        cr_assert_eq(procmap_parse(&map, text, n), 0);
        for (size_t i = 0; i < map->n; i++) {
                Mapping *m = &map->mappings[i];
                size_t k = 0;

                if (!m->exec || m->inode == 0)
                        continue;
                while (known[k].path && strcmp(known[k].path, m->name) != 0)
                        k++;
                if (!known[k].path) {
                        known[k].path = strdup(m->name);
                        known[k].lazy = atomic_load(&worker.lazy) && !full;
                        known[k].module = load_module(m->name, known[k].lazy);
                }
                if (known[k].lazy && full) {
                        complete(known[k].module, m->name);
                        known[k].lazy = false;
                }
                m->module = known[k].module ? module_ref(known[k].module) : NULL;
        }
        return map;
}

static void answer(pid_t pid, bool full, uint64_t ticket)
{
        WorkerMap m = {.pid = pid,
                .ticket = ticket,
                .map = atomic_load(&worker.blind) ? NULL : read_map(pid, full)};

        cr_assert_eq(mailbox_push(worker.maps, &m), 0);
}

int worker_read_python(Worker *w, CpythonCodes *codes, CpythonCode *code)
{
        return WORKER_E_BUSY;
}

int worker_load(Worker *w, pid_t pid, bool full, uint64_t ticket)
{
        if (atomic_load(&w->busy)) {
                atomic_fetch_add(&w->n_refused, 1);
                return WORKER_E_BUSY;
        }
        atomic_fetch_add(&w->n_loads, 1);
        atomic_fetch_add(&w->n_full_loads, full);
        if (atomic_load(&w->hold)) {
                cr_assert_eq(atomic_load(&w->held_ticket), 0, "two loads of one process in flight");
                atomic_store(&w->held_pid, pid);
                atomic_store(&w->held_full, full);
                atomic_store(&w->held_ticket, ticket);
        } else {
                answer(pid, full, ticket);
        }
        return 0;
}

struct Mailbox *worker_maps(Worker *w)
{
        return w->maps;
}

static void wait_held(void)
{
        while (!atomic_load(&worker.held_ticket))
                sched_yield();
}

static void release_held(void)
{
        atomic_store(&worker.hold, false);
        answer(atomic_load(&worker.held_pid), atomic_load(&worker.held_full),
                atomic_exchange(&worker.held_ticket, 0));
}

/* ---- the sampled thread ---- */

static atomic_int tid;
static atomic_bool stop;
static atomic_uint n_wakes;
static int wake_fd;

static __attribute__((noinline)) void block_here(void)
{
        uint64_t value;

        if (read(wake_fd, &value, sizeof(value)) > 0)
                atomic_fetch_add(&n_wakes, 1);
        __asm__ volatile("");
}

static void *sleeper(void *userdata)
{
        atomic_store(&tid, (int)syscall(SYS_gettid));
        while (!atomic_load(&stop))
                block_here();
        return NULL;
}

static __attribute__((noinline)) void spin_here(void)
{
        while (!atomic_load_explicit(&stop, memory_order_relaxed))
                ;
        __asm__ volatile("");
}

static void *spinner(void *userdata)
{
        atomic_store(&tid, (int)syscall(SYS_gettid));
        spin_here();
        return NULL;
}

/* Code without unwind information. */
__asm__(".text\n"
        ".fill 16, 1, 0xcc\n"
        ".p2align 4, 0xcc\n"
        "call_from_nowhere:\n"
        "push %rbp\n"
        "mov %rsp, %rbp\n"
        "call *%rdi\n"
        "pop %rbp\n"
        "ret\n"
        ".fill 16, 1, 0xcc\n"
        ".p2align 4, 0xcc\n");
void call_from_nowhere(void (*function)(void));

static void *nowhere_sleeper(void *userdata)
{
        atomic_store(&tid, (int)syscall(SYS_gettid));
        while (!atomic_load(&stop))
                call_from_nowhere(block_here);
        return NULL;
}

/* So deep that the first copy does not reach the root. */
static __attribute__((noinline)) void recurse(int n)
{
        volatile char pad[512];

        pad[0] = (char)n;
        if (n > 0)
                recurse(n - 1);
        else
                block_here();
        pad[1] = pad[0];
}

static void *deep_sleeper(void *userdata)
{
        atomic_store(&tid, (int)syscall(SYS_gettid));
        while (!atomic_load(&stop))
                recurse(30);
        return NULL;
}

/* Handlers that stay, on a stack of their own. */
static void block_in_handler(int number)
{
        while (!atomic_load(&stop))
                block_here();
}

static void spin_in_handler(int number)
{
        spin_here();
}

static __attribute__((noinline)) void interrupted(void)
{
        raise(SIGUSR1);
        __asm__ volatile("");
}

static void *interrupt(void (*handler)(int))
{
        static char other[65536] __attribute__((aligned(4096)));
        stack_t alternate = {.ss_sp = other, .ss_size = sizeof(other)};
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};

        sigaltstack(&alternate, NULL);
        sigaction(SIGUSR1, &action, NULL);
        atomic_store(&tid, (int)syscall(SYS_gettid));
        interrupted();
        alternate.ss_flags = SS_DISABLE;
        sigaltstack(&alternate, NULL);
        return NULL;
}

static void *interrupted_sleeper(void *userdata)
{
        return interrupt(block_in_handler);
}

static void *interrupted_spinner(void *userdata)
{
        return interrupt(spin_in_handler);
}

/* ---- the sampler ---- */

static Sampler *sampler;
static pthread_t thread;

#define PERIOD_NS (2 * NS_PER_MS)

static void begin(void *(*start)(void *), UnwindMode mode)
{
        Config config = {.capture_max_stack_bytes = 65536,
                .capture_max_targets = 64,
                .capture_unwind = (int)mode};
        Capture *capture;
        CaptureInfo info;
        int r;

        r = capture_new(&capture, &config, &info);
        if (r)
                cr_skip_test("%s", info.reason);
        cr_assert_eq(mailbox_new(&worker.maps, sizeof(WorkerMap), 64), 0);
        cr_assert_eq(sampler_new(&sampler, &config, capture, &worker), 0);
        wake_fd = eventfd(0, EFD_SEMAPHORE);
        cr_assert_eq(pthread_create(&thread, NULL, start, NULL), 0);
        while (!atomic_load(&tid))
                sched_yield();
}

static void stop_thread(void)
{
        atomic_store(&stop, true);
        eventfd_write(wake_fd, 1);
        pthread_join(thread, NULL);
}

static void end(void)
{
        WorkerMap m;

        sampler = sampler_free(sampler);
        if (!atomic_load(&stop))
                stop_thread();
        while (mailbox_pop(worker.maps, &m) == 0)
                procmap_unref(m.map);
        worker.maps = mailbox_free(worker.maps);
}

static void add(TargetId id)
{
        TargetSpec spec = {.pid = getpid(),
                .tid = atomic_load(&tid),
                .first_mono_ns = mono_now_ns(),
                .period_ns = PERIOD_NS};

        while (sampler_add(sampler, id, &spec) == SAMPLER_E_BUSY)
                sched_yield();
}

static SamplerEvent next_event(void)
{
        struct pollfd p = {.fd = mailbox_fd(sampler_events(sampler)), .events = POLLIN};
        SamplerEvent e;

        cr_assert_eq(poll(&p, 1, 20000), 1, "no event");
        cr_assert_eq(mailbox_pop(sampler_events(sampler), &e), 0);
        return e;
}

static void drop(SamplerEvent *e)
{
        procmap_unref(e->map);
        free(e->frames);
}

/* The next event of that type; others are dropped. */
static SamplerEvent next_of(SamplerEventType type)
{
        for (;;) {
                SamplerEvent e = next_event();

                if (e.type == type)
                        return e;
                drop(&e);
        }
}

/* Whether a frame's pc lies in that function, of at most 512 bytes. */
static bool has_function(const SamplerEvent *e, const void *function)
{
        for (size_t i = 0; i < e->n_frames; i++)
                if (e->frames[i].pc - (uint64_t)(uintptr_t)function < 512)
                        return true;
        return false;
}

/* ---- tests ---- */

Test(sampler, sleeping_thread)
{
        SamplerEvent sample, stack, e;
        uint64_t begin_ns, last_ns;

        begin(sleeper, UNWIND_MODE_DWARF);
        begin_ns = mono_now_ns();
        add(7);
        sample = next_event();
        cr_assert(sample.type == SAMPLER_SAMPLE && sample.target == 7 && sample.stack_id != 0);
        cr_assert_geq(sample.mono_ns, begin_ns);
        cr_assert_lt(sample.wall_ns - sample.mono_ns - (wall_now_ns() - mono_now_ns()) + NS_PER_S,
                2 * NS_PER_S);
        stack = next_of(SAMPLER_STACK);
        cr_assert(stack.target == 7 && stack.stack_id == sample.stack_id && !stack.failed);
        cr_assert(stack.map && has_function(&stack, sleeper), "%zu frames", stack.n_frames);
        drop(&stack);
        /* It sleeps: the same stack again and again, and none is sent anew. */
        last_ns = sample.mono_ns;
        for (int i = 0; i < 50; i++) {
                e = next_event();
                cr_assert(e.type == SAMPLER_SAMPLE && e.stack_id == sample.stack_id);
                cr_assert_gt(e.mono_ns, last_ns);
                last_ns = e.mono_ns;
        }
        cr_assert_geq(counter_get(COUNTER_SAMPLES_REPEATED), 49);
        /* It has run since, and is where it was: still the same. */
        eventfd_write(wake_fd, 1);
        for (int i = 0; i < 10; i++) {
                e = next_of(SAMPLER_SAMPLE);
                if (atomic_load(&n_wakes) && e.stack_id == sample.stack_id)
                        break;
        }
        cr_assert_eq(e.stack_id, sample.stack_id);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_QUEUE_FULL), 0);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_FAULT), 0);
        end();
}

/* The next sample of that target. */
static SamplerEvent next_sample(TargetId id)
{
        for (;;) {
                SamplerEvent e = next_of(SAMPLER_SAMPLE);

                if (e.target == id)
                        return e;
        }
}

Test(sampler, due_times_are_the_grid)
{
        TargetSpec spec = {.pid = getpid(), .period_ns = 500 * NS_PER_MS};
        uint64_t added_ns, off;
        SamplerEvent e;

        begin(sleeper, UNWIND_MODE_DWARF);
        /* The map is there by then, so that nothing is late. */
        add(9);
        e = next_of(SAMPLER_STACK);
        drop(&e);
        spec.tid = atomic_load(&tid);
        /* The grid's origin lies ahead: earlier points of it count, too. */
        added_ns = mono_now_ns();
        spec.first_mono_ns = added_ns + 10 * spec.period_ns + 300 * NS_PER_MS;
        cr_assert_eq(sampler_add(sampler, 1, &spec), 0);
        e = next_sample(1);
        off = (spec.first_mono_ns - e.mono_ns) % spec.period_ns;
        cr_assert_neq(off, 0, "the first is taken at once");
        spec.goes_on = true;
        cr_assert_eq(sampler_add(sampler, 2, &spec), 0);
        e = next_sample(2);
        off = (spec.first_mono_ns - e.mono_ns) % spec.period_ns;
        cr_assert(off == 0 || off > spec.period_ns - 150 * NS_PER_MS, "%d ms",
                (int)(off / NS_PER_MS));
        for (int i = 0; i < 3; i++) {
                e = next_sample(1);
                /* What the machine's load made a millisecond late has its true time, after the grid's point. */
                off = (spec.first_mono_ns - e.mono_ns) % spec.period_ns;
                cr_assert(off == 0 || off > spec.period_ns - 150 * NS_PER_MS, "%d ms",
                        (int)(off / NS_PER_MS));
        }
        end();
}

/* Whatever the times asked for, threads with the same period share the times at which they fall due: some each
 * 2.5 ms. */
Test(sampler, due_together)
{
        TargetSpec spec = {.pid = getpid(), .period_ns = 10 * NS_PER_MS};
        uint64_t last_ns[2] = {0}, apart = 1;

        begin(sleeper, UNWIND_MODE_DWARF);
        spec.tid = atomic_load(&tid);
        spec.first_mono_ns = mono_now_ns();
        cr_assert_eq(sampler_add(sampler, 0, &spec), 0);
        spec.first_mono_ns += 123457;
        cr_assert_eq(sampler_add(sampler, 1, &spec), 0);
        /* One that the machine's load made late has its true time. */
        for (int i = 0; i < 1000 && apart != 0; i++) {
                SamplerEvent e = next_of(SAMPLER_SAMPLE);

                last_ns[e.target] = e.wall_ns;
                apart = (last_ns[0] - last_ns[1]) % (5 * NS_PER_MS / 2);
        }
        cr_assert_eq(apart, 0);
        end();
}

Test(sampler, running_thread)
{
        SamplerEvent stack;
        uint64_t n_known;

        begin(spinner, UNWIND_MODE_DWARF);
        add(1);
        for (int i = 0; i < 50; i++)
                next_of(SAMPLER_SAMPLE);
        /* Where the sampler wakes up on the thread's own CPU, it finds it preempted. */
        for (int i = 0; i < 2000 && counter_get(COUNTER_SAMPLES_SHOT) == 0; i++)
                next_of(SAMPLER_SAMPLE);
        cr_assert_geq(counter_get(COUNTER_SAMPLES_SHOT), 1);
        sampler_remove(sampler, 1);
        while (sampler_n_targets(sampler) != 0)
                sched_yield();
        /* Each sample that fell due was captured, or its loss has a cause; one may have been under
         * way. */
        n_known = counter_get(COUNTER_SAMPLES_CAPTURED) + counter_get(COUNTER_SAMPLES_LATE) +
                  counter_get(COUNTER_SAMPLES_UNSTABLE) + counter_get(COUNTER_SAMPLES_FAULT);
        cr_assert_leq(counter_get(COUNTER_SAMPLES_DUE) - n_known, 1);
        add(2);
        stack = next_of(SAMPLER_STACK);
        while (stack.target != 2) {
                drop(&stack);
                stack = next_of(SAMPLER_STACK);
        }
        cr_assert(!stack.failed && has_function(&stack, spin_here));
        drop(&stack);
        end();
}

/* On its only CPU the thread has to make room for the sampler each time: it ran when it was due. */
Test(sampler, running_thread_is_found_preempted)
{
        SamplerEvent first, e;
        double share;
        cpu_set_t cpus, one;
        int cpu = 0;
        unsigned n_running = 0;

        cr_assert_eq(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
        while (!CPU_ISSET(cpu, &cpus))
                cpu++;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
        begin(spinner, UNWIND_MODE_DWARF);
        add(1);
        e = first = next_of(SAMPLER_SAMPLE);
        for (int i = 0; i < 300; i++) {
                e = next_of(SAMPLER_SAMPLE);
                n_running += e.state == THREAD_RUNNING;
        }
        share = (double)(e.times.runtime_ns - first.times.runtime_ns) /
                (double)(e.mono_ns - first.mono_ns);
        cr_assert_geq(
                n_running, 300 * share / 2, "%u of 300, of a CPU it had %.2f", n_running, share);
        end();
}

Test(sampler, deep_stack_is_copied_anew)
{
        SamplerEvent stack;

        begin(deep_sleeper, UNWIND_MODE_DWARF);
        add(1);
        stack = next_of(SAMPLER_STACK);
        cr_assert(!stack.failed);
        /* On a busy machine it may be on its way down still. */
        while (stack.n_frames < 32) {
                drop(&stack);
                stack = next_of(SAMPLER_STACK);
                cr_assert(!stack.failed);
        }
        cr_assert(has_function(&stack, deep_sleeper));
        cr_assert_eq(counter_get(COUNTER_STACKS_TRUNCATED), 0);
        drop(&stack);
        end();
}

/* What the handler interrupted is on another stack: a sample or two later, that is known. */
static void check_interrupted(void *(*start)(void *), const void *innermost)
{
        SamplerEvent stack;

        begin(start, UNWIND_MODE_DWARF);
        add(1);
        for (;;) {
                stack = next_of(SAMPLER_STACK);
                if (!stack.failed && has_function(&stack, innermost))
                        break;
                drop(&stack);
        }
        cr_assert(has_function(&stack, interrupted));
        drop(&stack);
        end();
}

Test(sampler, sleeps_in_a_handler_on_another_stack, .timeout = 60)
{
        check_interrupted(interrupted_sleeper, block_here);
}

Test(sampler, runs_in_a_handler_on_another_stack, .timeout = 60)
{
        check_interrupted(interrupted_spinner, spin_here);
}

/* The map comes late: the copy was large enough all the same. */
Test(sampler, deep_stack_before_the_map)
{
        SamplerEvent e;

        atomic_store(&worker.hold, true);
        begin(deep_sleeper, UNWIND_MODE_DWARF);
        add(1);
        wait_held();
        e = next_event();
        cr_assert_eq(e.type, SAMPLER_SAMPLE);
        release_held();
        e = next_of(SAMPLER_STACK);
        cr_assert(!e.failed && has_function(&e, deep_sleeper));
        cr_assert_eq(counter_get(COUNTER_STACKS_TRUNCATED), 0);
        drop(&e);
        end();
}

Test(sampler, parks_what_was_shot_before_the_map)
{
        SamplerEvent e;
        uint64_t first, last;

        atomic_store(&worker.hold, true);
        begin(spinner, UNWIND_MODE_DWARF);
        add(1);
        /* Samples go out at once, stacks follow. */
        e = next_event();
        cr_assert_eq(e.type, SAMPLER_SAMPLE);
        first = last = e.stack_id;
        while (last < first + 5) {
                e = next_event();
                cr_assert_eq(e.type, SAMPLER_SAMPLE);
                last = e.stack_id;
        }
        wait_held();
        release_held();
        e = next_of(SAMPLER_STACK);
        cr_assert_eq(e.stack_id, first);
        cr_assert(!e.failed && has_function(&e, spin_here));
        drop(&e);
        for (int i = 0; i < 5; i++) {
                e = next_of(SAMPLER_STACK);
                cr_assert_eq(e.stack_id, first + (uint64_t)i + 1);
                cr_assert(!e.failed);
                drop(&e);
        }
        end();
}

/* Lazy tables are enough for most stacks. */
Test(sampler, lazy_tables)
{
        SamplerEvent e;

        atomic_store(&worker.lazy, true);
        begin(sleeper, UNWIND_MODE_DWARF);
        add(1);
        e = next_of(SAMPLER_STACK);
        cr_assert(!e.failed && has_function(&e, sleeper));
        drop(&e);
        cr_assert_eq(atomic_load(&worker.n_full_loads), 0);
        cr_assert_eq(counter_get(COUNTER_STACKS_NO_CFI), 0);
        end();
}

/* A stack that needs more than a lazy table has waits for the full one. */
Test(sampler, lazy_tables_that_do_not_tell)
{
        SamplerEvent e;

        atomic_store(&worker.lazy, true);
        begin(nowhere_sleeper, UNWIND_MODE_DWARF);
        add(1);
        e = next_of(SAMPLER_STACK);
        cr_assert(!e.failed && has_function(&e, nowhere_sleeper));
        drop(&e);
        cr_assert_eq(atomic_load(&worker.n_full_loads), 1);
        cr_assert_eq(atomic_load(&worker.n_loads), 2);
        cr_assert_eq(counter_get(COUNTER_STACKS_NO_CFI), 0);
        end();
}

Test(sampler, gives_up_without_maps)
{
        SamplerEvent e;

        atomic_store(&worker.blind, true);
        begin(spinner, UNWIND_MODE_DWARF);
        add(1);
        e = next_event();
        cr_assert_eq(e.type, SAMPLER_SAMPLE);
        e = next_of(SAMPLER_STACK);
        cr_assert(e.failed && !e.map && !e.frames);
        cr_assert_geq(counter_get(COUNTER_STACKS_NO_MAPPING), 1);
        end();
}

Test(sampler, worker_without_room)
{
        SamplerEvent e;

        atomic_store(&worker.busy, true);
        begin(sleeper, UNWIND_MODE_DWARF);
        add(1);
        while (atomic_load(&worker.n_refused) < 3)
                sched_yield();
        atomic_store(&worker.busy, false);
        e = next_event();
        cr_assert_eq(e.type, SAMPLER_SAMPLE);
        end();
}

/* New code, and a stack with an address in it: the old map says nothing about that, a new one is
 * asked for. */
Test(sampler, reads_the_map_anew_when_code_was_mapped)
{
        SamplerEvent e;
        unsigned n_loads;
        void *code;

        begin(sleeper, UNWIND_MODE_DWARF);
        add(1);
        e = next_of(SAMPLER_STACK);
        drop(&e);
        n_loads = atomic_load(&worker.n_loads);
        code = mmap(NULL, 1 << 20, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert(code != MAP_FAILED);
        eventfd_write(wake_fd, 1);
        e = next_of(SAMPLER_STACK);
        cr_assert(!e.failed);
        cr_assert_gt(atomic_load(&worker.n_loads), n_loads);
        drop(&e);
        munmap(code, 1 << 20);
        end();
}

/* Nothing tells of code that was replaced by as much other code. */
Test(sampler, reads_the_map_anew_after_a_while)
{
        SamplerEvent e;
        unsigned n_loads;

        begin(sleeper, UNWIND_MODE_DWARF);
        add(1);
        e = next_of(SAMPLER_STACK);
        drop(&e);
        n_loads = atomic_load(&worker.n_loads);
        while (atomic_load(&worker.n_loads) == n_loads) {
                eventfd_write(wake_fd, 1);
                e = next_of(SAMPLER_SAMPLE);
        }
        end();
}

Test(sampler, ended_thread)
{
        SamplerEvent e;

        begin(sleeper, UNWIND_MODE_DWARF);
        add(1);
        e = next_of(SAMPLER_STACK);
        drop(&e);
        stop_thread();
        e = next_of(SAMPLER_GONE);
        cr_assert_eq(e.target, 1);
        /* Too late for this one from the start. */
        add(2);
        e = next_of(SAMPLER_GONE);
        cr_assert_eq(e.target, 2);
        cr_assert_eq(sampler_n_targets(sampler), 2);
        sampler_remove(sampler, 1);
        sampler_remove(sampler, 2);
        sampler_remove(sampler, 3);
        while (sampler_n_targets(sampler) != 0)
                sched_yield();
        end();
}

Test(sampler, frame_pointer_mode)
{
        SamplerEvent e;

        begin(spinner, UNWIND_MODE_FP);
        add(1);
        e = next_of(SAMPLER_STACK);
        cr_assert_geq(e.n_frames + e.failed, 1);
        drop(&e);
        for (int i = 0; i < 20; i++) {
                e = next_event();
                drop(&e);
        }
        end();
}

/* No samples are taken, and nothing is awake, once all targets are removed. */
Test(sampler, asleep_without_targets)
{
        SamplerEvent e;
        uint64_t due;

        begin(spinner, UNWIND_MODE_DWARF);
        for (TargetId id = 1; id <= 20; id++)
                add(id);
        for (int i = 0; i < 100; i++) {
                e = next_event();
                drop(&e);
        }
        for (TargetId id = 1; id <= 20; id++)
                sampler_remove(sampler, id);
        while (sampler_n_targets(sampler) != 0 || sampler_busy_since_mono_ns(sampler) != 0)
                sched_yield();
        due = counter_get(COUNTER_SAMPLES_DUE);
        usleep(10 * PERIOD_NS / 1000);
        cr_assert_eq(counter_get(COUNTER_SAMPLES_DUE), due);
        end();
}
