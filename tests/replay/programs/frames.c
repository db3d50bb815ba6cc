/* SPDX-License-Identifier: Apache-2.0 */

/*
 * frames SHAPE: frames of one shape, and below them a thread that sleeps in pause(). What a frame
 * looks like is up to the compiler's options; keep() is what hinders it to make them all alike.
 */

#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone, noipa))

typedef void (*Function)(void);

static volatile uint64_t sink;

static void NOINLINE keep(const void *p)
{
        sink += (uintptr_t)p;
}

static void NOINLINE leaf(void)
{
        pause();
        keep(leaf);
}

/* ---- plain ---- */

static void NOINLINE plain_c(void)
{
        char local[40];

        keep(local);
        leaf();
        keep(local);
}

static void NOINLINE plain_b(void)
{
        plain_c();
        sink++;
}

static void NOINLINE plain(void)
{
        plain_b();
        sink++;
}

/* ---- a frame that uses all registers, rbp like any other ---- */

static void NOINLINE registers(void)
{
        uint64_t a = sink, b = a * 3, c = b ^ 5, d = c + 7, e = d * 11, f = e ^ 13;

        leaf();
        sink = a + b + c + d + e + f;
        leaf();
        sink = a ^ b ^ c ^ d ^ e ^ f;
}

/* ---- frames of no fixed size ---- */

static void NOINLINE variable(void)
{
        char *p = alloca(64 + sink % 7 * 16);

        keep(p);
        leaf();
        keep(p);
}

static void NOINLINE variable_array(void)
{
        int n = 30 + (int)(sink % 5);
        uint64_t values[n];

        memset(values, 1, sizeof(values));
        keep(values);
        variable();
        keep(values);
}

/* Aligned to more than the ABI does, and of no fixed size. */
static void NOINLINE realigned_by(uint64_t n, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
        uint64_t e, uint64_t f, uint64_t on_stack)
{
        char aligned[128] __attribute__((aligned(64)));
        char *p = alloca(n);

        keep(aligned);
        keep(p);
        leaf();
        keep(aligned);
        sink += a + b + c + d + e + f + on_stack;
}

/* Its own frame is relative to the rbp that realigned_by() saved where only its rbp tells. */
static void NOINLINE realigned(void)
{
        char *p = alloca(32 + sink % 3 * 16);

        keep(p);
        realigned_by(100, 1, 2, 3, 4, 5, 6, 7);
        keep(p);
}

/* ---- jumps instead of calls: who jumped is no frame any more ---- */

static void NOINLINE tail_last(void)
{
        leaf();
        sink++;
}

static void NOINLINE tail_jumps(void)
{
        sink++;
        tail_last();
}

static void NOINLINE tail(void)
{
        tail_jumps();
        sink++;
}

/* ---- a call that is its function's last instruction: the return address is the next one's ---- */

static void NOINLINE __attribute__((noreturn)) never_returns(void)
{
        leaf();
        _exit(1);
}

static void NOINLINE ends_with_call(void)
{
        sink++;
        never_returns();
}

/* ---- the unlikely half of a function lies elsewhere ---- */

static void NOINLINE __attribute__((cold)) unlikely(void *p)
{
        keep(p);
        leaf();
        keep(p);
}

static void NOINLINE split(void)
{
        char local[200];

        keep(local);
        if (__builtin_expect(sink != 0, 0)) {
                unlikely(local);
                sink++;
        }
        keep(local);
}

/* ---- long ways ---- */

static uint64_t NOINLINE recurse(unsigned n)
{
        uint64_t r;

        if (n == 0) {
                leaf();
                return 1;
        }
        r = recurse(n - 1);
        keep(&r);
        return r + n;
}

static void NOINLINE deep(void)
{
        sink += recurse(10000);
}

static void NOINLINE large(void)
{
        char local[200000];

        keep(local);
        leaf();
        keep(local);
}

/* ---- called by the C library ---- */

static int NOINLINE compare(const void *a, const void *b)
{
        leaf();
        return *(const int *)a - *(const int *)b;
}

static void NOINLINE sort(void)
{
        int values[] = {3, 1, 2};

        qsort(values, 3, sizeof(*values), compare);
        keep(values);
}

static void *NOINLINE thread(void *userdata)
{
        plain();
        return userdata;
}

static void NOINLINE join(void)
{
        pthread_t t;

        if (pthread_create(&t, NULL, thread, NULL) == 0)
                pthread_join(t, NULL);
}

static void NOINLINE spawn(void)
{
        char *arguments[] = {"true", NULL};
        pid_t pid;

        sink += posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, NULL);
}

/* ---- code that nobody wrote ---- */

/* As just-in-time compilers do: push %rbp; mov %rsp, %rbp; sub $32, %rsp; call *%rdi; leave; ret */
static void NOINLINE generated(void)
{
        static const unsigned char code[] = {
                0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0xff, 0xd7, 0xc9, 0xc3};
        void *p = mmap(
                NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
                return;
        memcpy(p, code, sizeof(code));
        ((void (*)(Function))p)(plain);
        sink++;
}

/* ---- signals ---- */

static void NOINLINE handler(int number)
{
        plain();
}

static void NOINLINE raised(void)
{
        signal(SIGUSR1, handler);
        raise(SIGUSR1);
        sink++;
}

/* Interrupted in its first instructions, or between any two: no call is under way. */
static void NOINLINE faults(volatile int *p)
{
        *p = 1;
}

static void NOINLINE fault(void)
{
        signal(SIGSEGV, handler);
        faults(NULL);
        sink++;
}

static void NOINLINE fault_elsewhere(void)
{
        static char stack[65536] __attribute__((aligned(4096)));
        stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};

        sigaltstack(&alternate, NULL);
        sigaction(SIGSEGV, &action, NULL);
        faults(NULL);
        sink++;
}

/* A function that is no function. */
static void NOINLINE wild(void)
{
        signal(SIGSEGV, handler);
        ((Function)8)();
        sink++;
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                Function run;
        } shapes[] = {
                {"plain", plain},
                {"registers", registers},
                {"variable", variable_array},
                {"realigned", realigned},
                {"tail", tail},
                {"ends-with-call", ends_with_call},
                {"split", split},
                {"deep", deep},
                {"large", large},
                {"sort", sort},
                {"thread", join},
                {"spawn", spawn},
                {"generated", generated},
                {"raised", raised},
                {"fault", fault},
                {"altstack", fault_elsewhere},
                {"wild", wild},
        };

        for (size_t i = 0; argc > 1 && i < sizeof(shapes) / sizeof(*shapes); i++)
                if (strcmp(argv[1], shapes[i].name) == 0)
                        shapes[i].run();
        return 1;
}
