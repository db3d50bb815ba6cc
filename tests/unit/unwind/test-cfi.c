/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "target.h"

/*
 * Tables against libdw's own reading of the same files: each row of each library that this test is
 * linked with.
 */

/* Whether an operation is "register plus offset" with these. */
static bool is_breg(const Dwarf_Op *op, unsigned reg, int64_t offset)
{
        if (op->atom == DW_OP_bregx)
                return op->number == reg && (int64_t)op->number2 == offset;
        return op->atom == DW_OP_breg0 + reg && (int64_t)op->number == offset;
}

static bool same_cfa(const CfiRule *rule, const Dwarf_Op *ops, size_t n)
{
        switch (rule->cfa) {
        case CFI_CFA_REG:
                return n == 1 && is_breg(ops, rule->cfa_reg, rule->cfa_offset);
        case CFI_CFA_DEREF:
                return n >= 2 && is_breg(ops, rule->cfa_reg, rule->cfa_offset) &&
                       ops[1].atom == DW_OP_deref &&
                       (n == 2 ? rule->cfa_offset2 == 0
                               : n == 3 && ops[2].atom == DW_OP_plus_uconst &&
                                               (int64_t)ops[2].number == rule->cfa_offset2);
        case CFI_CFA_PLT:
                return n == 9 && is_breg(&ops[0], X86_RSP, 8) && is_breg(&ops[1], X86_RIP, 0) &&
                       ops[4].atom == DW_OP_lit0 + (unsigned)rule->cfa_offset;
        }
        return false;
}

static bool same_register(
        const CfiRule *rule, unsigned reg, const Dwarf_Op *ops, size_t n, bool undefined)
{
        int64_t offset = n > 1 && ops[1].atom == DW_OP_plus_uconst ? (int64_t)ops[1].number : 0;
        bool value = n > 0 && ops[n - 1].atom == DW_OP_stack_value;
        bool by_cfa = n > 0 && ops[0].atom == DW_OP_call_frame_cfa;

        switch (rule->how[reg]) {
        case CFI_REG_SAME: /* what is not said: libdw takes the ABI's word for it */
                return n == 0 || (reg == X86_RSP && by_cfa && value && offset == 0);
        case CFI_REG_UNDEF:
                return undefined || (n > 0 && !by_cfa);
        case CFI_REG_OFFSET:
                return by_cfa && !value && offset == rule->offset[reg];
        case CFI_REG_VALUE:
                return by_cfa && value && offset == rule->offset[reg];
        case CFI_REG_COPY:
                return n == 1 && ops[0].atom == DW_OP_regx &&
                       (int)ops[0].number == rule->offset[reg];
        case CFI_REG_AT_RBP:
                return n == 1 && is_breg(ops, X86_RBP, rule->offset[reg]);
        }
        return false;
}

static bool same_row(const CfiRule *rule, Dwarf_Frame *frame, bool signal, size_t *n_unknown)
{
        Dwarf_Op *ops, memory[3];
        size_t n;

        cr_assert_eq(dwarf_frame_register(frame, X86_RIP, memory, &ops, &n), 0);
        if (rule->cfa == CFI_CFA_ROOT)
                return n == 0 && ops == memory;
        if (dwarf_frame_cfa(frame, &ops, &n) != 0)
                return rule->cfa == CFI_CFA_NONE;
        if (rule->cfa == CFI_CFA_NONE &&
                n > 3) { /* libcrypto has some of *(rsp + 8 * r9 + 8) + 8 */
                (*n_unknown)++;
                return true;
        }
        if (rule->cfa == CFI_CFA_SIGNAL)
                return signal && n == 2 && is_breg(ops, X86_RSP, 160) && ops[1].atom == DW_OP_deref;
        if (!same_cfa(rule, ops, n))
                return false;
        for (unsigned reg = 0; reg < N_REGS; reg++) {
                if (dwarf_frame_register(frame, (int)reg, memory, &ops, &n) != 0)
                        return false;
                if (!same_register(rule, reg, ops, n, n == 0 && ops == memory))
                        return false;
        }
        return true;
}

static Elf_Data *section(Elf *elf, const char *name, uint64_t *ret_vaddr)
{
        size_t names;

        cr_assert_eq(elf_getshdrstrndx(elf, &names), 0);
        for (Elf_Scn *s = elf_nextscn(elf, NULL); s; s = elf_nextscn(elf, s)) {
                GElf_Shdr sh;

                if (gelf_getshdr(s, &sh) && strcmp(elf_strptr(elf, names, sh.sh_name), name) == 0) {
                        *ret_vaddr = sh.sh_addr;
                        return elf_getdata(s, NULL);
                }
        }
        return NULL;
}

