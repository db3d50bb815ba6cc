/* SPDX-License-Identifier: Apache-2.0 */
/* waits SERVICE INSTANCE: one segment on /waits for each way to spend 150 ms, and where the thread's
 * time went by its own clocks. */
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "program.h"

#define MS 150

static int pipe_fds[2], uffd;
static char *page;
static _Atomic uint32_t word;
static atomic_bool stop;

static NOINLINE void in_sleep(void)
{
        sleep_ms(MS);
}

static NOINLINE void in_futex(void)
{
        struct timespec t = {.tv_nsec = MS * 1000000};

        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0);
        NO_TAIL_CALL();
}

static NOINLINE void in_poll(void)
{
        poll(NULL, 0, MS);
        NO_TAIL_CALL();
}

static void *write_later(void *nothing)
{
        sleep_ms(MS);
        return write(pipe_fds[1], "x", 1) == 1 ? nothing : NULL;
}

static NOINLINE void in_read(void)
{
        char c;

        if (read(pipe_fds[0], &c, 1) != 1)
                abort();
        NO_TAIL_CALL();
}

static void *copy_later(void *nothing)
{
        static char content[4096] __attribute__((aligned(4096)));
        struct uffdio_copy copy = {
                .dst = (uintptr_t)page, .src = (uintptr_t)content, .len = sizeof(content)};

        sleep_ms(MS);
        ioctl(uffd, UFFDIO_COPY, &copy);
        return nothing;
}

static NOINLINE void in_page(void)
{
        *(volatile char *)page = 1;
        NO_TAIL_CALL();
}

static NOINLINE void in_cpu(void)
{
        double end = now_wall_ms() + MS;

        while (now_wall_ms() < end)
                ;
        NO_TAIL_CALL();
}

static void pin(bool to_first)
{
        cpu_set_t set;

        CPU_ZERO(&set);
        for (int i = 0; i < (to_first ? 1 : CPU_SETSIZE); i++)
                CPU_SET(i, &set);
        sched_setaffinity(0, sizeof(set), &set);
}

static void *compete(void *nothing)
{
        pin(true);
        while (!stop)
                ;
        return nothing;
}

static NOINLINE void in_queue(void)
{
        double end = now_wall_ms() + MS;

        while (now_wall_ms() < end)
                ;
        NO_TAIL_CALL();
}

/* Time on a CPU, and in want of one, in milliseconds. */
static void read_times(double *on_cpu, double *run_queue)
{
        struct timespec t;
        char path[64];
        unsigned long long delay = 0;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", (int)syscall(SYS_gettid));
        f = fopen(path, "re");
        if (!f || fscanf(f, "%*s %llu", &delay) != 1)
                abort();
        fclose(f);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        *on_cpu = (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
        *run_queue = (double)delay / 1e6;
}

static void run(struct swprof *c, const char *name, void (*f)(void), void *(*helper)(void *))
{
        double on_cpu[2], run_queue[2], start, begin, end;
        struct swprof_span span;
        pthread_t thread;

        read_times(&on_cpu[0], &run_queue[0]);
        start = now_wall_ms();
        start_span(c, &span, "/waits");
        if (helper)
                pthread_create(&thread, NULL, helper, NULL);
        begin = now_wall_ms();
        f();
        end = now_wall_ms();
        printf("{\"name\": \"%s\", \"segment\": \"%s\", \"start\": %.3f, \"took\": %.3f, ", name,
                swprof_span_segment_id(&span), start, end - begin);
        swprof_span_stop(c, &span, 0);
        read_times(&on_cpu[1], &run_queue[1]);
        printf("\"stop\": %.3f, \"on_cpu\": %.3f, \"run_queue\": %.3f, \"fd\": %d}\n",
                now_wall_ms(), on_cpu[1] - on_cpu[0], run_queue[1] - run_queue[0], pipe_fds[0]);
        stop = true;
        if (helper)
                pthread_join(thread, NULL);
        stop = false;
        fflush(stdout);
}

static bool open_page(void)
{
        struct uffdio_api api = {.api = UFFD_API};
        struct uffdio_register area = {.mode = UFFDIO_REGISTER_MODE_MISSING};

        page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
        if (page == MAP_FAILED || uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
                return false;
        area.range.start = (uintptr_t)page;
        area.range.len = 4096;
        return ioctl(uffd, UFFDIO_REGISTER, &area) == 0;
}

int main(int argc, char **argv)
{
        struct swprof *c = connect_daemon(argv[1], argv[2]);

        if (argc < 3 || pipe(pipe_fds) < 0)
                return 1;
        wait_watched(c, "/waits");
        run(c, "sleep", in_sleep, NULL);
        run(c, "futex", in_futex, NULL);
        run(c, "poll", in_poll, NULL);
        run(c, "read", in_read, write_later);
        run(c, "cpu", in_cpu, NULL);
        if (open_page())
                run(c, "page", in_page, copy_later);
        pin(true);
        run(c, "queue", in_queue, compete);
        pin(false);
        swprof_close(c);
        return 0;
}
