/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <sys/types.h>

typedef enum Owner {
        OWNER_GONE, /* no such process, or it has ended */
        OWNER_SELF,
        OWNER_OTHER,
} Owner;

/*
 * As for ptrace(2): the process runs as that user alone, and may dump core: it has run nothing with
 * more rights, or that keeps secrets from that user, or the kernel would give the file to root. (Not
 * so the process' folder.)
 */
Owner owner_of(pid_t pid, uid_t uid);
