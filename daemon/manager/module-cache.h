/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <sys/types.h>

#include "python-abi.h"
#include "symbol/binary.h"
#include "unwind/procmap.h"
#include "util/cleanup.h"

/*
 * The modules of all files that processes run, with the Binary of each: built once per file and
 * shared. A file is what fstat says of it: device, inode, size, times of change. Not its build-id:
 * anybody can write one into a file, and would then name the frames of somebody else's. Files that
 * could not be read have a module, too, with a name alone. Symbolizer thread only.
 *
 * Reading all that stacks may need of a large file takes a second. The first stack needs little of
 * it, and does not wait for the rest: modules have lazy tables at first, where that is possible.
 */

typedef struct ModuleCache ModuleCache;

/* Return: 0, -ENOMEM. */
int module_cache_new(ModuleCache **ret);
/* Frees the binaries; modules that are referenced elsewhere stay, without symbols. */
ModuleCache *module_cache_free(ModuleCache *c);
DEFINE_CLEANUP(ModuleCache *, module_cache_free)

/*
 * The process's map, with the modules of its executable mappings. `full`: no table is lazy,
 * if time allows it. `stop_fd`: gives up when that becomes readable. Logs files that cannot be read, and counts.
 * Return: 0 (the map's reference is the caller's); MODULE_CACHE_E_GONE: there is no such process
 * (any more), or it has no user space, or stop_fd became readable; -errno.
 */
enum {
        _MODULE_CACHE_E_SUCCESS,
        MODULE_CACHE_E_GONE,
        MODULE_CACHE_E_COMPLETED,
};
int module_cache_load(ModuleCache *c, pid_t pid, bool full, int stop_fd, ProcMap **ret);

/* Reads the rest of a module that is in a map, unless as much as *n_gap_bytes of code without unwind
 * information was read for that map, and counts these. Return: 0: there was nothing to do;
 * MODULE_CACHE_E_COMPLETED; -errno. */
int module_cache_complete(Module *m, size_t *n_gap_bytes);

/*
 * Where the process' CPython is, if its file is not in the cache yet: captures are to read its frames
 * while the file is being read. Return: 0; MODULE_CACHE_E_GONE: none, or it is known; -errno.
 */
typedef struct ModulePython {
        struct swp_python_layout layout;
        uint64_t interpreters;
} ModulePython;
int module_cache_find_python(ModuleCache *c, pid_t pid, ModulePython *ret);

size_t module_cache_n(const ModuleCache *c);
