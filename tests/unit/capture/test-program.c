/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/mman.h>

#include "threads.h"

/* What captures bring of programs in Go, and of those that generate code. */

/* What a program in Go has, made up: the thread's g in its thread-local storage, the rest in memory
 * that is the kernel's alone. */
typedef struct Go {
        uint64_t g[32], m[32], curg[32];
        uint8_t stack[8192];
} Go;

static __thread uint64_t own_g;
static Go *made_go;
static _Atomic uintptr_t own_g_at; /* from fsbase */

static void *go_sleeper(void *userdata)
{
        own_g = (uintptr_t)made_go->g;
        atomic_store(&own_g_at, (uintptr_t)&own_g - (uintptr_t)pthread_self());
        return sleeper(userdata);
}

static void *go_spinner(void *userdata)
{
        own_g = (uintptr_t)made_go->g;
        atomic_store(&own_g_at, (uintptr_t)&own_g - (uintptr_t)pthread_self());
        return spinner(userdata);
}

static void go_make(void)
{
        made_go = mmap(
                NULL, sizeof(*made_go), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert(made_go != MAP_FAILED);
        for (size_t i = 0; i < sizeof(made_go->stack); i++)
                made_go->stack[i] = (uint8_t)(i % 251 + 1);
        made_go->g[6] = (uintptr_t)made_go->m;
        made_go->m[23] = (uintptr_t)made_go->curg;
        made_go->curg[0] = (uintptr_t)made_go->stack;
        made_go->curg[1] = (uintptr_t)made_go->stack + sizeof(made_go->stack);
        made_go->curg[7] = (uintptr_t)made_go->stack + 4000;
        made_go->curg[8] = 0x1234;
}

static GoPlaces go_places(void)
{
        return (GoPlaces){.g = (int64_t)atomic_load(&own_g_at),
                .m = 48,
                .curg = 184,
                .sched = 56,
                .vdso_sp = 200};
}

static void go_check(const CaptureResult *r, size_t begin)
{
        cr_assert_eq(r->copy.go_sp, (uintptr_t)made_go->stack + 4000);
        cr_assert_eq(r->copy.go_pc, 0x1234);
        cr_assert_eq(r->copy.other_addr, (uintptr_t)made_go->stack + begin);
        cr_assert_eq(r->copy.other_n, sizeof(made_go->stack) - begin);
        cr_assert_arr_eq(r->copy.other_bytes, made_go->stack + begin, r->copy.other_n);
}

/* The stack of the goroutine whose thread is on another one. */
BACKENDS(program, copies_goroutines)
ParameterizedTest(int *backend, program, copies_goroutines)
{
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        GoPlaces places;
        CaptureResult r;
        Thread t;

        go_make();
        thread_start(&t, go_sleeper);
        ct = follow(c, &t);
        places = go_places();
        capture_thread_set_go(ct, &places);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        go_check(&r, 4000 - RED_ZONE);

        /* In a call of the vDSO; near the end of its stack; with no goroutine. */
        made_go->m[25] = (uintptr_t)made_go->stack + 2000;
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        go_check(&r, 2000 - RED_ZONE);
        made_go->m[25] = (uintptr_t)made_go->stack + 8;
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        go_check(&r, 0);
        made_go->m[23] = 0;
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert(r.copy.go_sp == GO_SP_NONE && r.copy.other_n == 0);

        /* The thread is on it; it is nowhere; the places are wrong. */
        made_go->m[23] = (uintptr_t)made_go->curg;
        made_go->curg[0] = (uintptr_t)t.thread - (256 << 10);
        made_go->curg[1] = (uintptr_t)t.thread;
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert(r.copy.go_sp == GO_SP_UNKNOWN && r.copy.other_n == 0 && r.copy.n > 0);
        made_go->m[23] = 8;
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert(r.copy.go_sp == GO_SP_UNKNOWN && r.copy.other_n == 0 && r.copy.n > 0);
        places.g = INT64_MIN;
        capture_thread_set_go(ct, &places);
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert(r.copy.go_sp == GO_SP_UNKNOWN && r.copy.other_n == 0 && r.copy.n > 0);
        thread_stop(&t);

        ct = capture_thread_free(ct);
        go_make();
        thread_start(&t, go_spinner);
        ct = follow(c, &t);
        places = go_places();
        capture_thread_set_go(ct, &places);
        pull_running(c, ct);
        cr_assert(wait_shot(c, ct, &r) && r.status == CAPTURE_TAKEN && r.shot);
        go_check(&r, 4000 - RED_ZONE);
        thread_stop(&t);
}

/* A sleeper whose system call is in memory of no file, or is wherever the C library has it. */
static void *generated_sleeper(void *userdata)
{
        /* mov $0, %eax; syscall; ret */
        static const uint8_t code[] = {0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3, 1, 2, 3, 4};
        Thread *t = userdata;
        uint8_t *page = mmap(
                NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int behind_fd = memfd_create("behind", MFD_CLOEXEC);
        /* The code's last byte is the mapping's last one. What is behind it a reader might have to
         * wait for. */
        uint8_t *at = page + 4096 - sizeof(code);
        long (*call)(int fd, void *buffer, size_t n);
        uint64_t value;

        cr_assert(page != MAP_FAILED && ftruncate(behind_fd, 4096) == 0);
        cr_assert(mmap(page + 4096, 4096, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                          behind_fd, 0) != MAP_FAILED);
        close(behind_fd);
        memcpy(at, code, sizeof(code));
        memcpy(&call, &at, sizeof(call));
        atomic_store(&t->tid, (pid_t)syscall(SYS_gettid));
        while (!atomic_load(&t->stop))
                call(t->fd, &value, sizeof(value));
        return NULL;
}

BACKENDS(program, copies_generated_code)
ParameterizedTest(int *backend, program, copies_generated_code)
{
        static const uint8_t behind[] = {0xc3, 1, 2, 3, 4};
        Config config = config_of(*backend);
        _cleanup_(capture_freep) Capture *c = new_capture(&config);
        _cleanup_(capture_thread_freep) CaptureThread *ct = NULL;
        CaptureResult r;
        Thread t;

        thread_start(&t, generated_sleeper);
        ct = follow(c, &t);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.copy.n_code, 0);
        capture_thread_set_code(ct, true);
        capture_thread_forget(ct);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.copy.n_code, sizeof(behind));
        cr_assert_arr_eq(r.copy.code, behind, sizeof(behind));
        thread_stop(&t);
        ct = capture_thread_free(ct);

        /* A pull does not read what is in a file. */
        thread_start(&t, sleeper);
        ct = follow(c, &t);
        capture_thread_set_code(ct, true);
        cr_assert(pull_asleep(c, ct, &r) == CAPTURE_TAKEN);
        cr_assert_eq(r.copy.n_code, 0);
        thread_stop(&t);
}
