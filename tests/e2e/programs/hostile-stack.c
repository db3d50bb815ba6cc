/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostile-stack SERVICE INSTANCE: a thread whose span is on /hostile sleeps on a stack that is gone:
 * who reads it waits for a userfaultfd that nobody serves. Says so, and stays until it is killed.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "program.h"

#define STACK_BYTES (256 * 1024)

static struct swprof *client;
static atomic_int tid;

static void *sleep_for_ever(void *nothing)
{
        struct swprof_span span;

        start_span(client, &span, "/hostile");
        printf("{\"segment\": \"%s\"}\n", swprof_span_segment_id(&span));
        fflush(stdout);
        tid = (int)syscall(SYS_gettid);
        for (;;)
                sleep_ms(1000000);
        return nothing;
}

/* Until it is in its system call. */
static void wait_asleep(void)
{
        char path[64], text[8] = "";

        while (!tid)
                sleep_ms(1);
        snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
        do {
                FILE *f = fopen(path, "re");

                sleep_ms(1);
                if (!f || !fgets(text, sizeof(text), f))
                        exit(1);
                fclose(f);
        } while (text[0] == 'r');
}

int main(int argc, char **argv)
{
        struct uffdio_api api = {.api = UFFD_API};
        struct uffdio_register area = {.mode = UFFDIO_REGISTER_MODE_MISSING};
        pthread_attr_t attr;
        pthread_t thread;
        int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
        void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

        if (argc < 3 || stack == MAP_FAILED || fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
                return 77;
        client = connect_daemon(argv[1], argv[2]);
        wait_watched(client, "/hostile");
        pthread_attr_init(&attr);
        pthread_attr_setstack(&attr, stack, STACK_BYTES);
        pthread_create(&thread, &attr, sleep_for_ever, NULL);
        wait_asleep();
        area.range.start = (uintptr_t)stack;
        area.range.len = STACK_BYTES;
        if (ioctl(fd, UFFDIO_REGISTER, &area) < 0 || madvise(stack, STACK_BYTES, MADV_DONTNEED) < 0)
                return 1;
        puts("{\"gone\": true}");
        fflush(stdout);
        for (;;)
                sleep_ms(1000000);
}
