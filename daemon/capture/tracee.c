/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/tracee.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "util/error.h"
#include "util/time.h"

#define USER64_CS 0x33U /* code segment of 64-bit threads (__USER_CS) */

/* Return: 0; TRACEE_E_GONE; TRACEE_E_RUNNING. */
static int look(Tracee *t)
{
        int status;
        pid_t r;

        r = waitpid(t->wait_tid, &status, __WALL | WNOHANG);
        /* An exec gives the thread that does it the number of the process. */
        if (r < 0 && t->wait_tid != t->pid) {
                t->wait_tid = t->pid;
                r = waitpid(t->wait_tid, &status, __WALL | WNOHANG);
        }
        if (r == 0)
                return TRACEE_E_RUNNING;
        if (r < 0 || !WIFSTOPPED(status)) {
                t->seized = false;
                return TRACEE_E_GONE;
        }
        /* A stop with an event is ours, or job control's. */
        t->signal = status >> 16 ? 0 : WSTOPSIG(status);
        return 0;
}

int tracee_stop(Tracee *t, uint64_t wait_ns)
{
        uint64_t begin = mono_now_ns(), waited;
        int r;

        if (!t->seized) {
                if (ptrace(PTRACE_SEIZE, t->tid, NULL, NULL) < 0) {
                        if (errno == ESRCH)
                                return TRACEE_E_GONE;
                        return errno == EPERM ? TRACEE_E_DENIED : error_origin(-errno);
                }
                t->seized = true;
                t->wait_tid = t->tid;
                /* Fails for one that has ended only, which waiting will tell. */
                (void)ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL);
        }
        for (;;) {
                r = look(t);
                waited = mono_now_ns() - begin;
                /* No pause: a busy CPU comes back late. */
                if (r != TRACEE_E_RUNNING || waited >= wait_ns)
                        return r;
        }
}

bool tracee_read_regs(const Tracee *t, TraceeRegs *ret)
{
        struct user_regs_struct u;
        struct iovec iov = {&u, sizeof(u)};

        if (ptrace(PTRACE_GETREGSET, t->wait_tid, NT_PRSTATUS, &iov) < 0 ||
                iov.iov_len != sizeof(u) || u.cs != USER64_CS)
                return false;
        *ret = (TraceeRegs){
                .regs.r = {u.rax, u.rdx, u.rcx, u.rbx, u.rsi, u.rdi, u.rbp, u.rsp, u.r8, u.r9,
                        u.r10, u.r11, u.r12, u.r13, u.r14, u.r15, u.rip},
                .fsbase = u.fs_base,
                .syscall = (int64_t)u.orig_rax,
                .args = {u.rdi, u.rsi, u.rdx, u.r10, u.r8, u.r9},
        };
        return true;
}

void tracee_resume(Tracee *t)
{
        assert(t->seized);

        if (ptrace(PTRACE_DETACH, t->wait_tid, NULL, (void *)(intptr_t)t->signal) == 0)
                t->seized = false;
}
