/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <ctype.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>

#include "symbol/binary.h"
#include "symbol/kallsyms.h"
#include "symbol/signature.h"
#include "symbol/wait.h"

static void check_demangle(const char *name, const char *expected)
{
        _cleanup_(freep) char *text = symbol_demangle(name);

        cr_assert_str_eq(text, expected);
}

Test(demangle, c)
{
        check_demangle("main", "main");
        check_demangle("", "");
        check_demangle("_Z", "_Z");
        check_demangle("_ZZZ", "_ZZZ");
        check_demangle("_Rust", "_Rust");
        check_demangle("a.b", "a.b");
}

Test(demangle, cpp)
{
        check_demangle("_ZN2ns3FooIiE3barEv", "ns::Foo<int>::bar");
        check_demangle("_ZNSt6vectorIiSaIiEE9push_backEOi",
                "std::vector<int, std::allocator<int> >::push_back");
        check_demangle("_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()");
        check_demangle("_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo");
        check_demangle("_ZNK3FoocvbEv", "Foo::operator bool");
        /* A template's return type is part of its mangled name. */
        check_demangle("_Z3maxIiET_S0_S0_", "max<int>");
}

Test(demangle, rust)
{
        check_demangle(
                "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad");
        check_demangle("_RNvC6_123foo3bar", "123foo::bar");
        check_demangle("_RNvMsr_NtCs3ssYzQotkvD_3std4pathNtB5_7PathBuf3newCs15kBYyAo9fc_7mycrate",
                "<std::path::PathBuf>::new");
}

Test(demangle, suffixes)
{
        check_demangle("foo.cold", "foo");
        check_demangle("foo.constprop.0.isra.12", "foo");
        check_demangle("foo.part.0.cold", "foo");
        check_demangle("foo.coldness", "foo.coldness");
        check_demangle(".cold", ".cold");
        check_demangle("_ZN2ns3barEv.isra.0", "ns::bar");
        check_demangle("memcpy@@GLIBC_2.14", "memcpy");
        check_demangle("memcpy@GLIBC_2.2.5", "memcpy");
        check_demangle("@", "@");
}

Test(demangle, plt)
{
        check_demangle("puts@plt", "puts@plt");
        check_demangle("memcpy@GLIBC_2.14@plt", "memcpy@plt");
        check_demangle("_ZN2ns3barEv@plt", "ns::bar@plt");
        check_demangle("[plt]", "[plt]");
}

/* Numbers as manglings write them: "_" is 0, "0_" is 1, and so on, in that base. */
static char *append_number(char *p, unsigned n, unsigned base)
{
        static const char digits[] =
                "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

        if (n > base)
                *p++ = digits[(n - 1) / base];
        if (n > 0)
                *p++ = (char)(base == 36 ? toupper(digits[(n - 1) % base])
                                         : digits[(n - 1) % base]);
        *p++ = '_';
        return p;
}

/* Each type names the one before it twice: written out, that is gigabytes. */
Test(demangle, cpp_bomb)
{
        char name[2048], *p = stpcpy(name, "_Z1fI1tIiiE");

        for (unsigned i = 0; i < 34; i++) {
                p = stpcpy(p, "S0_IS");
                p = append_number(p, i + 2, 36);
                p = append_number(stpcpy(p, "S"), i + 2, 36);
                p = stpcpy(p, "E");
        }
        strcpy(p, "Evv");
        check_demangle(name, name);
}

Test(demangle, rust_bomb)
{
        char name[2048], *p = stpcpy(name, "_RINvC1a1bTmmE");
        unsigned before = (unsigned)strlen("INvC1a1b");

        for (unsigned i = 0; i < 34; i++) {
                unsigned at = (unsigned)(p - name) - 2;

                p = append_number(stpcpy(p, "TB"), before, 62);
                p = append_number(stpcpy(p, "B"), before, 62);
                p = stpcpy(p, "E");
                before = at;
        }
        strcpy(p, "E");
        check_demangle(name, name);
}

Test(demangle, long_name)
{
        static char name[100000];
        _cleanup_(freep) char *text = NULL;

        memset(name, 'x', sizeof(name) - 1);
        text = symbol_demangle(name);
        cr_assert_eq(strlen(text), 4096);
}

static void check_signature(const char *module, SymbolFrame frame, bool lines, const char *expected)
{
        _cleanup_(freep) char *text = signature_native(module, &frame, lines);

        cr_assert_str_eq(text, expected);
}

Test(signature, forms)
{
        SymbolFrame full = {.function = "method1", .file = "song.c", .line = 12};
        SymbolFrame no_line = {.function = "method1", .file = "song.c"};
        SymbolFrame no_file = {.function = "method1"};
        SymbolFrame nothing = {0};

        check_signature("song", full, true, "song.c.method1:12");
        check_signature("song", full, false, "song.c.method1");
        check_signature("song", no_line, true, "song.c.method1");
        check_signature("song", no_file, true, "song.method1");
        check_signature("song", no_file, false, "song.method1");
        check_signature("song", nothing, true, "song.[unknown]");
        check_signature("[kernel]", no_file, true, "[kernel].method1");
        check_signature(NULL, nothing, true, "[anonymous].[unknown]");
        /* A line of nobody's code would be no stable name. */
        check_signature("song", (SymbolFrame){.file = "song.c", .line = 3}, true, "song.[unknown]");
}

