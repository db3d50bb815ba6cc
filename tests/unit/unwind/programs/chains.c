/* SPDX-License-Identifier: Apache-2.0 */
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/*
 * Known chains of calls, for a tracer: "chains NAME" calls its way down and then executes int3.
 * Each caller does something after its call, so that none becomes a jump.
 */

#define FRAME static __attribute__((noipa, used))

static volatile int sink;

FRAME void leaf(void)
{
        __asm__ volatile("int3");
        sink++;
}

FRAME void plain_c(int n)
{
        volatile char bytes[40];

        bytes[n] = 1;
        leaf();
        sink += bytes[n];
}

FRAME void plain_b(int n)
{
        plain_c(n + 1);
        sink++;
}

FRAME void plain_a(int n)
{
        plain_b(n + 1);
        sink++;
}

/* The CFA needs a frame pointer. */
FRAME void variable(size_t n)
{
        volatile char *p = alloca(n);

        p[0] = 1;
        leaf();
        sink += p[0];
}

/* The CFA needs a load: GCC keeps the address of the arguments in the realigned frame. */
FRAME void realigned(size_t n)
{
        _Alignas(64) volatile char aligned[64];
        volatile char *p = alloca(n);

        aligned[0] = p[0] = 1;
        leaf();
        sink += aligned[0] + p[0];
}

FRAME void recurse(int n)
{
        if (n > 1)
                recurse(n - 1);
        else
                leaf();
        sink++;
}

FRAME int compare(const void *a, const void *b)
{
        leaf();
        return *(const int *)a - *(const int *)b;
}

FRAME void sort(void)
{
        int values[] = {2, 1};

        qsort(values, 2, sizeof(*values), compare);
        sink += values[0];
}

FRAME void handler(int sig)
{
        leaf();
        sink++;
}

/* Faults in its first instruction: one byte lower there is another function. */
void fault(void);
__asm__(".text\n.p2align 4\n.globl fault\n.type fault, @function\nfault:\n.cfi_startproc\n"
        "xorl %eax, 0\nret\n.cfi_endproc\n.size fault, . - fault\n");

FRAME void signalled(int flags)
{
        static char other[64 << 10];
        stack_t stack = {.ss_sp = other, .ss_size = sizeof(other)};
        struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};

        sigaltstack(&stack, NULL);
        sigaction(SIGSEGV, &sa, NULL);
        fault();
        sink++;
}

static void *thread(void *arg)
{
        plain_a(1);
        return NULL;
}

FRAME void threaded(void)
{
        pthread_t t;

        if (pthread_create(&t, NULL, thread, NULL) == 0)
                pthread_join(t, NULL);
}

/* Code that no file has, with frame pointers as JIT compilers write it. */
FRAME void generated(void)
{
        static const unsigned char code[] = {
                0x55,             /* push %rbp */
                0x48, 0x89, 0xe5, /* mov %rsp, %rbp */
                0xff, 0xd7,       /* call *%rdi */
                0x5d,             /* pop %rbp */
                0xc3,             /* ret */
        };
        void *p = mmap(
                NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
                return;
        memcpy(p, code, sizeof(code));
        ((void (*)(void (*)(void)))p)(leaf);
        sink++;
}

/* A bit of everything, to be unwound at each instruction. */
FRAME void work(void)
{
        struct timespec now;
        char text[64];

        clock_gettime(CLOCK_MONOTONIC, &now);
        snprintf(text, sizeof(text), "%ld %s %g", (long)now.tv_sec, "text", 0.5);
        sink += atoi(text) + (int)strlen(text);
        free(malloc(sink & 0xff));
        recurse(2);
        variable(100);
        realigned(100);
        sort();
}

int main(int argc, char **argv)
{
        const char *name = argc > 1 ? argv[1] : "";

        if (strcmp(name, "plain") == 0)
                plain_a(1);
        else if (strcmp(name, "variable") == 0)
                variable(100);
        else if (strcmp(name, "realigned") == 0)
                realigned(100);
        else if (strcmp(name, "recurse") == 0)
                recurse(300);
        else if (strcmp(name, "sort") == 0)
                sort();
        else if (strcmp(name, "signal") == 0)
                signalled(0);
        else if (strcmp(name, "altstack") == 0)
                signalled(SA_ONSTACK);
        else if (strcmp(name, "thread") == 0)
                threaded();
        else if (strcmp(name, "generated") == 0)
                generated();
        else if (strcmp(name, "work") == 0) {
                leaf();
                work();
        } else
                return 2;
        sink++;
        return 0;
}
