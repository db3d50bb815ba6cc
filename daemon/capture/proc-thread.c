/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/proc-thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "swprof-abi.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/hash.h"
#include "util/time.h"

#define PAGE_BYTES 4096U

/* Of /proc/PID/status: what is wanted of it comes after all groups, of which there can be many. */
#define STATUS_BYTES (32 * 1024)

/* Bits of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
#define PAGE_PRESENT (1ULL << 63)
#define PAGE_SWAPPED (1ULL << 62)
#define PAGE_OF_FILE (1ULL << 61) /* or shared */
#define PAGE_UFFD_WP (1ULL << 57)

/* Fields of /proc/PID/stat, counted from the one after the name, which is number 3. */
enum {
        STAT_START = 22 - 3,
        STAT_START_CODE = 26 - 3,
        STAT_START_STACK = 28 - 3,
        STAT_ARG_START = 48 - 3,
        N_STAT,
};

/* The file from its beginning, as a string. Return: its length, -ESRCH, -errno. */
static ssize_t read_text(int fd, char *buffer, size_t size)
{
        ssize_t n = pread(fd, buffer, size - 1, 0);

        if (n < 0)
                return error_origin(-errno);
        buffer[n] = '\0';
        return n;
}

/* Numbers in any base that C knows. Return: how many there were. */
static size_t parse_numbers(const char *text, uint64_t *ret, size_t n)
{
        size_t i;

        for (i = 0; i < n; i++) {
                char *end;

                /* Signed ones come out as two's complement. */
                ret[i] = strtoull(text, &end, 0);
                if (end == text)
                        break;
                text = end;
        }
        return i;
}

/* The process' start, and what exec makes anew: where the loader has put things. */
static int read_stat(ProcThread *t)
{
        _cleanup_(closep) int fd = -1;
        char path[64], text[2048], *after_name;
        uint64_t v[N_STAT];
        ssize_t r;

        snprintf(path, sizeof(path), "/proc/%d/stat", (int)t->pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return error_origin(errno == ENOENT ? -ESRCH : -errno);
        r = read_text(fd, text, sizeof(text));
        if (r < 0)
                return error_trace((int)r);
        after_name = strrchr(text, ')');
        /* ") S 1 2 …": the state is a letter. */
        if (!after_name || strlen(after_name) < 4)
                return error_origin(-EBADMSG);
        v[0] = 0;
        if (parse_numbers(after_name + 3, v + 1, N_STAT - 1) != N_STAT - 1)
                return error_origin(-EBADMSG);
        t->process_start_boottime = v[STAT_START] * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
        t->mm = hash_bytes((uint64_t[]){v[STAT_START_CODE], v[STAT_START_STACK], v[STAT_ARG_START]},
                3 * sizeof(uint64_t));
        return 0;
}

static int open_file(int dir_fd, const char *name, int *ret_fd)
{
        int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return error_origin(errno == ENOENT ? -ESRCH : -errno);
        *ret_fd = fd;
        return 0;
}

static int open_dir(const ProcThread *t)
{
        char path[64];
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)t->pid, (int)t->tid);
        fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? error_origin(errno == ENOENT ? -ESRCH : -errno) : fd;
}

int proc_thread_init(ProcThread *t, pid_t pid, pid_t tid)
{
        _cleanup_(closep) int dir_fd = -1;
        int r;

        *t = (ProcThread)PROC_THREAD_INIT;
        t->pid = pid;
        t->tid = tid;
        dir_fd = open_dir(t);
        if (dir_fd < 0)
                return error_trace(dir_fd);
        r = open_file(dir_fd, "schedstat", &t->schedstat_fd);
        if (r == 0)
                r = open_file(dir_fd, "syscall", &t->syscall_fd);
        if (r == 0)
                r = open_file(dir_fd, "status", &t->status_fd);
        if (r == 0)
                r = open_file(dir_fd, "pagemap", &t->pagemap_fd);
        if (r == 0)
                r = read_stat(t);
        if (r)
                proc_thread_deinit(t);
        return error_trace(r);
}

void proc_thread_deinit(ProcThread *t)
{
        closep(&t->schedstat_fd);
        closep(&t->syscall_fd);
        closep(&t->status_fd);
        closep(&t->pagemap_fd);
        *t = (ProcThread)PROC_THREAD_INIT;
}

