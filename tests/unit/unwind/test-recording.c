/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "target.h"
#include "unwind/recording.h"

/* What is written is read back; the fuzzer has what nobody writes. */

typedef struct File {
        FILE *stream;
        char *bytes;
        size_t size;
} File;

static void file_begin(File *f)
{
        f->stream = open_memstream(&f->bytes, &f->size);
        cr_assert(f->stream);
        recording_write_head(f->stream);
}

static Recording *file_read(File *f)
{
        Recording *r = NULL;

        cr_assert_eq(fclose(f->stream), 0);
        cr_assert_eq(recording_read(&r, (const uint8_t *)f->bytes, f->size), 0);
        return r;
}

static ProcMap *parse(const char *text)
{
        ProcMap *map = NULL;

        cr_assert_eq(procmap_parse(&map, text, strlen(text)), 0);
        return map;
}

Test(recording, captures_and_map, .fini = check_leaks)
{
        static const char maps[] = "400000-401000 r-xp 00001000 fe:10 77 /a file (deleted)\n"
                                   "401000-402000 rw-p 00000000 00:00 0 \n"
                                   "7f0000000000-7f0000001000 r-xp 00000000 00:00 0 [vdso]\n";
        static const uint8_t bytes[] = "on the stack";
        const uint32_t modules[] = {1, RECORDING_NONE, 0};
        RecordingCapture c = {.mono_ns = 123456789012,
                .syscall = -1,
                .copy = {.addr = 0x7ffc00000008, .n = sizeof(bytes), .bytes = bytes}};
        ProcMap *map = parse(maps);
        Recording *r;
        File f;

        file_begin(&f);
        for (size_t i = 0; i < N_REGS; i++)
                c.copy.regs.r[i] = ~i;
        recording_write_module(f.stream, RECORDING_NONE, RECORDING_NONE, "[vdso]", "");
        recording_write_module(f.stream, RECORDING_NONE, RECORDING_NONE, "a file", "00ff");
        cr_assert_eq(recording_write_map(f.stream, map, modules), 0);
        recording_write_capture(f.stream, &c);
        r = file_read(&f);

        cr_assert_eq(r->n_images, 0);
        cr_assert_eq(r->n_modules, 2);
        cr_assert_str_eq(r->modules[0].name, "[vdso]");
        cr_assert_str_eq(r->modules[1].name, "a file");
        cr_assert_str_eq(r->modules[1].build_id, "00ff");
        cr_assert_eq(r->map->n, 3);
        cr_assert_arr_eq(r->map_modules, modules, sizeof(modules));
        for (size_t i = 0; i < 3; i++) {
                const Mapping *a = &map->mappings[i], *b = &r->map->mappings[i];

                cr_assert_eq(a->start, b->start);
                cr_assert_eq(a->end, b->end);
                cr_assert_eq(a->offset, b->offset);
                cr_assert_eq(a->inode, b->inode);
                cr_assert_eq(a->dev_major, b->dev_major);
                cr_assert_eq(a->dev_minor, b->dev_minor);
                cr_assert_eq(a->read, b->read);
                cr_assert_eq(a->write, b->write);
                cr_assert_eq(a->exec, b->exec);
                cr_assert_eq(a->special, b->special);
                cr_assert_eq(a->deleted, b->deleted);
                cr_assert_str_eq(a->name, b->name);
        }
        cr_assert_eq(r->n_captures, 1);
        cr_assert_eq(r->captures[0].mono_ns, c.mono_ns);
        cr_assert_eq(r->captures[0].syscall, -1);
        cr_assert_arr_eq(&r->captures[0].copy.regs, &c.copy.regs, sizeof(c.copy.regs));
        cr_assert_eq(r->captures[0].copy.addr, c.copy.addr);
        cr_assert_eq(r->captures[0].copy.n, sizeof(bytes));
        cr_assert_arr_eq(r->captures[0].copy.bytes, bytes, sizeof(bytes));
        recording_free(r);
        procmap_unref(map);
        free(f.bytes);
}

