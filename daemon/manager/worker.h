/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/config.h"
#include "manager/module-cache.h"
#include "runtime/cpython-code.h"
#include "unwind/procmap.h"
#include "unwind/types.h"
#include "util/cleanup.h"

/*
 * The symbolizer thread: owns every Binary; reads /proc/PID/maps and files, builds modules (unwind tables), names frames.
 * Takes requests from the sampler and the main thread, answers into their mailboxes; replies hold references that the
 * receiver drops. Binaries are cached by (dev, inode, size, mtime, ctime); modules that no ProcMap holds any more are freed
 * beyond a bound. Files are opened, in this order: /proc/PID/map_files/START-END (the very inode, also deleted ones),
 * /proc/PID/root/PATH and PATH if they have the mapping's dev and inode; "[vdso]" is our own vDSO.
 */

typedef struct Worker Worker;

/* A named request to the worker. Full mailbox: the call returns WORKER_E_BUSY, try later. */
enum {
        _WORKER_E_SUCCESS,
        WORKER_E_BUSY,
};

/* Reply to worker_load: a fresh map of the process with all modules of executable mappings loaded. */
typedef struct WorkerMap {
        pid_t pid;
        uint64_t ticket; /* as given in the request */
        ProcMap *map;    /* a reference; NULL: the process is gone or cannot be read */
        /* A word before the reply, while it takes time: the process runs a CPython, here. */
        bool early;
        ModulePython python;
} WorkerMap;

/* Frames to be named, and the answer: code signatures, outermost first. */
typedef struct WorkerStack {
        uint64_t ticket;
        ProcMap *map; /* keeps the frames' modules alive; a reference, handed back in the reply */
        CpythonCodes *codes; /* the same for functions of Python, or NULL */
        size_t n_frames;
        Frame *frames; /* innermost first, malloc'ed, handed over; NULL in the reply */
        size_t n_signatures;
        char **signatures; /* reply: outermost first, one allocation (as Stack has it), freed by the receiver; NULL: no memory */
        uint8_t *
                kinds; /* reply: StackKind of each signature, malloc'ed, freed by the receiver; NULL: as signatures */
        bool cut; /* reply: deeper than profile.max_depth */
} WorkerStack;

/* Starts the thread. Of the configuration symbols.lines and profile.max_depth count, as they are now. Return: 0, -errno. */
int worker_new(Worker **ret, const Config *config);
/* Stops and joins the thread; drops what is in its mailboxes. ProcMaps that others hold stay usable, but for naming. */
Worker *worker_free(Worker *w);
DEFINE_CLEANUP(Worker *, worker_free)

/* Read (or read again) a process: reply WorkerMap to the sampler, always one. `full`: no module has a lazy table
 * then, else they become full when the worker has nothing else to do. Any thread. Return: 0, WORKER_E_BUSY. */
int worker_load(Worker *w, pid_t pid, bool full, uint64_t ticket);
/* Without a reply: reads all that stacks of that process may need, when there is nothing else to do. */
int worker_prepare(Worker *w, pid_t pid);
/* Read the names of a function of Python, as soon as can be: no reply. The set is referenced meanwhile. */
int worker_read_python(Worker *w, CpythonCodes *codes, CpythonCode *code);
/* Name frames: reply WorkerStack to main, always one. On 0 the map reference and the frames belong to the worker. */
int worker_symbolize(Worker *w, const WorkerStack *request);

struct Mailbox;
struct Mailbox *worker_maps(Worker *w);   /* of WorkerMap, read by the sampler */
struct Mailbox *worker_stacks(Worker *w); /* of WorkerStack, read by main */

/* When the thread took its current request (0: idle): the watchdog's. */
uint64_t worker_busy_since_mono_ns(Worker *w);
