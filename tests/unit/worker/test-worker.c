/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/counter.h"
#include "core/stack.h"
#include "manager/worker.h"
#include "util/mailbox.h"

#define WAIT_MS 60000

static Worker *new_worker(bool lines, uint32_t max_depth)
{
        Config config = {.symbols_lines = lines, .profile_max_depth = max_depth};
        Worker *w = NULL;

        cr_assert_eq(worker_new(&w, &config), 0);
        return w;
}

static void wait_readable(Mailbox *m)
{
        struct pollfd p = {.fd = mailbox_fd(m), .events = POLLIN};

        cr_assert_eq(poll(&p, 1, WAIT_MS), 1);
}

static WorkerMap next_map(Worker *w)
{
        WorkerMap map;

        wait_readable(worker_maps(w));
        cr_assert_eq(mailbox_pop(worker_maps(w), &map), 0);
        return map;
}

static ProcMap *load_some(Worker *w, pid_t pid, bool full)
{
        static uint64_t ticket;
        WorkerMap map;

        cr_assert_eq(worker_load(w, pid, full, ++ticket), 0);
        map = next_map(w);
        cr_assert_eq(map.pid, pid);
        cr_assert_eq(map.ticket, ticket);
        return map.map;
}

static ProcMap *load(Worker *w, pid_t pid)
{
        return load_some(w, pid, true);
}

static Frame frame_at(const ProcMap *map, uint64_t pc)
{
        const Mapping *m = procmap_find(map, pc);
        Frame f = {.pc = pc, .vaddr = pc};

        if (m && m->module) {
                f.module = m->module;
                f.vaddr = module_vaddr(m->module, pc - m->start + m->offset);
        }
        return f;
}

/* The reply to frames that are given innermost first. */
static void answer_free(WorkerStack *s)
{
        free(s->signatures);
        free(s->kinds);
}

static WorkerStack symbolize(Worker *w, ProcMap *map, const Frame *frames, size_t n)
{
        WorkerStack s = {.ticket = 77, .map = procmap_ref(map), .n_frames = n};

        s.frames = malloc(n * sizeof(*frames));
        memcpy(s.frames, frames, n * sizeof(*frames));
        cr_assert_eq(worker_symbolize(w, &s), 0);
        wait_readable(worker_stacks(w));
        cr_assert_eq(mailbox_pop(worker_stacks(w), &s), 0);
        cr_assert_eq(s.ticket, 77);
        cr_assert_eq(s.map, map);
        cr_assert(s.frames == NULL);
        procmap_unref(s.map);
        return s;
}

static void check_frame(Worker *w, ProcMap *map, Frame frame, const char *expected)
{
        WorkerStack s = symbolize(w, map, &frame, 1);

        cr_assert_eq(s.n_signatures, 1);
        cr_assert_str_eq(s.signatures[0], expected);
        cr_assert(!s.cut);
        answer_free(&s);
}

static __attribute__((noinline)) int marked(int x)
{
        __asm__ volatile("" : "+r"(x));
        return x;
}

static void check_own_map(const ProcMap *map)
{
        const Mapping *exe = procmap_find(map, (uint64_t)(uintptr_t)marked);
        const Mapping *libc = procmap_find(map, (uint64_t)(uintptr_t)strerror);
        size_t n_vdso = 0;

        cr_assert(exe && exe->module && exe->module->cfi);
        cr_assert_str_eq(exe->module->name, "test-worker");
        cr_assert_gt(cfi_table_n_rows(exe->module->cfi), 1000);
        cr_assert(libc && libc->module && libc->module->cfi);
        cr_assert(strncmp(libc->module->name, "libc.so", 7) == 0 ||
                  strncmp(libc->module->name, "libasan", 7) == 0);
        cr_assert_gt(cfi_table_n_rows(libc->module->cfi), 1000);
        for (size_t i = 0; i < map->n; i++)
                if (strcmp(map->mappings[i].name, "[vdso]") == 0)
                        n_vdso += map->mappings[i].module && map->mappings[i].module->cfi &&
                                  cfi_table_n_rows(map->mappings[i].module->cfi) > 0;
        cr_assert_eq(n_vdso, 1);
}

