/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/cfi-go-code.h"

/* Functions of Go's runtime as they are in programs that Go 1.19 and 1.26 made. */

enum {
        TEXT = 0x401000,
        FUNCTAB = 72,
        FUNC = FUNCTAB + 12,
        NAMES = FUNC + 44,
        VALUES = NAMES + 64,
        SIZE = VALUES + 64,
        FLAG_SETS_SP = 2,
};

typedef struct Code {
        size_t n;
        const uint8_t *bytes;
} Code;

#define CODE(string)                                          \
        {                                                     \
                sizeof(string) - 1, (const uint8_t *)(string) \
        }

static CfiBytes at_text(const Code *c)
{
        return (CfiBytes){.p = c->bytes, .end = c->bytes + c->n, .vaddr = TEXT};
}

static const Code systemstack_1_26 =
        CODE("\x55\x48\x89\xe5\x48\x8b\x7c\x24\x10\x64\x48\x8b\x04\x25\xf8\xff\xff\xff\x48\x8b"
             "\x58\x30\x48\x3b\x43\x48\x74\x65\x48\x8b\x13\x48\x39\xd0\x74\x5d\x48\x3b\x83\xb8"
             "\x00\x00\x00\x75\x5d\xe8\xae\xf2\xff\xff\x64\x48\x89\x14\x25\xf8\xff\xff\xff\x49"
             "\x89\xd6\x48\x8b\x62\x38\x48\x89\xfa\x48\x8b\x3f\xff\xd7\x64\x48\x8b\x04\x25\xf8"
             "\xff\xff\xff\x48\x8b\x58\x30\x48\x8b\x83\xb8\x00\x00\x00\x64\x48\x89\x04\x25\xf8"
             "\xff\xff\xff\x48\x8b\x60\x38\x48\x8b\x68\x60\x48\xc7\x40\x38\x00\x00\x00\x00\x48"
             "\xc7\x40\x60\x00\x00\x00\x00\x5d\xc3\x48\x89\xfa\x48\x8b\x3f\x5d\xff\xe7\x48\x8d"
             "\x05\x4f\x3e\x00\x00\xff\xd0\xcd\x03");

static const Code systemstack_1_19 =
        CODE("\x48\x8b\x7c\x24\x08\x64\x48\x8b\x04\x25\xf8\xff\xff\xff\x48\x8b\x58\x30\x48\x3b"
             "\x43\x50\x74\x5b\x48\x8b\x13\x48\x39\xd0\x74\x53\x48\x3b\x83\xc0\x00\x00\x00\x75"
             "\x52\xe8\xd2\xf1\xff\xff\x64\x48\x89\x14\x25\xf8\xff\xff\xff\x49\x89\xd6\x48\x8b"
             "\x5a\x38\x48\x89\xdc\x48\x89\xfa\x48\x8b\x3f\xff\xd7\x64\x48\x8b\x04\x25\xf8\xff"
             "\xff\xff\x48\x8b\x58\x30\x48\x8b\x83\xc0\x00\x00\x00\x64\x48\x89\x04\x25\xf8\xff"
             "\xff\xff\x48\x8b\x60\x38\x48\xc7\x40\x38\x00\x00\x00\x00\xc3\x48\x89\xfa\x48\x8b"
             "\x3f\xff\xe7\x48\x8d\x05\xbe\x48\x00\x00\xff\xd0\xcd\x03");

static const Code morestack =
        CODE("\x64\x48\x8b\x3c\x25\xf8\xff\xff\xff\x48\x8b\x5f\x30\x48\x8b\x04\x24\x48\x89\x47"
             "\x40\x48\x8d\x44\x24\x08\x48\x89\x47\x38\x48\x89\x6f\x60\x48\x89\x57\x50\x48\x8b"
             "\x33\x48\x39\xf7\x75\x0a\xe8\x4d\x3c\x00\x00\xe8\x28\x18\x00\x00\x48\x8b\x73\x48"
             "\x48\x39\xf7\x75\x0a\xe8\x5a\x3c\x00\x00\xe8\x15\x18\x00\x00\x48\x8b\x44\x24\x08"
             "\x48\x89\x43\x10\x48\x8d\x44\x24\x10\x48\x89\x43\x08\x48\x89\x7b\x18\x48\x8b\x1b"
             "\x64\x48\x89\x1c\x25\xf8\xff\xff\xff\x48\x8b\x63\x38\x48\xc7\xc5\x00\x00\x00\x00"
             "\xe8\x43\x3d\x00\x00\xe8\xde\x17\x00\x00\xc3");