/* Every row of every function in .eh_frame_hdr's list. Returns their number. */
static size_t compare(
        const char *path, Elf *elf, const CfiTable *t, Dwarf_CFI *cfi, size_t *n_unknown)
{
        size_t n_rows = 0;
        uint32_t n_functions;
        uint64_t hdr;
        Elf_Data *d = section(elf, ".eh_frame_hdr", &hdr);

        cr_assert(d && d->d_size >= 12, "%s", path);
        memcpy(&n_functions, (char *)d->d_buf + 8, 4);
        for (size_t i = 0; i < n_functions; i++) {
                Dwarf_Addr pc, start, end;
                Dwarf_Frame *frame;
                int32_t offset;
                bool signal;

                memcpy(&offset, (char *)d->d_buf + 12 + 8 * i, 4);
                for (pc = hdr + offset; dwarf_cfi_addrframe(cfi, pc, &frame) == 0; pc = end) {
                        dwarf_frame_info(frame, &start, &end, &signal);
                        cr_assert(same_row(cfi_table_find(t, pc), frame, signal, n_unknown) &&
                                          same_row(cfi_table_find(t, end - 1), frame, signal,
                                                  n_unknown),
                                "%s: %" PRIx64 "–%" PRIx64, path, pc, end);
                        free(frame);
                        n_rows++;
                        if (i + 1 < n_functions) {
                                memcpy(&offset, (char *)d->d_buf + 12 + 8 * (i + 1), 4);
                                if (end >= hdr + offset)
                                        break;
                        }
                }
        }
        return n_rows;
}

Test(cfi, as_libdw)
{
        _cleanup_(fclosep) FILE *f = fopen("/proc/self/maps", "re");
        char line[4096], path[4096];
        size_t n_files = 0, n_rows = 0, n_unknown = 0;

        cr_assert(f);
        while (fgets(line, sizeof(line), f)) {
                _cleanup_(cfi_table_freep) CfiTable *t = NULL;
                _cleanup_(closep) int fd = -1;
                Dwarf_CFI *cfi;
                Elf *elf;

                if (sscanf(line, "%*s r-xp %*s %*s %*s /%4000s", path + 1) != 1)
                        continue;
                path[0] = '/';
                t = table_of_file(path);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
                cr_assert(t && elf, "%s", path);
                cfi = dwarf_getcfi_elf(elf);
                cr_assert(cfi, "%s", path);
                n_rows += compare(path, elf, t, cfi, &n_unknown);
                n_files++;
                dwarf_cfi_end(cfi);
                elf_end(elf);
        }
        cr_log_info("%zu rows of %zu files, %zu unknown", n_rows, n_files, n_unknown / 2);
        cr_assert_lt(n_unknown, n_rows / 1000);
        cr_assert_gt(n_files, 5);
        cr_assert_gt(n_rows, 50000);
}

static CfiTable *lazy_table(Elf *elf)
{
        CfiTable *t = NULL;

        cr_assert_eq(cfi_table_new_lazy(&t, elf), 0);
        return t;
}

/* Compares both at an address. Return: whether the lazy one knows. */
static bool agree(const char *path, const CfiTable *full, const CfiTable *lazy, uint64_t vaddr)
{
        const CfiRule *a = cfi_table_find(full, vaddr), *b = cfi_table_find(lazy, vaddr);

        if (b->cfa == CFI_CFA_UNREAD)
                return false;
        cr_assert_eq(memcmp(a, b, sizeof(*a)), 0, "%s: %" PRIx64, path, vaddr);
        cr_assert_eq(cfi_table_find(lazy, vaddr), b);
        return true;
}

/* A lazy table says the same as the full one, of all functions that have an FDE. */
Test(cfi, lazy_as_full)
{
        _cleanup_(fclosep) FILE *f = fopen("/proc/self/maps", "re");
        char line[4096], path[4096];
        size_t n_functions = 0, n_unread = 0;

        cr_assert(f);
        while (fgets(line, sizeof(line), f)) {
                _cleanup_(cfi_table_freep) CfiTable *full = NULL, *lazy = NULL;
                _cleanup_(closep) int fd = -1;
                uint64_t hdr;
                Elf_Data *d;
                uint32_t n;
                Elf *elf;

                if (sscanf(line, "%*s r-xp %*s %*s %*s /%4000s", path + 1) != 1)
                        continue;
                path[0] = '/';
                full = table_of_file(path);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
                cr_assert(full && elf, "%s", path);
                d = section(elf, ".eh_frame_hdr", &hdr);
                memcpy(&n, (char *)d->d_buf + 8, 4);
                for (size_t i = 0; i + 1 < n; i++) {
                        int32_t start, next;

                        memcpy(&start, (char *)d->d_buf + 12 + 8 * i, 4);
                        memcpy(&next, (char *)d->d_buf + 20 + 8 * i, 4);
                        if (i % 8192 == 0) {
                                cfi_table_free(lazy);
                                lazy = lazy_table(elf);
                        }
                        cr_assert(agree(path, full, lazy, hdr + start), "%s: %" PRIx64, path,
                                hdr + start);
                        n_functions++;
                        n_unread += !agree(path, full, lazy, hdr + start + (next - start) / 2);
                        n_unread += !agree(path, full, lazy, hdr + next - 1);
                }
                elf_end(elf);
        }
        cr_assert_gt(n_functions, 5000);
        cr_assert_lt(n_unread, 2 * n_functions);
}

