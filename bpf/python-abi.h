/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Frames of CPython, as the BPF programs read them for the daemon: addresses and a fingerprint,
 * no names. Compiled for both.
 */

#include <linux/types.h>

#define SWP_MAX_PYTHON     1024 /* frames of a thread: CPython's own limit is 1000 */
#define SWP_MAX_TSTATES    4    /* thread states of a thread: one for each interpreter it is in */
#define SWP_PYTHON_BLOCK   256  /* what is read at once of an object at most */
#define SWP_PYTHON_NONE    0xffff
#define SWP_PYTHON_THREADS 2048 /* interpreters and thread states that are looked through */

/* Where things are in the objects of a version, in bytes. */
struct swp_python_layout {
        __u16 interp_next, interp_threads;
        __u16 tstate_next, tstate_thread_id;
        __u16 tstate_frame; /* the innermost frame, or: */
        __u16 cframe_frame; /* unless NONE: tstate_frame leads to an object that has it there */
        __u16 frame_previous, frame_code, frame_instr;
        __u16 frame_owner; /* a byte; NONE: there is none */
        __u16 code_firstlineno, code_filename, code_name, code_linetable;
        __u16 text_hash;
        __u16 tstate_bytes, frame_bytes, code_bytes; /* up to the last of these */
        __u8 instr_bytes;                            /* 4: an int; 8: a pointer */
        __u8 shim_owner; /* frames whose owner is that or more are no function's; 0: none is */
        __u16 reserved;
};

/* One frame. Innermost first. */
struct swp_python_frame {
        __u64 code;  /* address of the code object; 0: not a function's, see shim_owner */
        __u64 instr; /* as the frame has it: a pointer, or an index; not a function's: its address,
                           on the stack */
        __u64 identity; /* swp_python_identity() of the code object when it was read */
        __u32 owner;
        __u32 reserved;
};

enum swp_python_status {
        SWP_PYTHON_OK,        /* also with no frames */
        SWP_PYTHON_NO_THREAD, /* no thread state is this thread's */
        SWP_PYTHON_FAULT,     /* memory that cannot be read, or not without waiting for its owner */
        SWP_PYTHON_CUT,       /* more than SWP_MAX_PYTHON */
};

/* Beside a slot. */
struct swp_python {
        /* request, for a slot with SWP_F_PYTHON */
        __u64 interpreters; /* address of the pointer to the first interpreter */
        struct swp_python_layout layout;
        /* kept from one request to the next; n_tstates 0: to be found */
        __u32 n_tstates;
        __u32 searched; /* answer: whether they were looked for */
        __u64 tstates[SWP_MAX_TSTATES];
        /* answer */
        __u32 status; /* enum swp_python_status */
        __u32 n_frames;
};

/* Room in a buffer for the walk. */
struct swp_python_walk {
        struct swp_python_frame frames[SWP_MAX_PYTHON];
        __u64 at;               /* the frame, or thread state, to be read next */
        __u64 interp;           /* searching: the interpreter after this one's thread states */
        __u64 start[4], end[4]; /* mappings that were found harmless, by kind of object */
        __u64 busy;             /* one could not be looked at: they are being changed */
        __u8 block[SWP_PYTHON_BLOCK];
};

#define SWP_PYTHON_TYPE 8 /* where any object has the address of its type */

/* Two code objects that were ever at the same address differ in this: `name_hash` is CPython's own
 * hash of the name. */
static inline __u64 swp_python_identity(
        __u64 type, __u32 firstlineno, __u64 filename, __u64 name, __u64 linetable, __u64 name_hash)
{
        const __u64 k = 0x9e3779b97f4a7c15ULL;
        __u64 h = (firstlineno + 1) * k;

        h = (h ^ (h >> 29) ^ type) * k;
        h = (h ^ (h >> 29) ^ filename) * k;
        h = (h ^ (h >> 29) ^ name) * k;
        h = (h ^ (h >> 29) ^ linetable) * k;
        h = (h ^ (h >> 29) ^ name_hash) * k;
        return h ^ (h >> 32);
}

_Static_assert(sizeof(struct swp_python_layout) == 40, "layout shared with BPF");
_Static_assert(sizeof(struct swp_python_frame) == 32, "layout shared with BPF");
_Static_assert(sizeof(struct swp_python) == 96, "layout shared with BPF");
