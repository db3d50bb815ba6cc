/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * What the BPF programs and the daemon share. Compiled for both: fixed-width types, no implicit
 * padding, sizes asserted. pid is a thread group's id (tgid), tid a thread's (the kernel's "pid").
 */

#include <linux/types.h>

#include "python-abi.h"

#define SWP_MAX_SLOTS   4096        /* threads known at a time */
#define SWP_STACK_BYTES (64 * 1024) /* bytes of stack in one copy at most */
#define SWP_MAX_BUFFERS 64          /* copies in flight */
#define SWP_RED_ZONE    128         /* bytes below sp that may be in use (psABI, 3.2.2) */
#define SWP_NO_BUFFER   0xffffffffU
#define SWP_OTHER_BYTES (SWP_STACK_BYTES / 2) /* of another stack: the buffer's second half */
#define SWP_OTHER_AT    (SWP_STACK_BYTES - SWP_OTHER_BYTES)
#define SWP_CODE_BYTES  128 /* of code at the pc */
#define SWP_MAX_KSTACK  32  /* kernel frames kept */
#define SWP_MAX_USTACK \
        127 /* frames of a stack-trace map's entry (kernel.perf_event_max_stack's default) */

enum swp_status {
        SWP_NONE,      /* nothing asked yet */
        SWP_UNCHANGED, /* off CPU, and has not run since known_switches */
        SWP_COPIED,    /* registers and stack are consistent */
        SWP_ON_CPU,    /* runs: ask for a shot */
        SWP_UNSTABLE,  /* ran while it was read */
        SWP_GONE,      /* no such thread, or another one or another program by now */
        SWP_FAULT,     /* not a byte of the stack could be read, or not a 64-bit thread, or its
                          stack lies in memory whose owner could make a reader wait */
        SWP_NO_ROOM,   /* off CPU, has run, and the request brought no buffer */
        SWP_DENIED,    /* ptrace: the thread has another tracer, or a security module forbids it */
};

/* Where the Go runtime keeps what a thread runs: offsets. */
struct swp_go {
        __s64 g;       /* from fsbase: address of the g that runs */
        __u32 m;       /* in a g: address of the thread's m; 0: it is no Go program */
        __u32 curg;    /* in an m: address of the goroutine's g; its stack is [*g, *(g + 8)) */
        __u32 sched;   /* in a g: the stack pointer that it goes on with, and behind it the pc */
        __u32 vdso_sp; /* in an m: the same of a call of the vDSO; 0: not known */
};

/* One thread. The daemon writes the request, a program the answer; `answered` is written last. */
/* What a pull of an unchanged thread needs comes first, in two cache lines. */
struct swp_slot {
        /* request */
        __u32 tid;            /* in the initial pid namespace, or as the iterator was attached */
        __u32 want;           /* bytes of stack */
        __u32 buffer;         /* index into the buffers map, or SWP_NO_BUFFER */
        __u32 flags;          /* SWP_F_… */
        __u64 known_switches; /* no copy if the thread's counter still says so; ~0: copy always */
        __u64 start_boottime; /* of the thread asked for; 0: any */
        __u32 request;        /* number of this request */
        /* answer */
        __u32 answered;     /* number of the request answered */
        __u32 status;       /* enum swp_status */
        __u32 shot;         /* 1: taken by an interrupt in the running thread */
        __u64 mono_ns;      /* bpf_ktime_get_ns() of the capture */
        __u64 switches;     /* nvcsw + nivcsw */
        __u64 runtime_ns;   /* se.sum_exec_runtime */
        __u64 run_delay_ns; /* sched_info.run_delay: until it last came onto a CPU */
        __u64 queued_sched_ns; /* in want of a CPU since then, on the scheduler's clock; 0: it is not */
        __u64 puller_sched_ns; /* pulls: when the thread that pulls came onto its own */
        __u32 state;           /* task_struct.__state */
        __u32 copied;          /* bytes from copy_addr */
        /* request */
        __u64 exec_id;    /* of the program that the thread asked for runs */
        __u64 other_addr; /* copy from there, too: the stack that a signal interrupted; 0: none */
        __u64 unused;
        struct swp_go go; /* or the stack of the goroutine, where the thread is on another one */
        /* answer, but to an unchanged one: */
        /* Its last turn on a CPU. On the scheduler's clock. */
        __u64 voluntary;        /* nvcsw: how often it has blocked */
        __u64 arrival_sched_ns; /* when it came */
        __u64 turn_ns; /* what it has used since, as of the last tick if it is there still */
        __u64 task_start_boottime;
        __u64 task_exec_id;
        __u64 exec_vm; /* mm->exec_vm: changes when code is mapped or unmapped */
        __u64 mm;      /* its address: changes at exec */
        __u64 process_start_boottime;
        __u64 fsbase;
        __u64 stack_start; /* the mapping that sp pointed into at the last pull */
        __u64 stack_end;
        __u64 copy_addr;   /* where the copy begins: below sp by the red zone */
        __u64 other_begin; /* other_addr, or where the copy of the goroutine's stack begins */
        __u64 other_end;   /* of what may be copied from there */
        __u64 go_sp; /* the goroutine, if it is elsewhere, goes on with; 0: not known, 1: none */
        __u64 go_pc;
        __u64 orig_ax;      /* system call number, -1: none */
        __u64 regs[17];     /* in DWARF order, [16]: rip */
        __s32 ustack_id;    /* SWP_F_FP shots: id in the stack-trace map, < 0: error */
        __s32 kstack_id;    /* SWP_F_KERNEL shots: the same for the kernel's frames */
        __u32 n_kstack;     /* SWP_F_KERNEL pulls: kernel frames, innermost first */
        __u32 other_copied; /* bytes from other_begin, in the buffer from SWP_OTHER_AT on */
        __u64 kstack[SWP_MAX_KSTACK];
        __u64 code_copied; /* SWP_F_CODE: bytes of code from regs[16] on */
        __u8 code[SWP_CODE_BYTES];
};

#define SWP_F_KERNEL 1U /* kernel frames, too */
#define SWP_F_FP     2U /* a shot walks frame pointers into the stack-trace map, and copies nothing */
#define SWP_F_CODE   4U /* the code that it is about to run, too; pulls: where that is in no file */
#define SWP_F_PYTHON 8U /* frames of CPython, too: the slot's struct swp_python says how */

struct swp_buffer {
        __u8 bytes[SWP_STACK_BYTES];
        struct swp_python_walk python;
};

/* Context of the pull_syscall program: how many entries of the work list count. */
struct swp_pull {
        __u32 n;
};

/* Ring buffer record: a shot was answered. */
struct swp_event {
        __u32 slot;
        __u32 request;
};

_Static_assert(sizeof(struct swp_slot) == 832, "layout shared with BPF");
_Static_assert(sizeof(struct swp_event) == 8, "layout shared with BPF");
_Static_assert((SWP_F_KERNEL ^ SWP_F_FP ^ SWP_F_CODE ^ SWP_F_PYTHON) == 15, "a bit each");
