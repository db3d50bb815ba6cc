/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * The few kernel types and fields that are read. Offsets and sizes are the running kernel's
 * (CO-RE), so order and neighbours do not matter here; a field that the kernel lacks makes the load
 * fail.
 */

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;

struct super_block {
        unsigned long s_magic;
};

struct inode {
        struct super_block *i_sb;
};

struct file {
        struct inode *f_inode;
};

struct vm_area_struct {
        unsigned long vm_start;
        unsigned long vm_end;
        unsigned long vm_flags;
        struct file *vm_file;
};

struct mm_struct {
        unsigned long exec_vm;
};

struct thread_struct {
        unsigned long fsbase;
};

struct sched_entity {
        __u64 sum_exec_runtime;
        __u64 prev_sum_exec_runtime; /* when it was last chosen to run */
};

struct sched_info {
        unsigned long long run_delay;
        unsigned long long last_arrival; /* when it last came onto a CPU */
        unsigned long long last_queued;  /* since when it is in want of one; 0: it is not */
};

struct task_struct {
        unsigned int __state;
        int on_cpu; /* u8 from 7.2 on: read it by BPF_CORE_READ_BITFIELD only */
        struct mm_struct *mm;
        struct task_struct *group_leader;
        unsigned long nvcsw;
        unsigned long nivcsw;
        __u64 start_boottime;
        __u64 self_exec_id; /* one more with each exec */
        struct sched_entity se;
        struct sched_info sched_info;
        struct thread_struct thread;
};

struct pt_regs {
        unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
        unsigned long orig_ax, ip, cs, sp;
};

struct bpf_iter_meta {
        struct seq_file *seq;
};

struct bpf_iter__task {
        struct bpf_iter_meta *meta;
        struct task_struct *task;
};

#pragma clang attribute pop