/* The first stack is unwound with little having been read; the rest comes to the same modules. */
Test(worker, lazy_then_full)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
        _cleanup_(procmap_unrefp) ProcMap *first = load_some(w, getpid(), false), *full = NULL;
        uint64_t pc = (uint64_t)(uintptr_t)marked;
        WorkerStack named;
        Frame frame;
        CfiRule rule;

        cr_assert(first);
        frame = frame_at(first, pc);
        rule = *cfi_table_find(module_cfi(frame.module), frame.vaddr);
        cr_assert(rule.cfa == CFI_CFA_REG && rule.cfa_reg == X86_RSP && rule.cfa_offset == 8);
        frame = frame_at(first, pc + 1);
        named = symbolize(w, first, &frame, 1);
        cr_assert(named.n_signatures == 1 && strstr(named.signatures[0], "marked"));
        answer_free(&named);
        frame = frame_at(first, pc);
        /* By and by, without being asked for. */
        while (cfi_table_is_lazy(module_cfi(frame.module)))
                sched_yield();
        full = load_some(w, getpid(), true);
        check_own_map(full);
        cr_assert_eq(frame_at(full, pc).module, frame.module);
        cr_assert_eq(
                memcmp(cfi_table_find(module_cfi(frame.module), frame.vaddr), &rule, sizeof(rule)),
                0);
        marked(1);
}

Test(worker, own_process)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
        _cleanup_(procmap_unrefp) ProcMap *map = load(w, getpid());

        marked(1);
        cr_assert(map);
        check_own_map(map);
        check_frame(w, map, frame_at(map, (uint64_t)(uintptr_t)marked), "test-worker.c.marked");
}

Test(worker, lines)
{
        _cleanup_(worker_freep) Worker *w = new_worker(true, 500);
        _cleanup_(procmap_unrefp) ProcMap *map = load(w, getpid());
        Frame frame = frame_at(map, (uint64_t)(uintptr_t)marked);
        WorkerStack s = symbolize(w, map, &frame, 1);

        cr_assert_eq(s.n_signatures, 1);
        cr_assert_eq(strncmp(s.signatures[0], "test-worker.c.marked:", 21), 0);
        cr_assert_gt(atoi(s.signatures[0] + 21), 0);
        answer_free(&s);
}

/* Files are not opened by map_files without these. Threads that start inherit it. */
static void use_capabilities(bool yes)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];
        static const unsigned caps[] = {CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE};

        cr_assert_eq(syscall(SYS_capget, &header, data), 0);
        for (size_t i = 0; i < 2; i++) {
                struct __user_cap_data_struct *d = &data[CAP_TO_INDEX(caps[i])];

                if (yes)
                        d->effective |= d->permitted & CAP_TO_MASK(caps[i]);
                else
                        d->effective &= ~CAP_TO_MASK(caps[i]);
        }
        cr_assert_eq(syscall(SYS_capset, &header, data), 0);
}

Test(worker, own_process_by_path)
{
        _cleanup_(worker_freep) Worker *w = NULL;
        _cleanup_(procmap_unrefp) ProcMap *map = NULL;

        use_capabilities(false);
        w = new_worker(false, 500);
        map = load(w, getpid());
        cr_assert(map);
        check_own_map(map);
}

typedef struct Child {
        pid_t pid;
        uint64_t waits; /* address of its function */
} Child;

/* Runs the program once `prepare` has been called in the child. */
static Child child_start(const char *program, bool (*prepare)(void))
{
        Child c;
        int fds[2];
        FILE *f;
        void *waits;

        cr_assert_eq(pipe(fds), 0);
        c.pid = fork();
        if (c.pid == 0) {
                dup2(fds[1], STDOUT_FILENO);
                close(fds[0]);
                close(fds[1]);
                if (!prepare || prepare())
                        execl(program, program, NULL);
                _exit(1);
        }
        close(fds[1]);
        f = fdopen(fds[0], "r");
        if (fscanf(f, "%p", &waits) != 1)
                waits = NULL;
        fclose(f);
        c.waits = (uint64_t)(uintptr_t)waits;
        return c;
}

static void child_stop(Child *c)
{
        if (c->pid <= 0)
                return;
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
        c->pid = 0;
}

typedef struct Folder {
        char path[64];
        char program[96];
} Folder;

