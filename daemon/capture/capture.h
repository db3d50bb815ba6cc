/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/config.h"
#include "python-abi.h"
#include "unwind/types.h"
#include "util/cleanup.h"

/*
 * Reading the stacks of other threads without stopping them (architecture: Capture), or, where the
 * host has no BPF for us, by stopping them for a moment (backend "ptrace"). One user thread, the
 * sampler. capture-bpf.c is the only file that includes libbpf. No program runs and no event exists
 * while no thread is added.
 *
 * A thread (CaptureThread) is captured in two steps: capture_pull() of all threads that are due
 * answers at once for those that are off CPU; for each running one a shot is fired, which is
 * answered by the kernel within some 10 µs, announced by capture_fd(), and fetched with
 * capture_collect(). A shot that is not wanted any more is cancelled. The ptrace backend has no
 * shots: there capture_fd() and capture_collect() only serve to let go of threads that stopped
 * late.
 */

typedef struct Capture Capture;
typedef struct CaptureThread CaptureThread;

typedef enum CaptureStatus {
        CAPTURE_REPEATED, /* has not run since the last CAPTURE_TAKEN of it (ptrace: or waits at the
                              same place again): the same stack */
        CAPTURE_TAKEN,    /* copy is filled in */
        CAPTURE_RUNNING,  /* on CPU: a shot is out */
        CAPTURE_UNSTABLE, /* ran while it was read: pull again */
        CAPTURE_GONE,     /* the thread has ended, or runs another program */
        CAPTURE_FAULT,    /* its stack cannot be read: not mapped, or memory whose owner could make
                              the reader wait (of a file, or under userfaultfd) */
        CAPTURE_BUSY,     /* no buffer is free now: pull again */
        CAPTURE_DENIED,   /* ptrace: it has another tracer, or a security module forbids it */
} CaptureStatus;

/* Names the state of a process' mappings: what is the same as before has, as far as code goes, the
 * same map. */
typedef struct CaptureSpace {
        uint64_t exec_vm; /* pages of code: changes when code is mapped or unmapped */
        uint64_t mm;      /* changes at exec */
        uint64_t process_start_boottime; /* another for a later process with the same number */
} CaptureSpace;

static inline bool capture_space_equal(const CaptureSpace *a, const CaptureSpace *b)
{
        return a->exec_vm == b->exec_vm && a->mm == b->mm &&
               a->process_start_boottime == b->process_start_boottime;
}

typedef struct CaptureResult {
        CaptureStatus status;
        uint64_t mono_ns;                  /* when it was taken */
        uint64_t runtime_ns, run_delay_ns; /* the thread's time on a CPU, and in want of one */

        /* TAKEN: */
        bool shot; /* by an interrupt in the running thread */
        /* 0: not known. It waits (it blocks, that is) with this stack since then; it waited
         * with the stack of the capture before until then. Both are some 10 µs late, or off by what
         * interrupts and the host took from it meanwhile. */
        uint64_t waits_since_mono_ns, waited_until_mono_ns;
        StackCopy copy; /* the bytes are valid until the thread's next pull or
                             capture_release() */
        bool pcs_only;  /* fp mode, shots: pcs instead of a copy */
        bool pcs_cut;   /* there were more than the kernel keeps */
        size_t n_pcs;
        const uint64_t *pcs; /* user, innermost first */
        size_t n_kernel_pcs;
        const uint64_t *kernel_pcs; /* innermost first */
        /* Of a thread with capture_thread_set_python(): the interpreter's frames at that instant,
         * valid as long as the bytes of the copy. */
        bool has_python; /* they were read, or it was tried: */
        enum swp_python_status python_status;
        bool python_searched; /* the thread's states were looked for, not remembered */
        size_t n_python;
        const struct swp_python_frame *python;
        CaptureSpace space;
        uint64_t fsbase;
        int64_t syscall; /* number of the system call it is in, -1: none */
        bool blocked;    /* it was off the CPU, waiting for something else */
        bool queued;     /* it was off the CPU, in want of one */
        /* Queued: it ran until then, and had to make room; some 10 µs late. 0: it had waited for
         * something else meanwhile, or that is not known. */
        uint64_t ran_until_mono_ns;
} CaptureResult;

