/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "symbol/binary.h"
#include "symbol/signature.h"

/*
 * Programs of programs/ in many shapes. Their places are labels in the symbol table of the program
 * that was not stripped; the same code is at the same address in what was made of it.
 */

static uint64_t address_of(const char *program, const char *label)
{
        char path[PATH_MAX];
        int fd;
        Elf *elf;
        uint64_t found = 0;

        snprintf(path, sizeof(path), PROGRAMS "/%s", program);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        elf_version(EV_CURRENT);
        elf = elf_begin(fd, ELF_C_READ, NULL);
        cr_assert(elf != NULL, "%s", path);
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
                GElf_Shdr shdr;
                GElf_Sym sym;
                Elf_Data *data = elf_getdata(scn, NULL);

                gelf_getshdr(scn, &shdr);
                if (shdr.sh_type != SHT_SYMTAB)
                        continue;
                for (int i = 0; gelf_getsym(data, i, &sym); i++)
                        if (strcmp(elf_strptr(elf, shdr.sh_link, sym.st_name), label) == 0)
                                found = sym.st_value;
        }
        elf_end(elf);
        close(fd);
        cr_assert(found != 0, "%s: no %s", program, label);
        return found;
}

static Binary *open_binary_in(const char *program, int root_fd)
{
        char path[PATH_MAX];
        Binary *b = NULL;

        snprintf(path, sizeof(path), PROGRAMS "/%s", program);
        cr_assert_eq(binary_new(&b, open(path, O_RDONLY | O_CLOEXEC), "program", root_fd), 0, "%s",
                path);
        return b;
}

static Binary *open_binary(const char *program)
{
        return open_binary_in(program, -1);
}

/* Signatures innermost first, in one line. */
static void check(Binary *b, uint64_t addr, const char *expected)
{
        SymbolFrame frames[SYMBOL_MAX_INLINE];
        size_t n = binary_symbolize(b, addr, true, frames, SYMBOL_MAX_INLINE);
        char text[4096] = "", *p = text;

        for (size_t i = 0; i < n; i++) {
                _cleanup_(freep) char *s = signature_native(binary_name(b), &frames[i], true);

                p += snprintf(p, (size_t)(text + sizeof(text) - p), "%s%s", i > 0 ? " < " : "", s);
        }
        cr_assert_str_eq(text, expected);
}

#define WITH_LINES                                                                       \
        "lines-gcc", "lines-dwarf4", "lines-compressed", "lines-no-pie", "lines-static", \
                "lines-ibt", "lines-no-build-id", "lines-clang", "lines-clang-dwarf4"

static const char *const with_lines[] = {WITH_LINES};
static const char *const all_lines[] = {WITH_LINES, "lines-split", "lines-no-debug"};

#define N_OF(a) (sizeof(a) / sizeof(*(a)))

Test(binary, lines_and_inlined_functions)
{
        for (size_t i = 0; i < N_OF(with_lines); i++) {
                const char *program = with_lines[i];
                _cleanup_(binary_freep) Binary *b = open_binary(program);

                cr_log_info("%s", program);
                check(b, address_of(program, "place_inner"),
                        "lines.c.inner:7 < lines.c.middle:15 < lines.c.outer:21");
                check(b, address_of(program, "place_outer"), "lines.c.outer:22");
                check(b, address_of(program, "place_hidden"), "lines.c.hidden:28");
        }
}

/* Its 16 MiB, were they run, would become 1.6 GiB of rows. */
Test(binary, line_program_out_of_bounds)
{
        _cleanup_(binary_freep) Binary *b = open_binary("line-bomb");
        struct rusage before, after;

        getrusage(RUSAGE_SELF, &before);
        check(b, address_of("line-bomb", "place_outer"), "program.place_outer");
        getrusage(RUSAGE_SELF, &after);
        cr_assert_lt(after.ru_maxrss - before.ru_maxrss, 256 << 10);
}

/* Units whose DWARF is in another file: their line table is not. */
Test(binary, split_dwarf_has_lines)
{
        _cleanup_(binary_freep) Binary *b = open_binary("lines-split");

        check(b, address_of("lines-split", "place_inner"), "lines.c.outer:7");
        check(b, address_of("lines-split", "place_hidden"), "lines.c.hidden:28");
}

Test(binary, functions_without_dwarf)
{
        _cleanup_(binary_freep) Binary *b = open_binary("lines-no-debug");

        check(b, address_of("lines-no-debug", "place_inner"), "program.outer");
        check(b, address_of("lines-no-debug", "place_hidden"), "program.hidden");
}

