/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "manager/module-cache.h"
#include "unwind/procmap.h"

/* Of a process that maps nothing but code without unwind information only so much is read. */
Test(module_cache, gaps_are_bounded)
{
        enum {
                N = 6,
                SIZE = 15 << 20, /* of each: five are 64 MiB and more */
        };
        char paths[N][32];
        size_t n_mapped = 0, n_loaded = 0;
        ModuleCache *cache = NULL;
        ProcMap *map = NULL;

        for (size_t i = 0; i < N; i++) {
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
                                .p_filesz = SIZE,
                                .p_memsz = SIZE}};
                int fd;

                strcpy(paths[i], "/var/tmp/gaps-XXXXXX");
                fd = mkstemp(paths[i]);

                cr_assert(fd >= 0 && ftruncate(fd, SIZE) == 0);
                cr_assert_eq(write(fd, &file, sizeof(file)), sizeof(file));
                cr_assert_neq(
                        mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0), MAP_FAILED);
                close(fd);
        }
        cr_assert_eq(module_cache_new(&cache), 0);
        cr_assert_eq(module_cache_load(cache, getpid(), true, -1, &map), 0);
        for (size_t i = 0; i < map->n; i++) {
                const Mapping *m = &map->mappings[i];

                if (!m->exec || !strstr(m->name, "/gaps-"))
                        continue;
                n_mapped++;
                n_loaded += m->module && m->module->cfi;
        }
        for (size_t i = 0; i < N; i++)
                unlink(paths[i]);
        cr_expect_eq(n_mapped, N);
        cr_expect_eq(n_loaded, N - 1);
        procmap_unref(map);
        module_cache_free(cache);
}