static const Code mcall =
        CODE("\x55\x48\x89\xe5\x48\x89\xc2\x48\x89\xe3\x48\x8b\x5b\x08\x49\x89\x5e\x40\x48\x8d"
             "\x5c\x24\x10\x49\x89\x5e\x38\x48\x8b\x5d\x00\x49\x89\x5e\x60\x49\x8b\x5e\x30\x48"
             "\x8b\x33\x4c\x39\xf6\x75\x05\xe9\x0c\x3d\x00\x00\x4c\x89\xf0\x49\x89\xf6\x64\x4c"
             "\x89\x34\x25\xf8\xff\xff\xff\x49\x8b\x66\x38\x48\xc7\xc5\x00\x00\x00\x00\x50\x4c"
             "\x8b\x22\x41\xff\xd4\x90\x58\xe9\x24\x3d\x00\x00\x5d\xc3");

static const Code asmcgocall_1_26 =
        CODE("\x55\x48\x89\xe5\x64\x48\x8b\x3c\x25\xf8\xff\xff\xff\x48\x83\xff\x00\x74\x70\x4c"
             "\x8b\x47\x30\x49\x8b\x70\x48\x48\x39\xf7\x74\x63\x49\x8b\x30\x48\x39\xf7\x74\x5b"
             "\x48\x8b\x44\x24\x10\x48\x8b\x5c\x24\x18\x48\x89\xe2\xe8\x46\xda\xff\xff\x64\x48"
             "\x89\x34\x25\xf8\xff\xff\xff\x48\x8b\x66\x38\x48\x83\xec\x10\x48\x83\xe4\xf0\x48"
             "\x89\x7c\x24\x08\x48\x8b\x7f\x08\x48\x29\xd7\x48\x89\x3c\x24\xe8\x7c\xff\xff\xff"
             "\x48\x8b\x7c\x24\x08\x48\x8b\x77\x08\x48\x2b\x34\x24\x64\x48\x89\x3c\x25\xf8\xff"
             "\xff\xff\x48\x89\xf4\x89\x44\x24\x20\x5d\xc3\x48\x8b\x44\x24\x10\x48\x8b\x5c\x24"
             "\x18\x48\x89\xe2\x48\x83\xec\x10\x48\x83\xe4\xf0\x48\xc7\x44\x24\x08\x00\x00\x00"
             "\x00\x48\x89\x14\x24\xe8\x36\xff\xff\xff\x48\x8b\x34\x24\x48\x89\xf4\x89\x44\x24"
             "\x20\x5d\xc3");

static const Code asmcgocall_1_19 =
        CODE("\x48\x8b\x44\x24\x08\x48\x8b\x5c\x24\x10\x48\x89\xe2\x64\x48\x8b\x3c\x25\xf8\xff"
             "\xff\xff\x48\x83\xff\x00\x74\x67\x4c\x8b\x47\x30\x49\x8b\x70\x50\x48\x39\xf7\x74"
             "\x5a\x49\x8b\x30\x48\x39\xf7\x74\x52\xe8\x6a\xd3\xff\xff\x64\x48\x89\x34\x25\xf8"
             "\xff\xff\xff\x48\x8b\x66\x38\x48\x83\xec\x40\x48\x83\xe4\xf0\x48\x89\x7c\x24\x30"
             "\x48\x8b\x7f\x08\x48\x29\xd7\x48\x89\x7c\x24\x28\x48\x89\xdf\x48\x89\xd9\xff\xd0"
             "\x48\x8b\x7c\x24\x30\x48\x8b\x77\x08\x48\x2b\x74\x24\x28\x64\x48\x89\x3c\x25\xf8"
             "\xff\xff\xff\x48\x89\xf4\x89\x44\x24\x18\xc3\x48\x83\xec\x40\x48\x83\xe4\xf0\x48"
             "\xc7\x44\x24\x30\x00\x00\x00\x00\x48\x89\x54\x24\x28\x48\x89\xdf\x48\x89\xd9\xff"
             "\xd0\x48\x8b\x74\x24\x28\x48\x89\xf4\x89\x44\x24\x18\xc3");