/* A directory with a program in it, whose name is long gone when it is looked at. */
static Folder folder_new(void)
{
        Folder f = {.path = "/tmp/swprofd-worker-XXXXXX"};
        char command[256];

        cr_assert(mkdtemp(f.path) != NULL);
        snprintf(f.program, sizeof(f.program), "%s/song", f.path);
        snprintf(command, sizeof(command), "cp %s %s", WAITER, f.program);
        cr_assert_eq(system(command), 0);
        return f;
}

static void folder_free(Folder *f)
{
        use_capabilities(true);
        umount2(f->path, MNT_DETACH);
        unlink(f->program);
        rmdir(f->path);
}

static void check_child(Worker *w, const Child *c)
{
        _cleanup_(procmap_unrefp) ProcMap *map = load(w, c->pid);
        Frame frame;

        cr_assert(map);
        frame = frame_at(map, c->waits);
        cr_assert(frame.module);
        cr_assert_str_eq(frame.module->name, "song");
        cr_assert(frame.module->cfi && cfi_table_n_rows(frame.module->cfi) > 0);
        check_frame(w, map, frame, "waiter.c.waits");
}

Test(worker, deleted_file)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
        _cleanup_(folder_free) Folder f = folder_new();
        _cleanup_(child_stop) Child c = child_start(f.program, NULL);

        cr_assert(c.waits);
        unlink(f.program);
        check_child(w, &c);
}

/* What is at the path now is another file, and not what the process runs. */
Test(worker, replaced_file)
{
        _cleanup_(worker_freep) Worker *w = NULL;
        _cleanup_(folder_free) Folder f = folder_new();
        _cleanup_(child_stop) Child c = child_start(f.program, NULL);
        _cleanup_(procmap_unrefp) ProcMap *map = NULL;
        char command[512];
        Frame frame;

        cr_assert(c.waits);
        snprintf(command, sizeof(command), "cp /bin/true %s.new && mv %s.new %s", f.program,
                f.program, f.program);
        cr_assert_eq(system(command), 0);
        w = new_worker(false, 500);
        check_child(w, &c);
        worker_free(w);
        /* Where only the path leads to a file: none is better than a wrong one. */
        use_capabilities(false);
        w = new_worker(false, 500);
        map = load(w, c.pid);
        frame = frame_at(map, c.waits);
        cr_assert(frame.module && !frame.module->cfi);
        check_frame(w, map, frame, "song.[unknown]");
}

static Folder namespace_folder;

/* The program exists in this mount namespace only. */
static bool enter_namespace(void)
{
        char command[256];

        snprintf(command, sizeof(command), "cp %s %s", WAITER, namespace_folder.program);
        return unshare(CLONE_NEWNS) == 0 &&
               mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
               mount("none", namespace_folder.path, "tmpfs", 0, NULL) == 0 && system(command) == 0;
}

static void check_other_namespace(bool by_path)
{
        _cleanup_(worker_freep) Worker *w = NULL;
        _cleanup_(folder_free) Folder f = folder_new();
        _cleanup_(child_stop) Child c = {0};

        unlink(f.program);
        namespace_folder = f;
        c = child_start(f.program, enter_namespace);
        if (!c.waits)
                cr_skip_test("no mount namespaces here");
        cr_assert(access(f.program, F_OK) < 0);
        if (by_path)
                use_capabilities(false);
        w = new_worker(false, 500);
        check_child(w, &c);
}

Test(worker, other_mount_namespace)
{
        check_other_namespace(false);
}

Test(worker, other_mount_namespace_by_path)
{
        check_other_namespace(true);
}

/* Another file has been mounted where the path leads to; the kernel calls nothing deleted. */
Test(worker, path_leads_to_another_file)
{
        _cleanup_(worker_freep) Worker *w = NULL;
        _cleanup_(procmap_unrefp) ProcMap *map = NULL;
        _cleanup_(folder_free) Folder f = folder_new();
        _cleanup_(child_stop) Child c = {0};
        char command[512];
        Frame frame;

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                cr_skip_test("no mount namespaces here");
        c = child_start(f.program, NULL);
        cr_assert(c.waits);
        cr_assert_eq(mount("none", f.path, "tmpfs", 0, NULL), 0);
        snprintf(command, sizeof(command), "cp /bin/true %s", f.program);
        cr_assert_eq(system(command), 0);
        use_capabilities(false);
        w = new_worker(false, 500);
        map = load(w, c.pid);
        cr_assert(map);
        frame = frame_at(map, c.waits);
        cr_assert(frame.module && !frame.module->cfi);
        check_frame(w, map, frame, "song.[unknown]");
}

