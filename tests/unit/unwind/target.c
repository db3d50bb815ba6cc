/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "target.h"

enum {
        SEGMENTS_MAX = 16,
        RED_ZONE = 128,
        COPY_MAX = 256 << 10,
};

static size_t read_segments(Elf *elf, ModuleSegment *segments)
{
        size_t n_headers = 0, n = 0;

        elf_getphdrnum(elf, &n_headers);
        for (size_t i = 0; i < n_headers && n < SEGMENTS_MAX; i++) {
                GElf_Phdr ph;

                if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_LOAD)
                        segments[n++] = (ModuleSegment){ph.p_offset, ph.p_vaddr, ph.p_filesz};
        }
        return n;
}

static Module *module_of_elf(const char *name, Elf *elf)
{
        ModuleSegment segments[SEGMENTS_MAX];
        size_t n = read_segments(elf, segments);
        CfiTable *cfi = NULL;
        Module *m;

        cr_assert_eq(cfi_table_new(&cfi, elf, NULL), 0, "%s", name);
        m = module_new(name, cfi, n, segments);
        cr_assert(m);
        return m;
}

static Module *module_of_file(const char *path)
{
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        Elf *elf = fd >= 0 ? elf_begin(fd, ELF_C_READ_MMAP, NULL) : NULL;
        Module *m = elf ? module_of_elf(path, elf) : NULL;

        elf_end(elf);
        return m;
}

Module *module_of_vdso(void)
{
        char *image = (char *)getauxval(AT_SYSINFO_EHDR);
        Elf *elf;
        Module *m;

        if (!image)
                return NULL;
        elf_version(EV_CURRENT);
        elf = elf_memory(image, 8192);
        m = elf ? module_of_elf("[vdso]", elf) : NULL;
        elf_end(elf);
        return m;
}

CfiTable *table_of_file(const char *path)
{
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        CfiTable *t = NULL;
        Elf *elf;

        elf_version(EV_CURRENT);
        elf = fd >= 0 ? elf_begin(fd, ELF_C_READ_MMAP, NULL) : NULL;
        if (elf)
                cfi_table_new(&t, elf, NULL);
        elf_end(elf);
        return t;
}

static ProcMap *read_map(pid_t pid)
{
        static char text[256 << 10];
        _cleanup_(closep) int fd = -1;
        char path[64];
        ProcMap *map;
        size_t n = 0;
        ssize_t r;

        elf_version(EV_CURRENT);
        snprintf(path, sizeof(path), "/proc/%d/maps", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        cr_assert_geq(fd, 0);
        while ((r = read(fd, text + n, sizeof(text) - n)) > 0)
                n += (size_t)r;
        cr_assert_eq(procmap_parse(&map, text, n), 0);
        for (size_t i = 0; i < map->n; i++) {
                Mapping *m = &map->mappings[i];

                if (!m->exec)
                        continue;
                if (m->inode != 0)
                        m->module = module_of_file(m->name);
                else if (strcmp(m->name, "[vdso]") == 0)
                        m->module = module_of_vdso();
        }
        return map;
}

static void run_to_trap(Target *t)
{
        int status;

        for (;;) {
                int sig = 0;

                t->tid = waitpid(-1, &status, __WALL);
                cr_assert_gt(t->tid, 0);
                cr_assert(WIFSTOPPED(status), "%d ended with %x", t->tid, status);
                if (status >> 8 == SIGTRAP)
                        return;
                if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP)
                        sig = WSTOPSIG(status);
                cr_assert_eq(ptrace(PTRACE_CONT, t->tid, 0, sig), 0);
        }
}

void target_start(Target *t, const char *path, const char *argument)
{
        *t = (Target){.pid = fork()};
        cr_assert_geq(t->pid, 0);
        if (t->pid == 0) {
                ptrace(PTRACE_TRACEME, 0, 0, 0);
                execl(path, path, argument, NULL);
                _exit(127);
        }
        run_to_trap(t); /* of execve */
        cr_assert_eq(
                ptrace(PTRACE_SETOPTIONS, t->pid, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE), 0);
        cr_assert_eq(ptrace(PTRACE_CONT, t->pid, 0, 0), 0);
        run_to_trap(t);
        t->map = read_map(t->pid);
        t->bytes = malloc(COPY_MAX);
        cr_assert(t->bytes);
        target_copy(t);
}

