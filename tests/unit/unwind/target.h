/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "unwind/unwind.h"

/* For tests: a process that is traced, and what unwinding needs to know of it. */

typedef struct Target {
        pid_t pid; /* of the process */
        pid_t tid; /* of the thread that stopped */
        ProcMap *map;
        StackCopy copy;
        uint8_t *bytes;
} Target;

/* Starts a program and lets it run into its first int3; fails the test if it does not. */
void target_start(Target *t, const char *path, const char *argument);

/* Lets the thread execute one instruction. False: it has come to an int3, or is gone. */
bool target_step(Target *t);

/* Registers and stack as they are now. */
void target_copy(Target *t);

/* Leaves it stopped, but no longer traced. */
void target_leave(Target *t);

/* Kills it; frees all. */
void target_end(Target *t);

/* Table of a file, or of the vDSO of this process. NULL: none. */
CfiTable *table_of_file(const char *path);
Module *module_of_vdso(void);

/* Name of the function that the symbol tables of the file give for an address; "?": none. The
 * answer is valid until the next call. */
const char *function_at(const char *path, uint64_t vaddr);

/* Reports what was not given back, where the build can tell. To be the .fini of each test. */
void check_leaks(void);