Test(worker, processes_share_modules)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
        _cleanup_(child_stop) Child a = child_start(WAITER, NULL);
        _cleanup_(child_stop) Child b = child_start(WAITER, NULL);
        _cleanup_(procmap_unrefp) ProcMap *map_a = NULL, *map_b = NULL;
        uint64_t loaded;

        /* The answer to the second request is the first one that comes. */
        cr_assert_eq(worker_prepare(w, a.pid), 0);
        map_a = load(w, a.pid);
        loaded = counter_get(COUNTER_BINARIES_LOADED);
        cr_assert_gt(loaded, 0);
        map_b = load(w, b.pid);
        cr_assert_eq(counter_get(COUNTER_BINARIES_LOADED), loaded);
        cr_assert(frame_at(map_a, a.waits).module != NULL);
        cr_assert_eq(frame_at(map_a, a.waits).module, frame_at(map_b, b.waits).module);
}

Test(worker, process_is_gone)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
        Child c = child_start(WAITER, NULL);
        pid_t pid = c.pid;

        child_stop(&c);
        cr_assert(load(w, pid) == NULL);
}

Test(worker, file_that_is_not_elf)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
        _cleanup_(procmap_unrefp) ProcMap *map = NULL, *again = NULL;
        int fd = memfd_create("script", 0);
        uint64_t failed;
        void *p;

        cr_assert_eq(ftruncate(fd, 4096), 0);
        p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
        cr_assert(p != MAP_FAILED);
        map = load(w, getpid());
        check_frame(w, map, frame_at(map, (uint64_t)(uintptr_t)p), "memfd:script.[unknown]");
        failed = counter_get(COUNTER_BINARIES_FAILED);
        cr_assert_eq(failed, 1);
        again = load(w, getpid());
        cr_assert_eq(counter_get(COUNTER_BINARIES_FAILED), failed);
        cr_assert_eq(procmap_find(map, (uint64_t)(uintptr_t)p)->module,
                procmap_find(again, (uint64_t)(uintptr_t)p)->module);
        close(fd);
}

/* Files that the daemon had no descriptors for are read when it has some. */
Test(worker, out_of_descriptors)
{
        struct rlimit before, few;

        getrlimit(RLIMIT_NOFILE, &before);
        for (unsigned spare = 0; spare < 6; spare++) {
                _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
                _cleanup_(procmap_unrefp) ProcMap *poor = NULL, *map = NULL;

                few = before;
                few.rlim_cur = (rlim_t)open("/", O_PATH | O_CLOEXEC);
                close((int)few.rlim_cur);
                few.rlim_cur += spare;
                setrlimit(RLIMIT_NOFILE, &few);
                poor = load(w, getpid());
                setrlimit(RLIMIT_NOFILE, &before);
                map = load(w, getpid());
                cr_assert(map);
                for (size_t i = 0; i < map->n; i++)
                        if (map->mappings[i].exec && map->mappings[i].inode != 0)
                                cr_assert(map->mappings[i].module && map->mappings[i].module->cfi,
                                        "%u spare: %s", spare, map->mappings[i].name);
        }
}

Test(worker, code_outside_of_files)
{
        _cleanup_(worker_freep) Worker *w = new_worker(true, 500);
        _cleanup_(procmap_unrefp) ProcMap *map = load(w, getpid());
        Frame kernel = {.pc = UINT64_MAX - 4096, .vaddr = UINT64_MAX - 4096, .kind = FRAME_KERNEL};

        check_frame(w, map, (Frame){.pc = 4096, .vaddr = 4096}, "[anonymous].[unknown]");
        check_frame(w, map, kernel, "[kernel].[unknown]");
        for (FrameKind kind = FRAME_KERNEL; kind <= FRAME_WAIT; kind++) {
                WorkerStack s = symbolize(w, map, &(Frame){.kind = kind}, 1);

                cr_assert_eq(
                        s.kinds[0], kind == FRAME_KERNEL ? STACK_KIND_KERNEL : STACK_KIND_WAITING);
                answer_free(&s);
        }
}