static const Code nanotime1 =
        CODE("\x55\x48\x89\xe5\x48\x83\xec\x10\x49\x89\xe4\x49\x8b\x5e\x30\x48\x8b\x8b\x88\x03"
             "\x00\x00\x48\x8b\x93\x80\x03\x00\x00\x48\x89\x0c\x24\x48\x89\x54\x24\x08\x48\x8d"
             "\x54\x24\x20\x48\x8b\x4a\xf8\x48\x89\x8b\x88\x03\x00\x00\x48\x89\x93\x80\x03\x00"
             "\x00\x4c\x3b\xb3\xb8\x00\x00\x00\x75\x07\x48\x8b\x13\x48\x8b\x62\x38\x48\x83\xec"
             "\x10\x48\x83\xe4\xf0\xbf\x01\x00\x00\x00\x48\x8d\x34\x24\x48\x8b\x05\x03\x35\x21"
             "\x00\x48\x83\xf8\x00\x74\x3a\xff\xd0\x48\x8b\x04\x24\x48\x8b\x54\x24\x08\x4c\x89"
             "\xe4\x48\x8b\x4c\x24\x08\x48\x89\x8b\x80\x03\x00\x00\x48\x8b\x0c\x24\x48\x89\x8b"
             "\x88\x03\x00\x00\x48\x69\xc0\x00\xca\x9a\x3b\x48\x01\xd0\x48\x89\x44\x24\x20\x48"
             "\x83\xc4\x10\x5d\xc3\x48\xc7\xc0\xe4\x00\x00\x00\x0f\x05\xeb\xbd");

typedef struct Values {
        uint8_t n, bytes[32]; /* as in the function table */
} Values;

/* No frame; a push of rbp; the same with a frame of 16 bytes more. */
static const Values no_frame = {4, {2, 0xff, 1, 0}};
static const Values systemstack_values = {11, {2, 1, 16, 0x7f, 15, 1, 16, 7, 15, 13, 0}};
static const Values mcall_values = {11, {2, 1, 16, 0x4e, 16, 8, 15, 6, 15, 1, 0}};
static const Values asmcgocall_values = {11, {2, 1, 16, 0x81, 1, 15, 1, 16, 0x33, 15, 1}};
static const Values nanotime1_values = {14, {2, 1, 16, 7, 32, 0x9b, 1, 31, 1, 15, 1, 48, 0x0b, 0}};

typedef struct Row {
        uint32_t at;
        uint8_t cfa, reg;
        int32_t offset, offset2;
} Row;

typedef struct Fixture {
        uint8_t bytes[SIZE];
        GoTable table;
        GoFunction function;
} Fixture;

static void put32(uint8_t *p, uint32_t value)
{
        memcpy(p, &value, sizeof(value));
}

static void put64(uint8_t *p, uint64_t value)
{
        memcpy(p, &value, sizeof(value));
}

static void make(Fixture *f, const char *name, size_t size, const Values *values)
{
        uint8_t *t = f->bytes;

        memset(t, 0, SIZE);
        put32(t, 0xfffffff1U);
        t[6] = 1;
        t[7] = 8;
        put64(t + 8, 1);
        put64(t + 24, TEXT);
        put64(t + 32, NAMES);
        put64(t + 56, VALUES);
        put64(t + 64, FUNCTAB);
        put32(t + FUNCTAB + 4, FUNC - FUNCTAB);
        put32(t + FUNCTAB + 8, (uint32_t)size);
        put32(t + FUNC + 16, 1);
        t[FUNC + 41] = FLAG_SETS_SP;
        strcpy((char *)t + NAMES, name);
        memcpy(t + VALUES + 1, values->bytes, values->n);
        cr_assert(go_table_init(&f->table, t, SIZE));
        cr_assert(go_table_function(&f->table, 0, &f->function));
}

static void check(Fixture *f, const Code *code, const Row *rows, size_t n)
{
        uint64_t start, end, at = TEXT;
        const CfiRule *rule;
        const Row *row = rows;
        GoProgram p;

        go_program_init(&p, &f->table, &f->function, at_text(code));
        while (go_program_next(&p, &start, &end, &rule) == 0) {
                cr_assert(start == at && end > start);
                while (row + 1 < rows + n && start >= TEXT + row[1].at)
                        row++;
                cr_assert(row + 1 == rows + n || end <= TEXT + row[1].at, "at %#lx", start - TEXT);
                cr_expect_eq(rule->cfa, row->cfa, "%d at %#lx", rule->cfa, start - TEXT);
                cr_expect_eq(rule->cfa_reg, row->reg, "%d at %#lx", rule->cfa_reg, start - TEXT);
                cr_expect_eq(rule->cfa_offset, row->offset, "%d at %#lx", rule->cfa_offset,
                        start - TEXT);
                cr_expect_eq(rule->cfa_offset2, row->offset2);
                at = end;
        }
        cr_expect_eq(at, TEXT + code->n);
}