typedef struct CaptureInfo {
        const char *backend; /* "bpf/syscall", "bpf/iter", "ptrace", "none" */
        bool stops;          /* it stops threads, for want of BPF */
        char reason[768];    /* why this one; or why none, and what to do */
} CaptureInfo;

/*
 * Chooses (config: capture.backend) and loads the programs, proving each on a thread of our own: a
 * program that does not find that very thread (other pid namespace, no kfunc) is not used. ptrace
 * is proven on a child process, and chosen where no BPF backend works. Return: 0;
 * CAPTURE_E_UNAVAILABLE with ret_info telling why; -errno. ret_info is always filled in.
 */
enum {
        _CAPTURE_E_SUCCESS,
        CAPTURE_E_UNAVAILABLE,
        CAPTURE_E_LIMIT,
        CAPTURE_E_GONE,
};
int capture_new(Capture **ret, const Config *config, CaptureInfo *ret_info);
Capture *capture_free(Capture *c);
DEFINE_CLEANUP(Capture *, capture_free)

/* Readable when a shot was answered. */
int capture_fd(const Capture *c);

/* Return: 0, CAPTURE_E_LIMIT, CAPTURE_E_GONE, -errno. `userdata` comes back from capture_collect.
 */
int capture_thread_new(Capture *c, CaptureThread **ret, pid_t pid, pid_t tid, void *userdata);
CaptureThread *capture_thread_free(CaptureThread *t);
DEFINE_CLEANUP(CaptureThread *, capture_thread_free)

/* What is copied at first: most stacks are smaller. */
#define CAPTURE_FIRST_WANT 4096U

/* Bytes that pulls copy from now on (at most capture.max_stack_bytes and SWP_STACK_BYTES). Shots
 * always copy as much as they may. */
void capture_thread_set_want(CaptureThread *t, size_t bytes);
/* What it is now: a copy that is shorter, and ends before the stack does, met a page that cannot be
 * read. */
size_t capture_thread_want(const CaptureThread *t);
/* From now on the stack is copied that a signal interrupted where the stack pointer was `sp`, as
 * far as half a buffer goes, and of the thread's own stack not more than that; 0: no more. */
void capture_thread_set_other(CaptureThread *t, uint64_t sp);
/* From now on the frames of CPython are read, too, of an interpreter with that layout (copied);
 * `interpreters`: address of the pointer to the first one. Layout NULL: no more. */
void capture_thread_set_python(
        CaptureThread *t, const struct swp_python_layout *layout, uint64_t interpreters);
/* The next capture looks for the thread's states anew. */
void capture_thread_find_python(CaptureThread *t);
/*
 * Shots do not copy from that address on, where the outermost frame ends; 0: they go on to whatever
 * cannot be read. Copying is most of their time, and above main() there is much.
 */
void capture_thread_set_end(CaptureThread *t, uint64_t addr);
/* From now on the goroutine's stack is copied where the thread is on another one, up to half a
 * buffer, unless another copy is asked for; NULL: no more. */
void capture_thread_set_go(CaptureThread *t, const GoPlaces *go);
/* From now on the code is copied that is about to run; by pulls, where it is in no file. */
void capture_thread_set_code(CaptureThread *t, bool code);
/* The next pull copies even if the thread has not run. */
void capture_thread_forget(CaptureThread *t);

/*
 * One capture of each of the n threads; results[i] belongs to threads[i], and what it points to is
 * overwritten by the thread's next pull. A shot that is still out is cancelled first. Blocks on
 * nothing but a target's page faults. Return: 0, -errno.
 */
int capture_pull(Capture *c, CaptureThread *const *threads, size_t n, CaptureResult *results);

/* One more look at a thread that has been captured for the last time: times alone are filled in.
 * Gives up a shot. Return: 0, CAPTURE_E_GONE, -errno. */
int capture_finish(CaptureThread *t, CaptureResult *ret);

/* The next answered shot. Return: true: *ret_userdata and *ret are filled in. */
bool capture_collect(Capture *c, void **ret_userdata, CaptureResult *ret);

/* Gives up a shot. Return: true: it was answered in the meantime, result filled in; false: none
 * will come. */
bool capture_cancel(CaptureThread *t, CaptureResult *ret);

/* The result's bytes are no longer needed: zeroed, and the buffer is free for others. */
void capture_release(CaptureThread *t);