static Frame *many_frames(const ProcMap *map, size_t n)
{
        Frame *frames = calloc(n, sizeof(*frames));

        for (size_t i = 0; i < n; i++)
                frames[i] = i == n - 1 ? (Frame){.pc = 1, .vaddr = 1}
                                       : frame_at(map, (uint64_t)(uintptr_t)marked);
        return frames;
}

Test(worker, depth)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 4);
        _cleanup_(procmap_unrefp) ProcMap *map = load(w, getpid());
        _cleanup_(freep) Frame *frames = many_frames(map, 4), *more = many_frames(map, 5);
        WorkerStack s = symbolize(w, map, frames, 4);

        cr_assert_eq(s.n_signatures, 4);
        cr_assert(!s.cut);
        cr_assert_str_eq(s.signatures[0], "[anonymous].[unknown]");
        cr_assert_str_eq(s.signatures[3], "test-worker.c.marked");
        cr_assert_eq(s.kinds[0], STACK_KIND_ANONYMOUS);
        cr_assert_eq(s.kinds[3], STACK_KIND_NATIVE);
        answer_free(&s);
        cr_assert_eq(counter_get(COUNTER_STACKS_CUT), 0);

        s = symbolize(w, map, more, 5);
        cr_assert_eq(s.n_signatures, 4);
        cr_assert(s.cut);
        cr_assert_str_eq(s.signatures[0], "[anonymous].[unknown]");
        cr_assert_str_eq(s.signatures[2], "test-worker.c.marked");
        cr_assert_str_eq(s.signatures[3], "[cut]");
        cr_assert_eq(s.kinds[3], STACK_KIND_UNKNOWN);
        answer_free(&s);
        cr_assert_eq(counter_get(COUNTER_STACKS_CUT), 1);
}

/* More answers than the mailbox holds: they wait, and none is lost. */
Test(worker, slow_reader_of_stacks)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
        _cleanup_(procmap_unrefp) ProcMap *map = load(w, getpid());

        for (uint64_t i = 0; i < 900; i++) {
                WorkerStack s = {
                        .ticket = i,
                        .map = procmap_ref(map),
                        .n_frames = 2,
                        .frames = many_frames(map, 2),
                };

                cr_assert_eq(worker_symbolize(w, &s), 0);
        }
        for (uint64_t i = 0; i < 900; i++) {
                WorkerStack s;

                wait_readable(worker_stacks(w));
                cr_assert_eq(mailbox_pop(worker_stacks(w), &s), 0);
                cr_assert_eq(s.ticket, i);
                cr_assert_eq(s.n_signatures, 2);
                procmap_unref(s.map);
                answer_free(&s);
        }
}

Test(worker, slow_reader)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);
        uint64_t n = 0;
        unsigned n_prepared = 0;

        while (worker_load(w, -1, true, n) == 0)
                cr_assert_lt(++n, 100000);
        cr_assert_gt(n, 256);
        /* It may have taken one since. */
        while (worker_prepare(w, -1) == 0)
                cr_assert_lt(++n_prepared, 100000);
        for (uint64_t i = 0; i < n; i++) {
                WorkerMap map = next_map(w);

                cr_assert_eq(map.ticket, i);
                cr_assert(map.map == NULL);
        }
}

Test(worker, free_while_busy)
{
        for (int round = 0; round < 20; round++) {
                _cleanup_(worker_freep) Worker *w = new_worker(true, 500);
                _cleanup_(procmap_unrefp) ProcMap *map = load(w, getpid());

                for (int i = 0; i < 300; i++) {
                        WorkerStack s = {
                                .map = procmap_ref(map),
                                .n_frames = 100,
                                .frames = many_frames(map, 100),
                        };

                        cr_assert_eq(worker_symbolize(w, &s), 0);
                        cr_assert_eq(worker_load(w, getpid(), true, 1), 0);
                }
        }
}

Test(worker, is_idle_in_the_end)
{
        _cleanup_(worker_freep) Worker *w = new_worker(false, 500);

        procmap_unref(load(w, getpid()));
        while (worker_busy_since_mono_ns(w) != 0)
                sched_yield();
}
