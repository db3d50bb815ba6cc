/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "capture/capture.h"

/* An interpreter of our own making, with what a hostile one could have: loops, and memory that is not
 * there, or that could make a reader wait. */

typedef struct Interp {
        struct Interp *next;
        struct State *states;
} Interp;

typedef struct State {
        struct State *next;
        uint64_t thread_id;
        struct Function *frame;
} State;

typedef struct Code {
        uint64_t refs, type, first_line, filename, name, lines;
} Code;

typedef struct Function {
        struct Function *previous;
        Code *code;
        uint64_t instr;
        uint64_t owner;
} Function;

typedef struct World {
        Interp *first;
        Interp interps[2];
        State states[3];
        Function frames[4];
        Code code;
        uint64_t name[4];
} World;

static const struct swp_python_layout layout = {
        .interp_next = offsetof(Interp, next),
        .interp_threads = offsetof(Interp, states),
        .tstate_next = offsetof(State, next),
        .tstate_thread_id = offsetof(State, thread_id),
        .tstate_frame = offsetof(State, frame),
        .cframe_frame = SWP_PYTHON_NONE,
        .frame_previous = offsetof(Function, previous),
        .frame_code = offsetof(Function, code),
        .frame_instr = offsetof(Function, instr),
        .frame_owner = offsetof(Function, owner),
        .code_firstlineno = offsetof(Code, first_line),
        .code_filename = offsetof(Code, filename),
        .code_name = offsetof(Code, name),
        .code_linetable = offsetof(Code, lines),
        .text_hash = 24,
        .tstate_bytes = sizeof(State),
        .frame_bytes = sizeof(Function),
        .code_bytes = sizeof(Code),
        .instr_bytes = 8,
        .shim_owner = 3,
};

static atomic_bool stop;
static _Atomic pid_t tid;
static _Atomic uint64_t fsbase;
static int pipe_fds[2];

static void *run(void *spins)
{
        char byte;

        atomic_store(&fsbase, (uint64_t)pthread_self());
        atomic_store(&tid, (pid_t)syscall(SYS_gettid));
        while (spins && !atomic_load_explicit(&stop, memory_order_relaxed))
                ;
        while (!spins && read(pipe_fds[0], &byte, 1) < 0)
                ;
        return NULL;
}

static World *new_world(void)
{
        World *w =
                mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        cr_assert(w != MAP_FAILED);
        w->first = &w->interps[0];
        w->interps[0] = (Interp){&w->interps[1], &w->states[0]};
        w->interps[1] = (Interp){NULL, &w->states[2]};
        w->states[0] = (State){&w->states[1], 1, NULL};
        w->states[1] = (State){NULL, atomic_load(&fsbase), &w->frames[0]};
        w->states[2] = (State){NULL, atomic_load(&fsbase), &w->frames[3]};
        w->frames[0] = (Function){&w->frames[1], (Code *)((uintptr_t)&w->code | 1), 10, 0};
        w->frames[1] = (Function){&w->frames[2], &w->code, 11, 1};
        w->frames[2] = (Function){NULL, NULL, 0, 3};
        w->frames[3] = (Function){NULL, &w->code, 12, 0};
        w->code = (Code){1, 3, 7, 1, (uintptr_t)w->name, 2};
        w->name[3] = 99;
        return w;
}

typedef struct Case {
        Capture *capture;
        CaptureThread *thread;
        pthread_t pthread;
        bool spins;
} Case;

static Case new_case(int backend, bool spins)
{
        Config config = {.capture_backend = backend,
                .capture_max_stack_bytes = 65536,
                .capture_max_targets = 16};
        Case k = {.spins = spins};
        CaptureInfo info;
        int r = capture_new(&k.capture, &config, &info);

        cr_assert(r >= 0, "%s", info.reason);
        if (r)
                cr_skip_test("%s", info.reason);
        cr_assert_eq(pipe(pipe_fds), 0);
        cr_assert_eq(pthread_create(&k.pthread, NULL, run, spins ? &stop : NULL), 0);
        while (!atomic_load(&tid))
                sched_yield();
        cr_assert_eq(capture_thread_new(k.capture, &k.thread, getpid(), tid, NULL), 0);
        return k;
}

static void end_case(Case *k)
{
        capture_thread_free(k->thread);
        atomic_store(&stop, true);
        cr_assert_eq(write(pipe_fds[1], "", 1), 1);
        pthread_join(k->pthread, NULL);
        capture_free(k->capture);
}

/* A capture of the kind that is wanted: of a thread that sleeps, or by an interrupt. */
static void capture(Case *k, CaptureResult *ret)
{
        struct pollfd p = {.fd = capture_fd(k->capture), .events = POLLIN};
        void *userdata;

        for (;;) {
                capture_thread_forget(k->thread);
                cr_assert_eq(capture_pull(k->capture, &k->thread, 1, ret), 0);
                if (ret->status == CAPTURE_RUNNING && k->spins && poll(&p, 1, 10000) == 1 &&
                        capture_collect(k->capture, &userdata, ret) && ret->status == CAPTURE_TAKEN)
                        return;
                if (ret->status == CAPTURE_TAKEN && !k->spins && ret->syscall == SYS_read)
                        return;
        }
}