bool target_step(Target *t)
{
        siginfo_t info;
        int status;

        if (ptrace(PTRACE_SINGLESTEP, t->tid, 0, 0) != 0 || waitpid(t->tid, &status, __WALL) < 0 ||
                status >> 8 != SIGTRAP || !WIFSTOPPED(status) ||
                ptrace(PTRACE_GETSIGINFO, t->tid, 0, &info) != 0)
                return false;
        return info.si_code != SI_KERNEL; /* int3's */
}

void target_copy(Target *t)
{
        struct user_regs_struct u;
        struct iovec iov = {.iov_base = &u, .iov_len = sizeof(u)};
        const Mapping *stack;
        char path[64];
        ssize_t n;
        int fd;

        cr_assert_eq(ptrace(PTRACE_GETREGSET, t->tid, NT_PRSTATUS, &iov), 0);
        t->copy.regs = (UnwindRegs){.r = {[X86_RAX] = u.rax,
                                            [X86_RDX] = u.rdx,
                                            [X86_RCX] = u.rcx,
                                            [X86_RBX] = u.rbx,
                                            [X86_RSI] = u.rsi,
                                            [X86_RDI] = u.rdi,
                                            [X86_RBP] = u.rbp,
                                            [X86_RSP] = u.rsp,
                                            [X86_R8] = u.r8,
                                            [X86_R9] = u.r9,
                                            [X86_R10] = u.r10,
                                            [X86_R11] = u.r11,
                                            [X86_R12] = u.r12,
                                            [X86_R13] = u.r13,
                                            [X86_R14] = u.r14,
                                            [X86_R15] = u.r15,
                                            [X86_RIP] = u.rip}};
        stack = procmap_find(t->map, u.rsp);
        cr_assert(stack);
        t->copy.addr = u.rsp - RED_ZONE;
        t->copy.n = stack->end - t->copy.addr < COPY_MAX ? stack->end - t->copy.addr : COPY_MAX;
        t->copy.bytes = t->bytes;
        snprintf(path, sizeof(path), "/proc/%d/mem", t->pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = pread(fd, t->bytes, t->copy.n, (off_t)t->copy.addr);
        close(fd);
        cr_assert_eq(n, (ssize_t)t->copy.n);
}

void target_leave(Target *t)
{
        cr_assert_eq(ptrace(PTRACE_DETACH, t->tid, 0, SIGSTOP), 0);
}

void target_end(Target *t)
{
        kill(t->pid, SIGKILL);
        while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
                ;
        procmap_unref(t->map);
        free(t->bytes);
}

static bool find_function(
        Elf *elf, Elf_Scn *s, const GElf_Shdr *sh, uint64_t vaddr, char *name, size_t n)
{
        Elf_Data *data = elf_getdata(s, NULL);

        for (int i = 0; data && i < (int)(sh->sh_size / sh->sh_entsize); i++) {
                GElf_Sym sym;

                if (!gelf_getsym(data, i, &sym) || sym.st_shndx == SHN_UNDEF ||
                        vaddr < sym.st_value || vaddr - sym.st_value >= sym.st_size)
                        continue;
                snprintf(name, n, "%s", elf_strptr(elf, sh->sh_link, sym.st_name));
                return true;
        }
        return false;
}

const char *function_at(const char *path, uint64_t vaddr)
{
        static char name[256];
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        Elf *elf = fd >= 0 ? elf_begin(fd, ELF_C_READ_MMAP, NULL) : NULL;
        bool found = false;

        for (Elf_Scn *s = elf ? elf_nextscn(elf, NULL) : NULL; s && !found;
                s = elf_nextscn(elf, s)) {
                GElf_Shdr sh;

                if (gelf_getshdr(s, &sh) && (sh.sh_type == SHT_SYMTAB || sh.sh_type == SHT_DYNSYM))
                        found = find_function(elf, s, &sh, vaddr, name, sizeof(name));
        }
        elf_end(elf);
        return found ? name : "?";
}

#if defined(__SANITIZE_ADDRESS__)
int __lsan_do_recoverable_leak_check(void);

void check_leaks(void)
{
        cr_assert_eq(__lsan_do_recoverable_leak_check(), 0);
}
#else
void check_leaks(void)
{
}
#endif