/* The rules of an image are those of the whole file, wherever a stack may point. */
static void check_image(const char *path)
{
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        CfiTable *whole = table_of_file(path), *table = NULL;
        const uint32_t none = RECORDING_NONE;
        ProcMap *map = parse("1000-2000 r--p 00000000 fe:10 77 /a\n");
        uint64_t begin = 0, offset = 0, size = 0;
        uint64_t *vaddrs;
        uint8_t *bytes, *text;
        size_t n = 0;
        Recording *r;
        Elf *elf;
        File f;

        file_begin(&f);
        elf = elf_begin(fd, ELF_C_READ, NULL);
        cr_assert(elf && whole, "%s", path);
        elf_getphdrnum(elf, &n);
        for (size_t i = 0; i < n; i++) {
                GElf_Phdr ph;

                if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_LOAD && ph.p_flags & PF_X) {
                        begin = ph.p_vaddr;
                        offset = ph.p_offset;
                        size = ph.p_filesz;
                }
        }
        /* Here and there, and behind each system call: there is code without CFI that is told by its
         * bytes. */
        text = malloc(size);
        vaddrs = calloc(size, sizeof(*vaddrs));
        cr_assert(text && vaddrs);
        cr_assert_eq(pread(fd, text, size, (off_t)offset), (ssize_t)size);
        n = 0;
        for (uint64_t at = 2; at < size; at++)
                if (at % 1000 == 0 || (text[at - 2] == 0x0f && text[at - 1] == 0x05))
                        vaddrs[n++] = begin + at;
        free(text);
        cr_assert_eq(recording_write_image(f.stream, elf, vaddrs, n), 0, "%s", path);
        elf_end(elf);
        cr_assert_eq(recording_write_map(f.stream, map, &none), 0);
        r = file_read(&f);
        cr_assert_lt(f.size, lseek(fd, 0, SEEK_END) / 2, "%s: %zu bytes", path, f.size);
        bytes = recording_image_expand(&r->images[0]);
        cr_assert(bytes);
        elf = elf_memory((char *)bytes, r->images[0].size);
        cr_assert_eq(cfi_table_new(&table, elf, NULL), 0, "%s", path);
        elf_end(elf);
        for (size_t i = 0; i < n; i++)
                cr_assert_arr_eq(cfi_table_find(table, vaddrs[i]), cfi_table_find(whole, vaddrs[i]),
                        sizeof(CfiRule), "%s: %#lx", path, (unsigned long)vaddrs[i]);
        cfi_table_free(table);
        cfi_table_free(whole);
        free(bytes);
        free(vaddrs);
        recording_free(r);
        procmap_unref(map);
        free(f.bytes);
}

Test(recording, images, .fini = check_leaks)
{
        elf_version(EV_CURRENT);
        check_image("/lib/x86_64-linux-gnu/libc.so.6");
        check_image("/lib64/ld-linux-x86-64.so.2");
        check_image(CHAINS "static");
        check_image(CHAINS "no-hdr");
}

/* Memory that is no ELF file, and one that says of itself more than there is. */
Test(recording, bad_image, .fini = check_leaks)
{
        Elf64_Ehdr header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
                                     ELFDATA2LSB, EV_CURRENT},
                .e_type = ET_DYN,
                .e_machine = EM_X86_64,
                .e_version = EV_CURRENT,
                .e_ehsize = sizeof(header),
                .e_phentsize = sizeof(Elf64_Phdr),
                .e_shentsize = sizeof(Elf64_Shdr),
                .e_shoff = 1 << 20};
        char text[64] = "no ELF file";
        size_t before;
        Elf *elf;
        File f;

        file_begin(&f);
        elf_version(EV_CURRENT);
        fflush(f.stream);
        before = f.size;
        elf = elf_memory(text, sizeof(text));
        cr_assert_eq(recording_write_image(f.stream, elf, NULL, 0), RECORDING_E_BAD);
        elf_end(elf);
        fflush(f.stream);
        cr_assert_eq(f.size, before);
        elf = elf_memory((char *)&header, sizeof(header));
        cr_assert_eq(recording_write_image(f.stream, elf, NULL, 0), 0);
        elf_end(elf);
        fclose(f.stream);
        free(f.bytes);
}

/* A file of nothing but segments does not multiply by them what is recorded. */
Test(recording, many_segments, .fini = check_leaks)
{
        enum {
                N = 64,
                SIZE = 4096, /* of each segment */
        };
        const uint64_t vaddr = SIZE / 2;
        const uint32_t none = RECORDING_NONE;
        ProcMap *map = parse("1000-2000 r--p 00000000 fe:10 77 /a\n");
        char *bytes = calloc(N + 1, SIZE);
        Elf64_Ehdr header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
                                     ELFDATA2LSB, EV_CURRENT},
                .e_type = ET_DYN,
                .e_machine = EM_X86_64,
                .e_version = EV_CURRENT,
                .e_ehsize = sizeof(header),
                .e_phoff = sizeof(header),
                .e_phentsize = sizeof(Elf64_Phdr),
                .e_phnum = N};
        Recording *r;
        Elf *elf;
        File f;

        cr_assert(bytes);
        memcpy(bytes, &header, sizeof(header));
        for (size_t i = 0; i < N; i++) {
                Elf64_Phdr ph = {.p_type = PT_LOAD,
                        .p_flags = PF_X,
                        .p_offset = SIZE * (i + 1),
                        .p_filesz = SIZE,
                        .p_memsz = SIZE};

                memcpy(bytes + sizeof(header) + i * sizeof(ph), &ph, sizeof(ph));
        }
        elf_version(EV_CURRENT);
        elf = elf_memory(bytes, (N + 1) * SIZE);
        file_begin(&f);
        cr_assert_eq(recording_write_image(f.stream, elf, &vaddr, 1), 0);
        elf_end(elf);
        cr_assert_eq(recording_write_map(f.stream, map, &none), 0);
        r = file_read(&f);
        cr_expect_eq(r->images[0].n_ranges, 1 + 16);
        recording_free(r);
        procmap_unref(map);
        free(f.bytes);
        free(bytes);
}
