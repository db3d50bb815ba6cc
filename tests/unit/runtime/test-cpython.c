/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cpython-binary.h"
#include "runtime/cpython-code.h"
#include "runtime/cpython-layout.h"
#include "runtime/cpython-lines.h"
#include "runtime/cpython-merge.h"
#include "runtime/cpython-text.h"
#include "unwind/module.h"

/* ---- layouts ---- */

Test(layout, known_versions)
{
        for (unsigned minor = 0; minor < 20; minor++) {
                CpythonLayout l;
                int r = cpython_layout_known(&l, minor);

                if (minor < 8 || minor > 12) {
                        cr_assert_eq(r, CPYTHON_LAYOUT_E_VERSION);
                        continue;
                }
                cr_assert_eq(r, 0);
                cr_assert_eq(l.minor, minor);
                cr_assert_leq(l.walk.tstate_bytes, SWP_PYTHON_BLOCK);
                cr_assert_leq(l.walk.frame_bytes, SWP_PYTHON_BLOCK);
                cr_assert_leq(l.walk.code_bytes, SWP_PYTHON_BLOCK);
                cr_assert_geq(l.walk.frame_bytes, l.walk.frame_instr + l.walk.instr_bytes);
        }
}

/* What CPython 3.13.0 has at the begin of _PyRuntime. */
static const uint64_t offsets_3_13[49] = {0x7970677562656478, 0x30d00f0, 0, 283320, 608, 632,
        194968, 7272, 7264, 7344, 7400, 7656, 7640, 7648, 16, 7752, 0, 7768, 7760, 304, 0, 8, 16,
        72, 152, 160, 232, 32, 80, 8, 0, 56, 72, 70, 208, 112, 120, 128, 136, 68, 52, 96, 104, 200,
        16, 8, 416, 24, 88};

Test(layout, debug_offsets)
{
        uint64_t words[49];
        CpythonLayout l;

        memcpy(words, offsets_3_13, sizeof(words));
        cr_assert_eq(cpython_layout_parse(&l, words, sizeof(words)), 0);
        cr_assert_eq(l.minor, 13);
        cr_assert_eq(l.runtime_interpreters, 632);
        cr_assert_eq(l.walk.tstate_frame, 72);
        cr_assert_eq(l.walk.frame_owner, 70);
        cr_assert_eq(l.code_adaptive, 200);

        words[2] = 1;
        cr_assert_eq(cpython_layout_parse(&l, words, sizeof(words)), CPYTHON_LAYOUT_E_THREADS);
        words[2] = 0;
        words[1] = 0x030f0000;
        cr_assert_eq(cpython_layout_parse(&l, words, sizeof(words)), CPYTHON_LAYOUT_E_VERSION);
        words[1] = 0x030d0000;
        words[31] = 1 << 20; /* instr_ptr */
        cr_assert_eq(cpython_layout_parse(&l, words, sizeof(words)), CPYTHON_LAYOUT_E_BAD);
        words[31] = 57;
        cr_assert_eq(cpython_layout_parse(&l, words, sizeof(words)), CPYTHON_LAYOUT_E_BAD);
        words[31] = 56;
        cr_assert_eq(cpython_layout_parse(&l, words, sizeof(words)), 0);
        cr_assert_eq(cpython_layout_parse(&l, words, sizeof(words) - 1), CPYTHON_LAYOUT_E_BAD);
        words[0]++;
        cr_assert_eq(cpython_layout_parse(&l, words, sizeof(words)), CPYTHON_LAYOUT_E_BAD);
}

/* ---- texts ---- */

static CpythonText head_of(const CpythonLayout *l, uint64_t n, uint32_t state, int expected)
{
        uint8_t head[CPYTHON_TEXT_HEAD] = {0};
        CpythonText text = {0};

        memcpy(head + 16, &n, sizeof(n));
        memcpy(head + 32, &state, sizeof(state));
        cr_assert_eq(cpython_text_head(&text, l, head), expected);
        return text;
}

static void decodes(const CpythonText *text, const void *bytes, const char *expected)
{
        char *got = cpython_text_decode(text, bytes);

        cr_assert_str_eq(got, expected);
        free(got);
}