static enum swp_python_status status_of(Case *k, const World *w)
{
        CaptureResult r;

        capture_thread_set_python(k->thread, NULL, 0);
        capture_thread_set_python(k->thread, &layout, (uintptr_t)&w->first);
        capture(k, &r);
        cr_assert(r.has_python);
        return r.python_status;
}

#define CASES(test)                                                                           \
        ParameterizedTestParameters(python, test)                                             \
        {                                                                                     \
                static int cases[] = {CAPTURE_BACKEND_BPF_SYSCALL, CAPTURE_BACKEND_BPF_ITER,  \
                        -CAPTURE_BACKEND_BPF_SYSCALL, -CAPTURE_BACKEND_BPF_ITER}; /* spins */ \
                                                                                              \
                return cr_make_param_array(int, cases, 4);                                    \
        }

CASES(frames)
ParameterizedTest(int *what, python, frames)
{
        Case k = new_case(abs(*what), *what < 0);
        uint64_t identity;
        CaptureResult r;
        World *w = new_world();

        capture(&k, &r);
        cr_assert_not(r.has_python);
        capture_thread_set_python(k.thread, &layout, (uintptr_t)&w->first);
        identity = swp_python_identity(3, 7, 1, (uintptr_t)w->name, 2, 99);
        for (int i = 0; i < 3; i++) {
                capture(&k, &r);
                cr_assert(r.has_python);
                cr_assert_eq(r.python_status, SWP_PYTHON_OK);
                cr_assert_eq(r.n_python, 4);
                cr_assert_eq(r.python[0].code, (uintptr_t)&w->code, "without its tag");
                cr_assert_eq(r.python[0].identity, identity);
                cr_assert_eq(r.python[1].instr, 11);
                cr_assert_eq(r.python[1].owner, 1);
                cr_assert_eq(r.python[2].code, 0);
                cr_assert_eq(r.python[2].instr, (uintptr_t)&w->frames[2]);
                cr_assert_eq(r.python[3].instr, 12, "the other interpreter's");
                capture_release(k.thread);
        }
        /* A state that was another thread's in the meantime is looked for again. */
        w->states[1].thread_id = 5;
        do
                capture(&k, &r);
        while (r.python_status == SWP_PYTHON_NO_THREAD);
        cr_assert_eq(r.python_status, SWP_PYTHON_OK);
        cr_assert_eq(r.n_python, 1);
        end_case(&k);
}

CASES(hostile)
ParameterizedTest(int *what, python, hostile)
{
        Case k = new_case(abs(*what), *what < 0);
        World *w = new_world();

        w->frames[1].previous = &w->frames[0];
        cr_assert_eq(status_of(&k, w), SWP_PYTHON_CUT, "frames in a circle");
        w->frames[1].previous = (Function *)8;
        cr_assert_eq(status_of(&k, w), SWP_PYTHON_FAULT, "a frame nowhere");
        w->frames[1].previous = (Function *)UINT64_MAX;
        cr_assert_eq(status_of(&k, w), SWP_PYTHON_FAULT, "a frame at the end of everything");
        w->frames[1].previous = NULL;
        w->code.name = 1ULL << 47;
        cr_assert_eq(status_of(&k, w), SWP_PYTHON_FAULT, "the kernel's memory");
        w->states[1].thread_id = w->states[2].thread_id = 2;
        w->states[1].next = &w->states[0];
        cr_assert_eq(status_of(&k, w), SWP_PYTHON_NO_THREAD, "states in a circle");
        w->first = (Interp *)8;
        cr_assert_eq(status_of(&k, w), SWP_PYTHON_NO_THREAD, "no interpreter");
        end_case(&k);
}

/* Memory whose owner could make a reader wait is not read of a thread that sleeps. */
CASES(memory_that_could_block)
ParameterizedTest(int *what, python, memory_that_could_block)
{
        enum { SIZE = 4096 };
        Case k = new_case(abs(*what), *what < 0);
        struct uffdio_api api = {.api = UFFD_API};
        struct uffdio_register reg;
        Function *frame;
        World *w = new_world();
        int uffd;

        frame = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        cr_assert(frame != MAP_FAILED);
        *frame = w->frames[0];
        w->states[1].frame = frame;
        cr_assert_eq(status_of(&k, w), k.spins ? SWP_PYTHON_OK : SWP_PYTHON_FAULT, "shared");

        frame = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert(frame != MAP_FAILED);
        uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
        reg = (struct uffdio_register){
                .range = {(uintptr_t)frame, SIZE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        w->states[1].frame = frame;
        if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0 &&
                ioctl(uffd, UFFDIO_REGISTER, &reg) == 0)
                cr_assert_eq(status_of(&k, w), SWP_PYTHON_FAULT, "pages that never come");
        close(uffd);
        end_case(&k);
}