Test(binary, lines_only_when_asked)
{
        _cleanup_(binary_freep) Binary *b = open_binary("lines-gcc");
        SymbolFrame frame;

        cr_assert_eq(
                binary_symbolize(b, address_of("lines-gcc", "place_inner"), false, &frame, 1), 1);
        cr_assert_str_eq(frame.function, "outer");
        cr_assert(!frame.file);
        cr_assert(!frame.line);
}

Test(binary, no_room_for_the_innermost)
{
        _cleanup_(binary_freep) Binary *b = open_binary("lines-gcc");
        uint64_t addr = address_of("lines-gcc", "place_inner");
        SymbolFrame frames[2];

        cr_assert_eq(binary_symbolize(b, addr, true, frames, 2), 2);
        cr_assert_str_eq(frames[0].function, "middle");
        cr_assert_eq(frames[0].line, 15);
        cr_assert_str_eq(frames[1].function, "outer");
        cr_assert_eq(frames[1].line, 21);
        cr_assert_eq(binary_symbolize(b, addr, true, frames, 1), 1);
        cr_assert_str_eq(frames[0].function, "outer");
        cr_assert_eq(frames[0].line, 21);
}

Test(binary, symbols_end_where_they_say)
{
        for (size_t i = 0; i < N_OF(all_lines); i++) {
                const char *program = all_lines[i];
                _cleanup_(binary_freep) Binary *b = open_binary(program);
                uint64_t sized = address_of(program, "sized");
                SymbolFrame frame;

                cr_log_info("%s", program);
                check(b, address_of(program, "unsized"), "program.unsized");
                check(b, address_of(program, "unsized") + 1, "program.unsized");
                check(b, sized, "program.sized");
                check(b, sized + 1, "program.[unknown]");
                check(b, 0, "program.[unknown]");
                check(b, UINT64_MAX, "program.[unknown]");
                cr_assert_eq(binary_symbolize(b, sized - 1, false, &frame, 1), 1);
        }
}

Test(binary, best_name_of_several)
{
        _cleanup_(binary_freep) Binary *b = open_binary("lines-no-debug");

        check(b, address_of("lines-no-debug", "place_alias"), "program.known_as");
}

Test(binary, plt)
{
        static const char *const programs[] = {"lines-gcc", "lines-ibt", "lines-no-pie"};

        for (size_t i = 0; i < N_OF(programs); i++) {
                _cleanup_(binary_freep) Binary *b = open_binary(programs[i]);
                size_t names, n_puts = 0, n_plt = 0;

                cr_assert_eq(elf_getshdrstrndx(binary_elf(b), &names), 0);
                for (Elf_Scn *scn = NULL; (scn = elf_nextscn(binary_elf(b), scn));) {
                        GElf_Shdr shdr;

                        gelf_getshdr(scn, &shdr);
                        if (strncmp(elf_strptr(binary_elf(b), names, shdr.sh_name), ".plt", 4) != 0)
                                continue;
                        for (uint64_t at = 0; at < shdr.sh_size; at += 8) {
                                SymbolFrame frame;

                                binary_symbolize(b, shdr.sh_addr + at, true, &frame, 1);
                                cr_assert(frame.function != NULL, "%s", programs[i]);
                                n_puts += strcmp(frame.function, "puts@plt") == 0;
                                n_plt += strcmp(frame.function, "[plt]") == 0;
                        }
                }
                /* One stub of 16 bytes, and the part in front that calls the loader. */
                cr_assert_eq(n_puts, 2, "%s", programs[i]);
                cr_assert_geq(n_plt, 2, "%s", programs[i]);
        }
}

Test(binary, cpp)
{
        /* For a function that is only inlined, and in one file, gcc tells no mangled name, and so no
         * namespace. */
        static const struct {
                const char *program, *twice, *lambda;
        } compilers[] = {
                {"scopes-gcc", "scopes.cc.twice<int>:23 < scopes.cc.song::Box<int>::times:29",
                        "scopes.cc.song::play(int)::{lambda(int)#1}::operator():36"},
                {"scopes-clang",
                        "scopes.cc.song::twice<int>:23 < scopes.cc.song::Box<int>::times:29",
                        "scopes.cc.song::play(int)::$_0::operator():36"},
        };

        for (size_t i = 0; i < N_OF(compilers); i++) {
                const char *program = compilers[i].program;
                _cleanup_(binary_freep) Binary *b = open_binary(program);

                check(b, address_of(program, "place_twice"), compilers[i].twice);
                check(b, address_of(program, "place_anonymous"),
                        "scopes.cc.song::(anonymous namespace)::Hidden::get:10");
                check(b, address_of(program, "place_lambda"), compilers[i].lambda);
        }
}