Test(text, kinds)
{
        const CpythonLayout l = {.text_ascii = 40, .text_compact = 56};
        CpythonText t;

        t = head_of(&l, 3, 1 << 2 | 1 << 5 | 1 << 6, 0);
        cr_assert_eq(t.offset, 40);
        decodes(&t, "abc", "abc");
        t = head_of(&l, 2, 1 << 2 | 1 << 5, 0);
        cr_assert_eq(t.offset, 56);
        decodes(&t, "\xe4\x00", "ä?");
        t = head_of(&l, 2, 2 << 2 | 1 << 5, 0);
        decodes(&t, (uint16_t[]){0x20ac, 0xd800}, "€?");
        t = head_of(&l, 2, 4 << 2 | 1 << 5, 0);
        decodes(&t, (uint32_t[]){0x1f40d, 0x110000}, "🐍?");
        t = head_of(&l, 0, 1 << 2 | 1 << 5 | 1 << 6, 0);
        decodes(&t, "", "");
        head_of(&l, 3, 1 << 2 | 1 << 6, CPYTHON_TEXT_E_BAD);          /* not compact */
        head_of(&l, 3, 3 << 2 | 1 << 5, CPYTHON_TEXT_E_BAD);          /* no such kind */
        head_of(&l, 3, 2 << 2 | 1 << 5 | 1 << 6, CPYTHON_TEXT_E_BAD); /* ASCII of two bytes */
        head_of(&l, CPYTHON_TEXT_MAX + 1, 1 << 2 | 1 << 5 | 1 << 6, CPYTHON_TEXT_E_BAD);
}

/* ---- lines: tests/unit/runtime/test_lines.py has those of real interpreters ---- */

Test(lines, steps)
{
        static const uint8_t lnotab[] = {0, 1, 4, 1, 6, 0xff, 0, 127, 2, 3};
        static const uint8_t linetable[] = {4, 1, 2, 0x80, 2, 0xff};
        static const uint8_t locations[] = {0xf0, 0, 0xd8, 4, 0, 0xf8, 0xe8, 5, 0xf8};

        cr_assert_eq(cpython_line(9, lnotab, sizeof(lnotab), 10, -1), 10);
        cr_assert_eq(cpython_line(9, lnotab, sizeof(lnotab), 10, 0), 11);
        cr_assert_eq(cpython_line(9, lnotab, sizeof(lnotab), 10, 2), 12);
        cr_assert_eq(cpython_line(9, lnotab, sizeof(lnotab), 10, 5), 138);
        cr_assert_eq(cpython_line(9, lnotab, sizeof(lnotab), 10, 6), 141);
        cr_assert_eq(cpython_line(10, linetable, sizeof(linetable), 10, 1), 11);
        cr_assert_eq(cpython_line(10, linetable, sizeof(linetable), 10, 2), 10, "no line's");
        cr_assert_eq(cpython_line(10, linetable, sizeof(linetable), 10, 3), 10);
        cr_assert_eq(cpython_line(10, linetable, sizeof(linetable), 10, 99), 10, "behind the end");
        cr_assert_eq(cpython_line(12, locations, sizeof(locations), 10, 0), 10);
        cr_assert_eq(cpython_line(12, locations, sizeof(locations), 10, 99), 10);
        cr_assert_eq(cpython_line(12, NULL, 0, 10, 0), 10);
}

/* ---- merging ---- */

enum { EVAL = 0x1000, OTHER = 0x9000 };

static CpythonBinary binary = {.n_ranges = 1, .ranges = {{EVAL, EVAL + 0x100}}};
static Module python = {.name = (char *)"libpython3.so", .python = &binary};
static Module libc = {.name = (char *)"libc.so.6"};
static Module greenlet = {.name = (char *)"_greenlet.cpython-39.so"};

static Frame native(const Module *module, uint64_t vaddr, uint64_t sp)
{
        return (Frame){.pc = vaddr, .module = module, .vaddr = vaddr, .sp = sp};
}

static struct swp_python_frame function(uint64_t code, unsigned owner)
{
        return (struct swp_python_frame){.code = code, .owner = owner};
}

static struct swp_python_frame shim(uint64_t address)
{
        return (struct swp_python_frame){.instr = address, .owner = 3};
}

/* The stack as text: n native, e.g. "n1 p0": native frame 1, then function 0. */
static void merges(const CpythonMerge *m, int expected, const char *text)
{
        char got[256] = "";
        Frame frames[32];
        size_t n = 0;
        int r = cpython_merge(m, frames, 32, &n);
        bool done = r == 0 || r == CPYTHON_MERGE_E_NO_ENTRY;

        cr_assert_eq(r, expected, "%s: %d", text, r);
        for (size_t i = 0; done && i < n; i++) {
                bool is_python = frames[i].kind == FRAME_PYTHON;
                size_t at = frames[i].vaddr;

                for (size_t k = 0; !is_python && k < m->n_native; k++)
                        if (m->native[k].pc == frames[i].pc && m->native[k].sp == frames[i].sp)
                                at = k;
                sprintf(got + strlen(got), "%s%c%zu", i ? " " : "", is_python ? 'p' : 'n', at);
        }
        if (done)
                cr_assert_str_eq(got, text);
}