#define CHECK(name, code, values, ...)                                    \
        do {                                                              \
                const Row rows[] = {__VA_ARGS__};                         \
                                                                          \
                make(&f, name, (code).n, values);                         \
                check(&f, &(code), rows, sizeof(rows) / sizeof(rows[0])); \
        } while (0)

Test(go_code, systemstack)
{
        Fixture f;

        CHECK("runtime.systemstack", systemstack_1_26, &systemstack_values,
                {0, CFI_CFA_REG, X86_RSP, 8}, {1, CFI_CFA_REG, X86_RSP, 16},
                {0x42, CFI_CFA_GOROUTINE, 0, 16}, {0x6b, CFI_CFA_REG, X86_RSP, 16},
                {0x80, CFI_CFA_REG, X86_RSP, 8}, {0x81, CFI_CFA_REG, X86_RSP, 16},
                {0x88, CFI_CFA_REG, X86_RSP, 8});
        cr_expect_eq(f.table.places.g, -8);
        cr_expect_eq(f.table.places.m, 0x30);
        cr_expect_eq(f.table.places.curg, 0xb8);
        cr_expect_eq(f.table.places.sched, 0x38);
        CHECK("runtime.systemstack", systemstack_1_19, &no_frame, {0, CFI_CFA_REG, X86_RSP, 8},
                {0x41, CFI_CFA_GOROUTINE, 0, 8}, {0x6a, CFI_CFA_REG, X86_RSP, 8});
        cr_expect_eq(f.table.places.curg, 0xc0);
        cr_expect_eq(f.table.places.sched, 0x38);
}

/* Position-independent programs have the place of the g in a register first. */
Test(go_code, places_by_register)
{
        static const uint8_t from[] = {0x64, 0x48, 0x8b, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff};
        static const uint8_t to[] = {
                0x48, 0xc7, 0xc1, 0xf0, 0xff, 0xff, 0xff, 0x64, 0x48, 0x8b, 0x01};
        const Code *c = &systemstack_1_19;
        uint8_t bytes[256];
        Code code = {.n = c->n - sizeof(from) + sizeof(to), .bytes = bytes};
        GoProgram p;
        Fixture f;

        cr_assert_arr_eq(c->bytes + 5, from, sizeof(from));
        memcpy(bytes, c->bytes, 5);
        memcpy(bytes + 5, to, sizeof(to));
        memcpy(bytes + 5 + sizeof(to), c->bytes + 5 + sizeof(from), c->n - 5 - sizeof(from));
        make(&f, "runtime.systemstack", code.n, &no_frame);
        go_program_init(&p, &f.table, &f.function, at_text(&code));
        cr_expect_eq(f.table.places.g, -16);
        cr_expect_eq(f.table.places.m, 0x30);
        /* Without what tells of the g, nothing is known. */
        bytes[5 + 7] = 0x65;
        make(&f, "runtime.systemstack", code.n, &no_frame);
        go_program_init(&p, &f.table, &f.function, at_text(&code));
        cr_expect_eq(f.table.places.m, 0);
}