int proc_thread_read_run(const ProcThread *t, ProcRun *ret)
{
        char text[128];
        uint64_t v[3];
        ssize_t r;

        r = read_text(t->schedstat_fd, text, sizeof(text));
        if (r < 0)
                return error_trace((int)r);
        if (parse_numbers(text, v, 3) != 3)
                return error_origin(-EBADMSG);
        *ret = (ProcRun){.runtime_ns = v[0], .run_delay_ns = v[1], .n_runs = v[2]};
        return 0;
}

/* The number after that word at the beginning of a line. Return: whether there is one. */
static bool find_number(const char *text, const char *line, uint64_t *ret)
{
        const char *found = strstr(text, line);

        if (found)
                *ret = strtoull(found + strlen(line), NULL, 10);
        return found;
}

int proc_thread_read_status(const ProcThread *t, ProcStatus *ret)
{
        char text[STATUS_BYTES];
        uint64_t program_kib, libraries_kib;
        const char *state;
        ssize_t r;

        ret->state = '?';
        r = read_text(t->status_fd, text, sizeof(text));
        if (r < 0)
                return error_trace((int)r);
        state = strstr(text, "\nState:\t");
        if (state)
                ret->state = state[8];
        if (!find_number(text, "\nVmExe:", &program_kib) ||
                !find_number(text, "\nVmLib:", &libraries_kib))
                return error_origin(-EBADMSG);
        /* Their sum is the kernel's exec_vm; the program's own code does not change. */
        ret->exec_vm = (program_kib + libraries_kib) / (PAGE_BYTES / 1024);
        return 0;
}

bool proc_thread_read_place(const ProcThread *t, ProcPlace *ret)
{
        char text[256];
        uint64_t v[9];

        /* "running", "-1 sp pc" outside of system calls, or nine numbers. */
        if (read_text(t->syscall_fd, text, sizeof(text)) < 0 || parse_numbers(text, v, 9) != 9)
                return false;
        ret->syscall = (int64_t)v[0];
        memcpy(ret->args, v + 1, sizeof(ret->args));
        ret->sp = v[7];
        ret->pc = v[8];
        return true;
}

/* ---- memory ---- */

typedef enum PageKind {
        PAGE_READABLE, /* at once, or from swap */
        PAGE_UNTOUCHED,
        PAGE_OF_OTHERS, /* who can make a reader wait */
} PageKind;

static PageKind page_kind(uint64_t entry)
{
        if (entry & PAGE_OF_FILE)
                return PAGE_OF_OTHERS;
        if (entry & PAGE_PRESENT)
                return PAGE_READABLE;
        if (entry & PAGE_SWAPPED)
                return entry & PAGE_UFFD_WP ? PAGE_OF_OTHERS : PAGE_READABLE;
        return PAGE_UNTOUCHED;
}

static ssize_t read_pagemap(const ProcThread *t, uint64_t page, size_t n, uint64_t *ret)
{
        return pread(t->pagemap_fd, ret, n * sizeof(*ret), (off_t)(page * sizeof(*ret)));
}

bool proc_thread_has_memory(const ProcThread *t)
{
        uint64_t entry;

        return read_pagemap(t, 0, 1, &entry) > 0;
}

size_t proc_thread_copy(const ProcThread *t, uint64_t addr, size_t n, uint8_t *dst)
{
        uint64_t pages[SWP_STACK_BYTES / PAGE_BYTES + 1];
        uint64_t first = addr / PAGE_BYTES;
        size_t n_pages, copied = 0, end;
        ssize_t r;

        if (n == 0 || n > SWP_STACK_BYTES || addr > UINT64_MAX - n)
                return 0;
        r = read_pagemap(t, first, (addr + n - 1) / PAGE_BYTES - first + 1, pages);
        n_pages = r > 0 ? (size_t)r / sizeof(*pages) : 0;
        for (size_t i = 0, offset = 0; i < n_pages; offset = end) {
                PageKind kind = page_kind(pages[i]);
                struct iovec local, remote;

                do
                        i++;
                while (i < n_pages && page_kind(pages[i]) == kind);
                end = (first + i) * PAGE_BYTES - addr;
                if (end > n)
                        end = n;
                if (kind == PAGE_OF_OTHERS)
                        break;
                if (kind == PAGE_UNTOUCHED) {
                        memset(dst + offset, 0, end - offset);
                        continue;
                }
                local = (struct iovec){dst + offset, end - offset};
                remote = (struct iovec){(void *)(uintptr_t)(addr + offset), end - offset};
                r = process_vm_readv(t->tid, &local, 1, &remote, 1, 0);
                if (r > 0)
                        copied = offset + (size_t)r;
                if (r != (ssize_t)(end - offset))
                        break;
        }
        return copied;
}