Test(merge, one_native_frame_a_function)
{
        const Frame frames[] = {native(&libc, 1, 100), native(&python, OTHER, 200),
                native(&python, EVAL, 300), native(&python, OTHER + 1, 400),
                native(&python, EVAL + 1, 500), native(&libc, 2, 600)};
        const struct swp_python_frame functions[] = {function(8, 0), function(16, 0)};
        CpythonLayout l;
        CpythonMerge m = {
                .layout = &l, .n_native = 6, .native = frames, .n_python = 2, .python = functions};

        cr_assert_eq(cpython_layout_known(&l, 9), 0);
        merges(&m, 0, "n0 p0 p1");
        m.mixed = true;
        merges(&m, 0, "n0 n1 p0 n3 p1 n5");
        /* The innermost one is being entered. */
        m.n_python = 1;
        merges(&m, CPYTHON_MERGE_E_NO_ENTRY, "n0 n1 n3 p0 n5");
        m.n_python = 0;
        merges(&m, CPYTHON_MERGE_E_MISMATCH, "two of the loop, no function");
        m.n_python = 2;
        m.n_native = 4;
        merges(&m, CPYTHON_MERGE_E_MISMATCH, "more functions");
        m.mixed = false;
        m.partial = m.truncated = true;
        merges(&m, 0, "n0 p0 p1");
        m.truncated = false;
        merges(&m, CPYTHON_MERGE_E_MISMATCH, "a part of it");
}

Test(merge, entries_of_3_11)
{
        const Frame frames[] = {native(&python, EVAL, 100), native(&python, OTHER, 200),
                native(&python, EVAL, 300), native(&libc, 2, 400)};
        const struct swp_python_frame functions[] = {
                function(8, 0), function(16, 1), function(24, 0), function(32, 1)};
        CpythonLayout l;
        CpythonMerge m = {.layout = &l,
                .mixed = true,
                .n_native = 4,
                .native = frames,
                .n_python = 4,
                .python = functions};

        cr_assert_eq(cpython_layout_known(&l, 11), 0);
        merges(&m, 0, "p0 p1 n1 p2 p3 n3");
        m.mixed = false;
        merges(&m, 0, "p0 p1 p2 p3");
        m.n_python = 3;
        merges(&m, CPYTHON_MERGE_E_MISMATCH, "the outermost is of no entry");
}

Test(merge, entries_by_address)
{
        Frame frames[] = {native(&libc, 1, 100), native(&python, OTHER, 200),
                native(&python, OTHER + 1, 300), native(&python, OTHER + 2, 400),
                native(&python, EVAL, 500), native(&libc, 2, 600)};
        struct swp_python_frame functions[] = {
                function(8, 0), function(16, 1), shim(350), function(24, 0), shim(508)};
        CpythonLayout l;
        CpythonMerge m = {
                .layout = &l, .n_native = 6, .native = frames, .n_python = 5, .python = functions};

        cr_assert_eq(cpython_layout_known(&l, 12), 0);
        merges(&m, 0, "n0 p0 p1 p3");
        m.mixed = true;
        merges(&m, 0, "n0 n1 p0 p1 n3 p3 n5");
        /* Each instruction is a function. */
        binary.tail_calls = true;
        merges(&m, 0, "n0 p0 p1 p3 n5");
        binary.tail_calls = false;
        /* Being left. */
        functions[0].code = 0;
        functions[0].instr = 250;
        merges(&m, 0, "n0 p1 n3 p3 n5");
        functions[0].code = 8;
        functions[4].instr = 4096;
        merges(&m, CPYTHON_MERGE_E_MISMATCH, "an entry on another stack");
        functions[4].instr = 508;
        m.n_python = 0;
        merges(&m, CPYTHON_MERGE_E_NO_ENTRY, "n0 n1 n2 n3 n5");
}

Test(merge, greenlets)
{
        const Frame frames[] = {native(&libc, 1, 100), native(&python, EVAL, 200),
                native(&greenlet, 1, 300), native(&python, EVAL, 400), native(&python, EVAL, 500),
                native(&python, EVAL, 600)};
        const struct swp_python_frame functions[] = {function(8, 0)};
        const struct swp_python_frame entered[] = {function(8, 0), shim(208)};
        CpythonLayout l;
        CpythonMerge m = {
                .layout = &l, .n_native = 6, .native = frames, .n_python = 1, .python = functions};

        cr_assert_eq(cpython_layout_known(&l, 9), 0);
        merges(&m, 0, "n0 p0");
        m.partial = true;
        merges(&m, 0, "n0 p0");
        cr_assert_eq(cpython_layout_known(&l, 12), 0);
        m.n_python = 2;
        m.python = entered;
        merges(&m, 0, "n0 p0");
        m.mixed = true;
        merges(&m, 0, "n0 p0");
}

/* ---- code objects ---- */

typedef struct Str {
        uint64_t head[2];
        uint64_t n;
        int64_t hash;
        uint64_t state, wstr;
        char text[32];
} Str;