Test(go_code, other_switches)
{
        Fixture f;

        CHECK("runtime.morestack", morestack, &no_frame, {0, CFI_CFA_REG, X86_RSP, 8},
                {0x71, CFI_CFA_GO_CALLER});
        CHECK("runtime.mcall", mcall, &mcall_values, {0, CFI_CFA_REG, X86_RSP, 8},
                {1, CFI_CFA_REG, X86_RSP, 16}, {0x47, CFI_CFA_ROOT}, {0x5c, CFI_CFA_NONE});
        CHECK("runtime.asmcgocall", asmcgocall_1_19, &no_frame, {0, CFI_CFA_REG, X86_RSP, 8},
                {0x43, CFI_CFA_GOROUTINE, 0, 8}, {0x7e, CFI_CFA_REG, X86_RSP, 8},
                {0x87, CFI_CFA_NONE}, {0x99, CFI_CFA_DEREF, X86_RSP, 0x28, 8},
                {0xa9, CFI_CFA_REG, X86_RSP, 8});
        CHECK("runtime.asmcgocall", asmcgocall_1_26, &asmcgocall_values,
                {0, CFI_CFA_REG, X86_RSP, 8}, {1, CFI_CFA_REG, X86_RSP, 16},
                {0x47, CFI_CFA_GOROUTINE, 0, 16}, {0x7d, CFI_CFA_REG, X86_RSP, 16},
                {0x82, CFI_CFA_REG, X86_RSP, 8}, {0x83, CFI_CFA_REG, X86_RSP, 16},
                {0x94, CFI_CFA_NONE}, {0xa5, CFI_CFA_DEREF, X86_RSP, 0, 16},
                {0xb1, CFI_CFA_REG, X86_RSP, 16}, {0xb6, CFI_CFA_REG, X86_RSP, 8});
        /* The part behind "ret" is jumped to from where the stack was left. */
        CHECK("runtime.nanotime1", nanotime1, &nanotime1_values, {0, CFI_CFA_REG, X86_RSP, 8},
                {1, CFI_CFA_REG, X86_RSP, 16}, {8, CFI_CFA_REG, X86_RSP, 32},
                {0x4d, CFI_CFA_OTHER, X86_R12, 32}, {0x79, CFI_CFA_REG, X86_RSP, 32},
                {0xa3, CFI_CFA_REG, X86_RSP, 16}, {0xa4, CFI_CFA_REG, X86_RSP, 8},
                {0xa5, CFI_CFA_OTHER, X86_R12, 32});
        cr_expect_eq(f.table.places.vdso_sp, 0x380);
}

/* One that is not known, or of which there is no code, has rules up to where it sets rsp. */
Test(go_code, unknown)
{
        uint64_t start, end;
        const CfiRule *rule;
        GoProgram p;
        Fixture f;

        make(&f, "main.other", systemstack_1_19.n, &no_frame);
        go_program_init(&p, &f.table, &f.function, at_text(&systemstack_1_19));
        cr_assert_eq(go_program_next(&p, &start, &end, &rule), 0);
        cr_expect(rule->cfa == CFI_CFA_REG && end == TEXT + 0x41);
        cr_assert_eq(go_program_next(&p, &start, &end, &rule), 0);
        cr_expect_eq(rule->cfa, CFI_CFA_NONE);
        cr_expect_eq(f.table.places.m, 0);
        go_program_init(&p, &f.table, &f.function, (CfiBytes){0});
        cr_expect_eq(go_program_next(&p, &start, &end, &rule), 1);
}

/* All together no more is read than so many bytes. */
Test(go_code, bounded)
{
        Fixture f;
        GoProgram p;

        make(&f, "runtime.systemstack", systemstack_1_19.n, &no_frame);
        for (int i = 0; i < GO_CODE_BYTES_MAX; i++)
                go_program_init(&p, &f.table, &f.function, at_text(&systemstack_1_19));
        cr_expect_eq(f.table.code_left, 0);
        cr_expect_eq(p.stretches.n, 0);
}

/* Cut off anywhere, and with a byte of it changed: reads nothing beyond it (for the sanitizer). */
Test(go_code, hostile)
{
        const size_t size = asmcgocall_1_26.n;
        uint8_t bytes[256];
        static const char *const names[] = {"runtime.systemstack", "runtime.morestack",
                "runtime.mcall", "runtime.asmcgocall", "runtime.nanotime1", "main.main"};

        for (size_t i = 0; i < 2 * size; i++)
                for (size_t k = 0; k < 6; k++) {
                        size_t n = i < size ? i : size;
                        uint8_t *code = malloc(n ? n : 1);
                        uint64_t start, end;
                        const CfiRule *rule;
                        GoProgram p;
                        Fixture f;

                        cr_assert(code);
                        memcpy(bytes, asmcgocall_1_26.bytes, size);
                        if (i >= size)
                                bytes[i - size] ^= 0xff;
                        memcpy(code, bytes, n);
                        make(&f, names[k], size, &asmcgocall_values);
                        go_program_init(&p, &f.table, &f.function,
                                (CfiBytes){.p = code, .end = code + n, .vaddr = TEXT});
                        while (go_program_next(&p, &start, &end, &rule) == 0)
                                cr_assert(start < end && end <= f.function.end);
                        free(code);
                }
}