/* All that the table of functions does not have is unread; a file without one has no lazy table. */
Test(cfi, lazy_knows_its_limits, .fini = check_leaks)
{
        static const uint64_t addresses[] = {0, 1, 1ULL << 31, 1ULL << 47, UINT64_MAX};
        static const struct {
                const char *path;
                int r;
        } files[] = {{CHAINS "omit", 0}, {CHAINS "no-hdr", CFI_TABLE_E_NOT_LAZY}};

        elf_version(EV_CURRENT);
        for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
                _cleanup_(closep) int fd = open(files[i].path, O_RDONLY | O_CLOEXEC);
                _cleanup_(cfi_table_freep) CfiTable *t = NULL;
                Elf *elf = elf_begin(fd, ELF_C_READ, NULL);

                cr_assert_eq(cfi_table_new_lazy(&t, elf), files[i].r, "%s", files[i].path);
                elf_end(elf);
                if (!t)
                        continue;
                cr_assert_gt(cfi_table_bytes(t), 100);
                for (size_t k = 0; k < sizeof(addresses) / sizeof(*addresses); k++)
                        cr_assert_eq(cfi_table_find(t, addresses[k])->cfa, CFI_CFA_UNREAD);
        }
}

/* Where .debug_frame is all there is, and where no index leads to .eh_frame. */
Test(cfi, sections, .fini = check_leaks)
{
        static const char *const files[] = {CHAINS "debug-frame", CHAINS "no-hdr", CHAINS "omit"};
        size_t n_rows[3];

        for (size_t i = 0; i < 3; i++) {
                _cleanup_(cfi_table_freep) CfiTable *t = table_of_file(files[i]);

                cr_assert(t, "%s", files[i]);
                n_rows[i] = cfi_table_n_rows(t);
                cr_assert_gt(cfi_table_bytes(t), 6 * n_rows[i]);
        }
        cr_assert_gt(n_rows[0], 50);
        cr_assert_gt(n_rows[1], 50);
        cr_assert_gt(n_rows[2], 50);
}

/* Nothing is known outside of the code, and at no address is there no answer. */
Test(cfi, outside, .fini = check_leaks)
{
        static const uint64_t addresses[] = {
                0, 1, 64, 1ULL << 31, 1ULL << 32, 1ULL << 47, UINT64_MAX};
        _cleanup_(cfi_table_freep) CfiTable *t = table_of_file(CHAINS "omit");

        cr_assert(t);
        for (size_t i = 0; i < sizeof(addresses) / sizeof(*addresses); i++)
                cr_assert_eq(cfi_table_find(t, addresses[i])->cfa, CFI_CFA_NONE);
}

Test(cfi, not_an_elf_file, .fini = check_leaks)
{
        char text[] = "#!/bin/sh\n";
        CfiTable *t = NULL;
        Elf *elf;

        elf_version(EV_CURRENT);
        elf = elf_memory(text, sizeof(text));
        cr_assert_eq(cfi_table_new(&t, elf, NULL), -EBADMSG);
        cr_assert_null(t);
        elf_end(elf);
}

