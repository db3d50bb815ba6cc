/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "target.h"

static int parse(ProcMap **ret, const char *text)
{
        return procmap_parse(ret, text, strlen(text));
}

Test(procmap, as_the_kernel_writes, .fini = check_leaks)
{
        _cleanup_(procmap_unrefp) ProcMap *p = NULL;
        const Mapping *m;

        cr_assert_eq(
                parse(&p,
                        "555555554000-555555558000 r--p 00000000 fe:10 1311                       "
                        "/usr/bin/some program\n"
                        "555555558000-55555556c000 r-xp 00004000 fe:10 1311                       "
                        "/usr/bin/some program\n"
                        "7ffff7dd0000-7ffff7dd1000 rw-s 00000000 00:01 2049                       "
                        "/memfd:a\\012b (deleted)\n"
                        "7ffff7de0000-7ffff7de2000 rwxp 00000000 00:00 0 \n"
                        "7ffff7de2000-7ffff7de4000 r-xp 00000000 00:00 0                          "
                        "[anon:jit]\n"
                        "7ffff7fc9000-7ffff7fcb000 r-xp 00000000 00:00 0                          "
                        "[vdso]\n"
                        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  "
                        "[vsyscall]\n"),
                0);
        cr_assert_eq(p->n, 7);

        cr_assert_null(procmap_find(p, 0x555555553fff));
        m = procmap_find(p, 0x555555554000);
        cr_assert(m->read && !m->write && !m->exec && !m->special && !m->deleted);
        m = procmap_find(p, 0x55555556bfff);
        cr_assert_eq(m, &p->mappings[1]);
        cr_assert(m->exec);
        cr_assert_eq(m->offset, 0x4000);
        cr_assert_eq(m->inode, 1311);
        cr_assert_eq(m->dev_major, 0xfe);
        cr_assert_eq(m->dev_minor, 0x10);
        cr_assert_str_eq(m->name, "/usr/bin/some program");
        cr_assert_null(procmap_find(p, 0x55555556c000));

        m = procmap_find(p, 0x7ffff7dd0000);
        cr_assert(m->deleted && m->write && !m->special);
        cr_assert_str_eq(m->name, "/memfd:a\\012b");
        m = procmap_find(p, 0x7ffff7de0000);
        cr_assert_str_eq(m->name, "");
        cr_assert(!m->special && m->inode == 0);
        cr_assert(!procmap_find(p, 0x7ffff7de2000)->special);
        cr_assert(procmap_find(p, 0x7ffff7fc9000)->special);
        cr_assert_str_eq(procmap_find(p, 0xffffffffff600fff)->name, "[vsyscall]");
        cr_assert_null(procmap_find(p, UINT64_MAX));
}

Test(procmap, no_mappings, .fini = check_leaks)
{
        _cleanup_(procmap_unrefp) ProcMap *p = NULL;

        cr_assert_eq(parse(&p, ""), 0);
        cr_assert_eq(p->n, 0);
        cr_assert_null(procmap_find(p, 0));
}

Test(procmap, same_code, .fini = check_leaks)
{
        static const char *const others[] = {
                "1000-2000 r-xp 00000000 08:01 5 /a\n4000-5000 r-xp 00000000 08:01 7 /b\n",
                "1000-2000 r-xp 00000000 08:01 5 /a\n4000-5000 r-xp 00001000 08:01 6 /b\n",
                "1000-2000 r-xp 00000000 08:01 5 /a\n4000-6000 r-xp 00000000 08:01 6 /b\n",
                "1000-2000 r-xp 00000000 08:01 5 /a\n3000-5000 r-xp 00000000 08:01 6 /b\n",
                "1000-2000 r-xp 00000000 08:02 5 /a\n4000-5000 r-xp 00000000 08:01 6 /b\n",
                "1000-2000 r-xp 00000000 08:01 5 /a\n",
                "1000-2000 r-xp 00000000 08:01 5 /a\n4000-5000 r--p 00000000 08:01 6 /b\n",
                "",
        };
        _cleanup_(procmap_unrefp) ProcMap *p = NULL, *same = NULL;

        cr_assert_eq(parse(&p, "1000-2000 r-xp 00000000 08:01 5 /a\n"
                               "2000-3000 rw-p 00000000 00:00 0 \n"
                               "4000-5000 r-xp 00000000 08:01 6 /b\n"),
                0);
        /* Data comes and goes all the time. */
        cr_assert_eq(parse(&same, "0000-0800 r--p 00000000 08:01 5 /a\n"
                                  "1000-2000 r-xp 00000000 08:01 5 /a\n"
                                  "4000-5000 r-xp 00000000 08:01 6 /b\n"
                                  "6000-7000 rw-p 00000000 00:00 0 \n"),
                0);
        cr_assert(procmap_same_code(p, same));
        cr_assert(procmap_same_code(same, p));
        for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
                _cleanup_(procmap_unrefp) ProcMap *other = NULL;

                cr_assert_eq(parse(&other, others[i]), 0);
                cr_assert_not(procmap_same_code(p, other), "%zu", i);
                cr_assert_not(procmap_same_code(other, p), "%zu", i);
        }
}

