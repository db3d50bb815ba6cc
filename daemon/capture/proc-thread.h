/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What /proc tells of one thread, without stopping it. The thread's files stay open: they are that
 * thread's alone, so no later one with its number is taken for it. Private to this folder.
 */

typedef struct ProcThread {
        pid_t pid, tid;
        int schedstat_fd, syscall_fd, status_fd;
        int pagemap_fd;                  /* of the memory that the process had when it was opened */
        uint64_t process_start_boottime; /* to the kernel's tick of 10 ms */
        uint64_t mm;                     /* differs after an exec */
} ProcThread;

#define PROC_THREAD_INIT                                                                \
        {                                                                               \
                .schedstat_fd = -1, .syscall_fd = -1, .status_fd = -1, .pagemap_fd = -1 \
        }

/* What a thread has used. */
typedef struct ProcRun {
        uint64_t runtime_ns, run_delay_ns;
        uint64_t n_runs; /* times that it was given a CPU; 0: this kernel does not count them */
} ProcRun;

/* Where a thread waits. */
typedef struct ProcPlace {
        int64_t syscall;
        uint64_t args[6];
        uint64_t sp, pc;
} ProcPlace;

typedef struct ProcStatus {
        char state;       /* as in ps(1) */
        uint64_t exec_vm; /* pages of code: changes when code is mapped or unmapped */
} ProcStatus;

/* Return: 0; -ESRCH: there is no such thread; -errno. On failure nothing is left open. */
int proc_thread_init(ProcThread *t, pid_t pid, pid_t tid);
void proc_thread_deinit(ProcThread *t);

/* Return: 0; -ESRCH: it has ended; -errno. */
int proc_thread_read_run(const ProcThread *t, ProcRun *ret);
/* The same; -EBADMSG: it has no memory (any more), and the state alone is filled in. */
int proc_thread_read_status(const ProcThread *t, ProcStatus *ret);

/* Return: whether the process still has the memory that it had: not after an exec. */
bool proc_thread_has_memory(const ProcThread *t);

/* Return: whether it is off CPU, waiting in a system call. */
bool proc_thread_read_place(const ProcThread *t, ProcPlace *ret);

/*
 * Copies upwards from addr, up to the first page that is not private anonymous memory: reading
 * others can wait for a process that serves their pages (a file system of its own, userfaultfd).
 * Such pages as were never touched count as zeros. Return: bytes copied, up to the last page that was
 * in memory.
 */
size_t proc_thread_copy(const ProcThread *t, uint64_t addr, size_t n, uint8_t *dst);