/* A file of holes costs its owner nothing, and says that all of it is code, or unwind information. */
Test(cfi, holes_are_not_read)
{
        static const uint64_t size = 2ULL << 30;
        static const uint32_t types[] = {PT_LOAD, PT_GNU_EH_FRAME};

        for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
                struct {
                        Elf64_Ehdr eh;
                        Elf64_Phdr ph[2];
                } file = {.eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB,
                                         EV_CURRENT},
                                  .e_type = ET_DYN,
                                  .e_machine = EM_X86_64,
                                  .e_version = EV_CURRENT,
                                  .e_phoff = sizeof(Elf64_Ehdr),
                                  .e_ehsize = sizeof(Elf64_Ehdr),
                                  .e_phentsize = sizeof(Elf64_Phdr),
                                  .e_phnum = 2},
                        .ph = {{.p_type = PT_LOAD,
                                       .p_flags = PF_X,
                                       .p_filesz = 4096,
                                       .p_memsz = 4096},
                                {.p_type = types[i],
                                        .p_flags = PF_X,
                                        .p_vaddr = 1 << 20,
                                        .p_filesz = size,
                                        .p_memsz = size}}};
                int fd = memfd_create("holes", MFD_CLOEXEC);
                struct rusage before, after;
                CfiTable *t = NULL;
                Elf *elf;

                cr_assert(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
                cr_assert_eq(write(fd, &file, sizeof(file)), sizeof(file));
                elf_version(EV_CURRENT);
                elf = elf_begin(fd, ELF_C_READ, NULL);
                getrusage(RUSAGE_SELF, &before);
                cr_assert_eq(cfi_table_new(&t, elf, NULL), 0);
                getrusage(RUSAGE_SELF, &after);
                cr_assert_leq(cfi_table_n_gap_bytes(t), 16 << 20);
                cr_assert_lt(
                        after.ru_maxrss - before.ru_maxrss, 64 << 10, "segment type %x", types[i]);
                cfi_table_free(t);
                elf_end(elf);
                close(fd);
        }
}

/* As many bytes of code without CFI are read as are no burden, however large the file is. */
Test(cfi, gaps_are_bounded, .fini = check_leaks)
{
        static const struct {
                uint64_t size, n_read;
        } cases[] = {{4 << 20, 4 << 20}, {64 << 20, 0}};

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
                struct {
                        Elf64_Ehdr eh;
                        Elf64_Phdr ph;
                } file = {.eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB,
                                         EV_CURRENT},
                                  .e_type = ET_DYN,
                                  .e_machine = EM_X86_64,
                                  .e_version = EV_CURRENT,
                                  .e_phoff = sizeof(Elf64_Ehdr),
                                  .e_ehsize = sizeof(Elf64_Ehdr),
                                  .e_phentsize = sizeof(Elf64_Phdr),
                                  .e_phnum = 1},
                        .ph = {.p_type = PT_LOAD,
                                .p_flags = PF_X,
                                .p_filesz = cases[i].size,
                                .p_memsz = cases[i].size}};
                char *bytes = calloc(1, cases[i].size);
                CfiTable *t = NULL;
                Elf *elf;

                cr_assert(bytes);
                memcpy(bytes, &file, sizeof(file));
                elf_version(EV_CURRENT);
                elf = elf_memory(bytes, cases[i].size);
                cr_assert_eq(cfi_table_new(&t, elf, NULL), 0);
                cr_expect_eq(cfi_table_n_gap_bytes(t), cases[i].n_read);
                cfi_table_free(t);
                elf_end(elf);
                free(bytes);
        }
}

Test(cfi, vdso, .fini = check_leaks)
{
        _cleanup_(module_unrefp) Module *m = module_of_vdso();

        if (!m)
                cr_skip_test("no vDSO here");
        cr_assert_gt(cfi_table_n_rows(m->cfi), 2);
}

/* The parent waits in clone() behind the end of its CFI, on the stack of the function's entry. */
Test(cfi, clone_of_the_c_library, .fini = check_leaks)
{
        static const uint8_t call[] = {0x0f, 0x05}; /* syscall */
        const uint8_t *clone_code = (const uint8_t *)dlsym(RTLD_DEFAULT, "clone"), *hit;
        const CfiRule *rule;
        CfiTable *table;
        Dl_info info;
        Elf *elf;
        int fd;

        cr_assert(clone_code && dladdr(clone_code, &info));
        hit = memmem(clone_code, 128, call, sizeof(call));
        cr_assert(hit);
        fd = open(info.dli_fname, O_RDONLY | O_CLOEXEC);
        elf_version(EV_CURRENT);
        elf = elf_begin(fd, ELF_C_READ, NULL);
        cr_assert_eq(cfi_table_new(&table, elf, NULL), 0);
        rule = cfi_table_find(table, (uint64_t)(hit + sizeof(call) - (uint8_t *)info.dli_fbase));
        cr_assert(rule->cfa == CFI_CFA_REG && rule->cfa_reg == X86_RSP && rule->cfa_offset == 8);
        cr_assert(rule->how[X86_RIP] == CFI_REG_OFFSET && rule->offset[X86_RIP] == -8);
        cfi_table_free(table);
        elf_end(elf);
        close(fd);
}