Test(signature, is_utf8)
{
        check_signature("m", (SymbolFrame){.function = "a\nb\x7f\x1b[0m"}, true, "m.a?b??[0m");
        check_signature("m", (SymbolFrame){.function = "größe€😀"}, true, "m.größe€😀");
        check_signature("m", (SymbolFrame){.function = "\xc3"}, true, "m.?");
        check_signature("m", (SymbolFrame){.function = "\xc0\x80\xff"}, true, "m.???");
        check_signature("m", (SymbolFrame){.function = "\xed\xa0\x80z"}, true, "m.???z");
        check_signature("m", (SymbolFrame){.function = "\xf4\x90\x80\x80"}, true, "m.????");
        check_signature("m", (SymbolFrame){.function = "\xe2\x82z"}, true, "m.??z");
}

static Kallsyms *parse(const char *text)
{
        Kallsyms *k = NULL;

        cr_assert_eq(kallsyms_parse(&k, text, strlen(text)), 0);
        return k;
}

static void check_kernel(const Kallsyms *k, uint64_t addr, const char *expected)
{
        const char *name = kallsyms_find(k, addr);

        if (expected)
                cr_assert_str_eq(name, expected);
        else
                cr_assert(!name);
}

Test(kallsyms, find)
{
        _cleanup_(kallsyms_freep) Kallsyms *k = parse("ffffffff81000100 T schedule\n"
                                                      "ffffffff81000000 t local_one\n"
                                                      "ffffffff81000000 T _stext\n"
                                                      "ffffffffc0000000 t ext4_read\t[ext4]\n"
                                                      "ffffffff81000200 t do_wait.cold\n"
                                                      "ffffffff81000300 D some_data\n"
                                                      "ffffffff81000400 t foo.isra.0.cold\n"
                                                      "ffffffff81000500 W weak");

        check_kernel(k, 0, NULL);
        check_kernel(k, 0xffffffff80ffffff, NULL);
        check_kernel(k, 0xffffffff81000000, "_stext");
        check_kernel(k, 0xffffffff810000ff, "_stext");
        check_kernel(k, 0xffffffff81000100, "schedule");
        check_kernel(k, 0xffffffff81000300, "do_wait");
        check_kernel(k, 0xffffffff81000400, "foo");
        check_kernel(k, 0xffffffff81000555, "weak");
        check_kernel(k, 0xffffffff81200555, NULL);
        check_kernel(k, 0xffffffffc0000010, "ext4_read");
        check_kernel(k, UINT64_MAX, NULL);
}

Test(kallsyms, without_the_right)
{
        _cleanup_(kallsyms_freep) Kallsyms *k = parse("0000000000000000 T schedule\n");

        check_kernel(k, 0xffffffff81000000, NULL);
        check_kernel(k, 0, NULL);
}

Test(kallsyms, malformed)
{
        _cleanup_(kallsyms_freep) Kallsyms *k =
                parse("\n\n \nffff\nffffffff81000000\nffffffff81000000 T\nffffffff81000000 T \n"
                      "zz T a\nffffffff810000000000 T b\nffffffff81000000T c\n");

        check_kernel(k, 0xffffffff81000000, NULL);
}

Test(kallsyms, of_this_kernel)
{
        _cleanup_(kallsyms_freep) Kallsyms *k = NULL;

        cr_assert_eq(kallsyms_load(&k), 0);
}

/* ---- waits ---- */

static void check_wait(uint64_t code, const char *expected)
{
        _cleanup_(freep) char *text = wait_signature(code);

        cr_assert_str_eq(text, expected);
}

Test(wait, names)
{
        check_wait(wait_code(true, SYS_read, 7, 0x7ffe0000), "[read fd 7]");
        check_wait(wait_code(true, SYS_clock_nanosleep, 1, 0), "[clock_nanosleep]");
        check_wait(wait_code(true, SYS_futex, 0x1000, FUTEX_WAIT_PRIVATE), "[futex_wait]");
        check_wait(wait_code(true, SYS_futex, 0x1000, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME),
                "[futex_wait]");
        check_wait(wait_code(true, SYS_futex, 0x1000, FUTEX_LOCK_PI), "[futex_lock_pi]");
        check_wait(wait_code(true, SYS_futex, 0x1000, 99), "[futex]");
        check_wait(wait_code(true, -1, 1, 2), "[page fault]");
        check_wait(wait_code(false, SYS_read, 7, 0), "[run queue]");
        check_wait(wait_code(false, -1, 0, 0), "[run queue]");
        /* What a program can put there. */
        check_wait(wait_code(true, 100000, 1, 2), "[syscall 100000]");
        check_wait(wait_code(true, INT64_MAX, 1, 2), "[page fault]");
        check_wait(wait_code(true, UINT32_MAX, 1, 2), "[page fault]");
        check_wait(wait_code(true, SYS_read, UINT64_MAX, 0), "[read fd -1]");
}

Test(wait, same_code_for_the_same_wait)
{
        cr_assert_eq(wait_code(true, SYS_futex, 0x1000, FUTEX_WAIT),
                wait_code(true, SYS_futex, 0x2000, FUTEX_WAIT));
        cr_assert_eq(wait_code(true, SYS_nanosleep, 1, 0), wait_code(true, SYS_nanosleep, 2, 0));
        cr_assert_neq(wait_code(true, SYS_read, 7, 0), wait_code(true, SYS_read, 8, 0));
}
