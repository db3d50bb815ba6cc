/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostile-stack SERVICE INSTANCE uffd|fuse: a thread whose span is on /hostile sleeps on a stack that is gone: who reads
 * it waits for a userfaultfd that nobody serves, or for a file in FUSE that is never read. Says so, and stays until it
 * is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
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

/* The stack's pages are a userfaultfd's to bring. */
static bool give_to_uffd(void *stack)
{
        int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
        struct uffdio_api api = {.api = UFFD_API};
        struct uffdio_register area = {
                .range = {(uintptr_t)stack, STACK_BYTES}, .mode = UFFDIO_REGISTER_MODE_MISSING};

        return fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 &&
               ioctl(fd, UFFDIO_REGISTER, &area) == 0 &&
               madvise(stack, STACK_BYTES, MADV_DONTNEED) == 0;
}

typedef struct Reply {
        struct fuse_out_header header;
        union {
                struct fuse_init_out init;
                struct fuse_attr_out attr;
                struct fuse_open_out open;
        };
} Reply;

/* A file system that is one file, which can be opened and has a size, but is never read. */
static void serve_fuse(int fd)
{
        static char request[1 << 20];
        const struct fuse_in_header *in = (const void *)request;

        while (read(fd, request, sizeof(request)) > 0) {
                Reply out = {.header = {.unique = in->unique}};
                size_t n = 0;

                switch (in->opcode) {
                case FUSE_READ:
                        continue;
                case FUSE_INIT:
                        out.init = (struct fuse_init_out){
                                .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
                        n = sizeof(out.init);
                        break;
                case FUSE_GETATTR:
                        out.attr.attr = (struct fuse_attr){
                                .ino = 1, .size = STACK_BYTES, .mode = S_IFREG | 0600, .nlink = 1};
                        n = sizeof(out.attr);
                        break;
                case FUSE_OPEN:
                        n = sizeof(out.open);
                        break;
                default:
                        out.header.error = -ENOSYS;
                }
                out.header.len = (uint32_t)(sizeof(out.header) + n);
                if (write(fd, &out, out.header.len) < 0)
                        break;
        }
}

/* In a mount namespace of its own, over a file that is there anyway. A process of its own serves it: that ends first,
 * and so lets those go that wait. */
static bool give_to_fuse(void *stack)
{
        static const char file[] = "/etc/passwd";
        char options[64];
        struct stat s;
        int fuse, fd;

        fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
        snprintf(options, sizeof(options), "fd=%d,rootmode=100600,user_id=0,group_id=0", fuse);
        if (fuse < 0 || unshare(CLONE_NEWNS) < 0 ||
                mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
                mount("hostile", file, "fuse", MS_NOSUID | MS_NODEV, options) < 0)
                return false;
        if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                serve_fuse(fuse);
                _exit(0);
        }
        close(fuse);
        fd = open(file, O_RDONLY | O_CLOEXEC);
        /* The kernel asks for the size here. */
        return fd >= 0 && fstat(fd, &s) == 0 && s.st_size == STACK_BYTES &&
               mmap(stack, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) ==
                       stack;
}

int main(int argc, char **argv)
{
        void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        pthread_attr_t attr;
        pthread_t thread;

        if (argc < 4 || stack == MAP_FAILED)
                return 2;
        client = connect_daemon(argv[1], argv[2]);
        wait_watched(client, "/hostile");
        pthread_attr_init(&attr);
        pthread_attr_setstack(&attr, stack, STACK_BYTES);
        pthread_create(&thread, &attr, sleep_for_ever, NULL);
        wait_asleep();
        if (!(strcmp(argv[3], "fuse") == 0 ? give_to_fuse(stack) : give_to_uffd(stack))) {
                perror(argv[3]);
                return 1;
        }
        printf("{\"gone\": %d}\n", tid);
        fflush(stdout);
        for (;;)
                sleep_ms(1000000);
}