Test(procmap, malformed, .fini = check_leaks)
{
        static const char *const texts[] = {
                "\n",
                "1000-2000 r-xp 0 0:0 0", /* cut off */
                "1000-2000 r-xp 0 0:0 0\n2000-3",
                "1000-2000 r-xp 0 0:0\n",
                "1000-2000 r-xp 0 0:0 x\n",
                "1000-2000 r-xp 0 0:0 0x\n",
                "1000-2000 rwx 0 0:0 0\n",
                "1000-2000 xwrp 0 0:0 0\n",
                "1000-1000 r-xp 0 0:0 0\n",
                "2000-1000 r-xp 0 0:0 0\n",
                "-2000 r-xp 0 0:0 0\n",
                "10000000000000000-20000000000000000 r-xp 0 0:0 0\n",
                "1000-2000 r-xp 0 100000000:0 0\n",
                "1000-2000 r-xp 0 0:0 99999999999999999999\n",
                "2000-3000 r-xp 0 0:0 0\n1000-2000 r-xp 0 0:0 0\n",
                "1000-3000 r-xp 0 0:0 0\n2000-4000 r-xp 0 0:0 0\n",
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
                ProcMap *p = NULL;

                cr_assert_eq(parse(&p, texts[i]), PROCMAP_E_MALFORMED, "%s", texts[i]);
                cr_assert_null(p);
        }
}

/* More than there can be: the first 65530 are kept. */
Test(procmap, too_many, .fini = check_leaks)
{
        _cleanup_(procmap_unrefp) ProcMap *p = NULL;
        _cleanup_(freep) char *text = malloc(70000 * 40);
        size_t n = 0;

        cr_assert(text);
        for (unsigned i = 1; i <= 70000; i++)
                n += (size_t)sprintf(text + n, "%x000-%x800 rw-p 0 0:0 0\n", i, i);
        cr_assert_eq(procmap_parse(&p, text, n), 0);
        cr_assert_eq(p->n, 65530);
        for (unsigned i = 1; i <= 65530; i++) {
                cr_assert_eq(procmap_find(p, i * 0x1000UL), &p->mappings[i - 1]);
                cr_assert_null(procmap_find(p, i * 0x1000UL + 0x800));
        }
}

Test(module, addresses, .fini = check_leaks)
{
        const ModuleSegment segments[] = {
                {0, 0, 0x1000}, {0x1000, 0x2000, 0x500}, {UINT64_MAX - 10, 0, UINT64_MAX}};
        _cleanup_(module_unrefp) Module *m = module_new("m", NULL, 3, segments), *n = NULL;

        cr_assert(m);
        cr_assert_eq(module_vaddr(m, 0xfff), 0xfff);
        cr_assert_eq(module_vaddr(m, 0x1000), 0x2000);
        cr_assert_eq(module_vaddr(m, 0x14ff), 0x24ff);
        cr_assert_eq(module_vaddr(m, 0x1500), UINT64_MAX);
        cr_assert_eq(module_vaddr(m, UINT64_MAX - 11), UINT64_MAX);
        n = module_new("n", NULL, 0, NULL);
        cr_assert(n && n->id == m->id + 1 && m->id > 0);
        cr_assert_eq(module_ref(n), n);
        cr_assert_null(module_unref(n));
}