static Str name, filename;
static struct {
        uint64_t head[2], n;
        uint64_t hash;
        uint8_t bytes[8];
} lines;
static uint8_t code[SWP_PYTHON_BLOCK];

static void set_text(Str *s, const char *text, int64_t hash)
{
        *s = (Str){.n = strlen(text), .hash = hash, .state = 1 << 2 | 1 << 5 | 1 << 6};
        strcpy(s->text, text);
}

static void put(unsigned at, uint64_t value, size_t n)
{
        memcpy(code + at, &value, n);
}

/* Of 3.9, in our own memory. */
static struct swp_python_frame own_code(const CpythonLayout *l)
{
        set_text(&name, "function", 77);
        set_text(&filename, "/a/file.py", -1);
        lines.n = 4;
        memcpy(lines.bytes, (uint8_t[]){0, 1, 2, 1}, 4);
        put(0, 2, 8);
        put(SWP_PYTHON_TYPE, 1234, 8);
        put(l->walk.code_firstlineno, 10, 4);
        put(l->walk.code_name, (uintptr_t)&name, 8);
        put(l->walk.code_filename, (uintptr_t)&filename, 8);
        put(l->walk.code_linetable, (uintptr_t)&lines, 8);
        return (struct swp_python_frame){.code = (uintptr_t)code,
                .instr = 2,
                .identity = swp_python_identity(
                        1234, 10, (uintptr_t)&filename, (uintptr_t)&name, (uintptr_t)&lines, 77)};
}

Test(code, names_are_read_once)
{
        _cleanup_(cpython_codes_unrefp) CpythonCodes *codes = NULL;
        struct swp_python_frame f;
        CpythonCode *c, *again;
        CpythonLayout l;
        char *text;
        bool added;

        cr_assert_eq(cpython_layout_known(&l, 9), 0);
        f = own_code(&l);
        codes = cpython_codes_new(getpid(), &l);
        c = cpython_codes_get(codes, &f, &added);
        cr_assert(added);
        cpython_code_read(c);
        cr_assert_eq(c->state, CPYTHON_CODE_NAMED);
        text = cpython_code_signature(c, cpython_code_unit(&l, &f), true);
        cr_assert_str_eq(text, "/a/file.py.function: 12");
        free(text);
        text = cpython_code_signature(c, -1, false);
        cr_assert_str_eq(text, "/a/file.py.function");
        free(text);
        again = cpython_codes_get(codes, &f, &added);
        cr_assert_eq(again, c);
        cr_assert_not(added);
        /* Another one at that address. */
        name.hash = 78;
        f.identity++;
        again = cpython_codes_get(codes, &f, &added);
        cr_assert(added);
        cr_assert_neq(again->id, c->id);
        cpython_code_read(again);
        cr_assert_eq(again->state, CPYTHON_CODE_LOST);
}

Test(code, another_one_by_then)
{
        _cleanup_(cpython_codes_unrefp) CpythonCodes *codes = NULL;
        struct swp_python_frame f;
        CpythonLayout l;
        CpythonCode *c;
        bool added;

        cr_assert_eq(cpython_layout_known(&l, 9), 0);
        for (unsigned what = 0; what < 8; what++) {
                cpython_codes_unref(codes);
                codes = cpython_codes_new(getpid(), &l);
                f = own_code(&l);
                if (what == 1)
                        name.hash = 78;
                else if (what == 2)
                        put(l.walk.code_firstlineno, 11, 4);
                else if (what == 3)
                        put(l.walk.code_name, 1, 8);
                else if (what == 4)
                        put(0, 0, 8); /* freed, the last block */
                else if (what == 5)
                        put(0, 0x7f1234567890, 8); /* freed */
                else if (what == 6)
                        put(SWP_PYTHON_TYPE, 1235, 8);
                c = cpython_codes_get(codes, &f, &added);
                cr_assert(added);
                cpython_code_read(c);
                cr_assert_eq(
                        c->state, what == 0 || what == 7 ? CPYTHON_CODE_NAMED : CPYTHON_CODE_LOST);
        }
}

Test(code, instructions)
{
        struct swp_python_frame f = {.code = 1000};
        CpythonLayout l;

        cr_assert_eq(cpython_layout_known(&l, 9), 0);
        f.instr = (uint32_t)-1;
        cr_assert_eq(cpython_code_unit(&l, &f), -1);
        f.instr = 8;
        cr_assert_eq(cpython_code_unit(&l, &f), 4);
        cr_assert_eq(cpython_layout_known(&l, 10), 0);
        cr_assert_eq(cpython_code_unit(&l, &f), 8);
        cr_assert_eq(cpython_layout_known(&l, 12), 0);
        f.instr = 1000 + 192 - 2;
        cr_assert_eq(cpython_code_unit(&l, &f), -1);
        f.instr = 1000 + 192 + 6;
        cr_assert_eq(cpython_code_unit(&l, &f), 3);
}