/* A root directory of its own for debug files. */
typedef struct Root {
        char path[64];
        int fd;
} Root;

static Root root_new(void)
{
        Root r = {.path = "/tmp/swprofd-symbol-XXXXXX"};

        cr_assert(mkdtemp(r.path) != NULL);
        r.fd = open(r.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return r;
}

static void run(const char *format, ...)
{
        char command[3 * PATH_MAX];
        va_list ap;

        va_start(ap, format);
        vsnprintf(command, sizeof(command), format, ap);
        va_end(ap);
        cr_assert_eq(system(command), 0, "%s", command);
}

static void root_free(Root *r)
{
        close(r->fd);
        run("rm -r %s", r->path);
}

static void put_by_build_id(Root *r, const char *file, const char *build_id)
{
        run("mkdir -p %1$s/usr/lib/debug/.build-id/%2$.2s && "
            "cp " PROGRAMS "/%3$s %1$s/usr/lib/debug/.build-id/%2$.2s/%4$s.debug",
                r->path, build_id, file, build_id + 2);
}

static void check_separate(const char *program, Root *r, bool found)
{
        _cleanup_(binary_freep) Binary *b = open_binary_in(program, r->fd);
        uint64_t inner = address_of("lines-gcc", "place_inner");

        cr_assert_eq(binary_debug_elf(b) != NULL, found);
        check(b, inner,
                found ? "lines.c.inner:7 < lines.c.middle:15 < lines.c.outer:21"
                      : "program.[unknown]");
}

Test(binary, separate_file_by_build_id)
{
        _cleanup_(root_free) Root r = root_new();
        _cleanup_(binary_freep) Binary *b = open_binary("lines-gcc");

        check_separate("separate-gcc/stripped", &r, false);
        put_by_build_id(&r, "separate-gcc/symbols.debug", binary_build_id(b));
        check_separate("separate-gcc/stripped", &r, true);
}

Test(binary, separate_file_of_another_build)
{
        _cleanup_(root_free) Root r = root_new();
        _cleanup_(binary_freep) Binary *b = open_binary("lines-gcc");

        put_by_build_id(&r, "lines-clang", binary_build_id(b));
        check_separate("separate-gcc/stripped", &r, false);
}

/* Whoever owns neither the binary nor the machine does not name its functions. */
Test(binary, separate_file_of_another_owner)
{
        _cleanup_(root_free) Root r = root_new();
        _cleanup_(binary_freep) Binary *b = open_binary("lines-gcc");

        if (geteuid() != 0)
                cr_skip_test("files cannot be given away");
        put_by_build_id(&r, "separate-gcc/symbols.debug", binary_build_id(b));
        run("chown -R 12345 %s", r.path);
        check_separate("separate-gcc/stripped", &r, false);
}

/* A link in the root that leads out of it stays inside. */
Test(binary, separate_file_outside_of_the_root)
{
        _cleanup_(root_free) Root r = root_new(), outside = root_new();
        _cleanup_(binary_freep) Binary *b = open_binary("lines-gcc");

        put_by_build_id(&outside, "separate-gcc/symbols.debug", binary_build_id(b));
        run("ln -s %s/usr %s/usr", outside.path, r.path);
        check_separate("separate-gcc/stripped", &r, false);
}

static void put_by_link(Root *r, const char *kind, const char *file)
{
        run("mkdir -p %1$s/usr/lib/debug" PROGRAMS "/%2$s && "
            "cp " PROGRAMS "/%3$s %1$s/usr/lib/debug" PROGRAMS "/%2$s/symbols.debug",
                r->path, kind, file);
}

Test(binary, separate_file_by_link)
{
        _cleanup_(root_free) Root r = root_new();

        check_separate("separate-gcc/linked", &r, false);
        put_by_link(&r, "separate-gcc", "separate-gcc/symbols.debug");
        check_separate("separate-gcc/linked", &r, true);
        put_by_link(&r, "separate-gcc", "lines-clang");
        check_separate("separate-gcc/linked", &r, false);
}

/* Without build-ids the checksum decides. */
Test(binary, separate_file_by_checksum)
{
        _cleanup_(root_free) Root r = root_new();

        put_by_link(&r, "separate-no-build-id", "separate-no-build-id/symbols.debug");
        {
                _cleanup_(binary_freep) Binary *b =
                        open_binary_in("separate-no-build-id/linked", r.fd);

                cr_assert_str_eq(binary_build_id(b), "");
                cr_assert(binary_debug_elf(b) != NULL);
                check(b, address_of("lines-no-build-id", "place_outer"), "lines.c.outer:22");
        }
        run("echo >> %s/usr/lib/debug" PROGRAMS "/separate-no-build-id/symbols.debug", r.path);
        {
                _cleanup_(binary_freep) Binary *b =
                        open_binary_in("separate-no-build-id/linked", r.fd);

                cr_assert(binary_debug_elf(b) == NULL);
        }
}

Test(binary, mini_debug_info)
{
        _cleanup_(binary_freep) Binary *stripped = open_binary("separate-gcc/stripped");
        _cleanup_(binary_freep) Binary *mini = open_binary("separate-gcc/mini");

        check(stripped, address_of("lines-gcc", "place_hidden"), "program.[unknown]");
        check(mini, address_of("lines-gcc", "place_hidden"), "program.hidden");
        check(mini, address_of("lines-gcc", "place_inner"), "program.outer");
}

Test(binary, facts)
{
        _cleanup_(binary_freep) Binary *b = open_binary("lines-gcc");
        BinarySegment segments[8];
        size_t n = binary_segments(b, segments, N_OF(segments));
        uint64_t addr = address_of("lines-gcc", "place_inner");
        bool covered = false;

        cr_assert_str_eq(binary_name(b), "program");
        cr_assert_eq(strlen(binary_build_id(b)), 40);
        for (size_t i = 0; i < n; i++)
                covered |= addr - segments[i].vaddr < segments[i].filesz;
        cr_assert(covered);
        cr_assert_eq(binary_segments(b, segments, 1), 1);
}

Test(binary, vdso)
{
        const Elf64_Ehdr *header = (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR);
        _cleanup_(binary_freep) Binary *b = NULL;
        SymbolFrame frame;
        uint64_t found = 0;

        if (!header)
                cr_skip_test("this machine has no vDSO");
        cr_assert_eq(
                binary_new_memory(&b, header,
                        header->e_shoff + (size_t)header->e_shnum * header->e_shentsize, "[vdso]"),
                0);
        for (uint64_t at = 0; at < 8192 && !found; at++) {
                binary_symbolize(b, at, true, &frame, 1);
                if (frame.function && strcmp(frame.function, "__vdso_clock_gettime") == 0)
                        found = at;
        }
        cr_assert(found != 0);
}

Test(binary, not_usable)
{
        static const char text[] = "#!/bin/sh\n";
        Elf64_Ehdr header = {0};
        Binary *b = NULL;

        cr_assert_eq(binary_new_memory(&b, text, sizeof(text), "x"), BINARY_E_BAD);
        cr_assert_eq(binary_new_memory(&b, "", 0, "x"), BINARY_E_BAD);
        memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = ELFCLASS64;
        header.e_ident[EI_DATA] = ELFDATA2LSB;
        header.e_type = ET_DYN;
        header.e_machine = EM_AARCH64;
        cr_assert_eq(binary_new_memory(&b, &header, sizeof(header), "x"), BINARY_E_BAD);
        cr_assert_eq(
                binary_new(&b, open("/dev/null", O_RDONLY | O_CLOEXEC), "x", -1), BINARY_E_BAD);
        cr_assert_eq(binary_new(&b, open(PROGRAMS, O_RDONLY | O_CLOEXEC), "x", -1), BINARY_E_BAD);
        cr_assert(!b);
}

/* A program cut at many places is no program, or one with fewer functions. */
Test(binary, truncated)
{
        int fd = open(PROGRAMS "/lines-gcc", O_RDONLY | O_CLOEXEC);
        uint64_t addr = address_of("lines-gcc", "place_inner");
        struct stat st;
        _cleanup_(freep) char *bytes = NULL;

        fstat(fd, &st);
        bytes = malloc((size_t)st.st_size);
        cr_assert_eq(read(fd, bytes, (size_t)st.st_size), st.st_size);
        close(fd);
        for (size_t size = 0; size < (size_t)st.st_size; size += 61) {
                _cleanup_(binary_freep) Binary *b = NULL;
                SymbolFrame frames[4];

                if (binary_new_memory(&b, bytes, size, "x") == 0)
                        cr_assert_geq(binary_symbolize(b, addr, true, frames, 4), 1);
        }
}
