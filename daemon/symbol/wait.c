/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/futex.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "symbol/wait.h"

/* A code is the number of the system call, or one of these, above what it is called with. */
#define WHAT(code)         ((uint32_t)((code) >> 32))
#define DETAIL(code)       ((uint32_t)(code))
#define CODE(what, detail) ((uint64_t)(what) << 32 | (uint32_t)(detail))

enum {
        WAIT_CPU = UINT32_MAX,
        WAIT_PAGE = UINT32_MAX - 1,
};

static const char *const names[] = {
#include "syscall-names.h"
};

/* Those that wait, and whose first argument is a file descriptor. */
static bool takes_fd(uint32_t syscall)
{
        switch (syscall) {
        case SYS_read:
        case SYS_write:
        case SYS_pread64:
        case SYS_pwrite64:
        case SYS_readv:
        case SYS_writev:
        case SYS_preadv:
        case SYS_pwritev:
        case SYS_preadv2:
        case SYS_pwritev2:
        case SYS_sendto:
        case SYS_recvfrom:
        case SYS_sendmsg:
        case SYS_recvmsg:
        case SYS_sendmmsg:
        case SYS_recvmmsg:
        case SYS_connect:
        case SYS_accept:
        case SYS_accept4:
        case SYS_epoll_wait:
        case SYS_epoll_pwait:
        case SYS_epoll_pwait2:
        case SYS_io_uring_enter:
        case SYS_ioctl:
        case SYS_fcntl:
        case SYS_flock:
        case SYS_fsync:
        case SYS_fdatasync:
        case SYS_sync_file_range:
        case SYS_ftruncate:
        case SYS_fallocate:
        case SYS_getdents64:
        case SYS_splice:
        case SYS_sendfile:
        case SYS_copy_file_range:
        case SYS_close:
                return true;
        default:
                return false;
        }
}

uint64_t wait_code(bool blocked, int64_t syscall, uint64_t arg0, uint64_t arg1)
{
        uint32_t what = syscall >= 0 && syscall < WAIT_PAGE ? (uint32_t)syscall : WAIT_PAGE;

        if (!blocked)
                return CODE(WAIT_CPU, 0);
        if (what == SYS_futex)
                return CODE(what, arg1 & FUTEX_CMD_MASK);
        return CODE(what, takes_fd(what) ? arg0 : 0);
}

static const char *futex_name(uint32_t operation)
{
        switch (operation) {
        case FUTEX_WAIT:
        case FUTEX_WAIT_BITSET:
                return "futex_wait";
        case FUTEX_LOCK_PI:
        case FUTEX_LOCK_PI2:
                return "futex_lock_pi";
        case FUTEX_WAIT_REQUEUE_PI:
                return "futex_wait_requeue_pi";
        default:
                return "futex";
        }
}

char *wait_signature(uint64_t code)
{
        uint32_t what = WHAT(code), detail = DETAIL(code);
        const char *name = what < sizeof(names) / sizeof(names[0]) ? names[what] : NULL;
        char *ret = NULL;
        int n;

        if (what == WAIT_CPU)
                n = asprintf(&ret, "[run queue]");
        else if (what == WAIT_PAGE)
                n = asprintf(&ret, "[page fault]");
        else if (what == SYS_futex)
                n = asprintf(&ret, "[%s]", futex_name(detail));
        else if (!name)
                n = asprintf(&ret, "[syscall %u]", what);
        else if (takes_fd(what))
                n = asprintf(&ret, "[%s fd %d]", name, (int)detail);
        else
                n = asprintf(&ret, "[%s]", name);
        return n < 0 ? NULL : ret;
}
