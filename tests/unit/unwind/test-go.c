/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/cfi-go-code.h"

/* A function table as Go's linker writes it, by hand. */

enum {
        TEXT = 0x401000,
        FUNCTAB = 72,
        N_FUNCTIONS = 6,
        FUNCS = FUNCTAB + 8 * N_FUNCTIONS + 4,
        FUNC_SIZE = 44,
        NAMES = FUNCS + N_FUNCTIONS * FUNC_SIZE,
        VALUES = NAMES + 160,
        SIZE = VALUES + 16,
        FUNCTION_SIZE = 0x40, /* bytes of code of each */
};

static const struct {
        const char *name;
        uint8_t flags;
} functions[N_FUNCTIONS] = {
        {"main.work", 0},
        {"runtime.goexit", 1},
        {"runtime.rt0_go", 3},
        {"runtime.execute", 0},
        {"runtime.sigreturn__sigaction", 0},
        {"main.odd", 0},
};

static void put32(uint8_t *p, uint32_t value)
{
        memcpy(p, &value, sizeof(value));
}

static void put64(uint8_t *p, uint64_t value)
{
        memcpy(p, &value, sizeof(value));
}

static void make(uint8_t *t, uint8_t magic)
{
        uint32_t name = 0;

        memset(t, 0, SIZE);
        put32(t, 0xffffff00U | magic);
        t[6] = 1;
        t[7] = 8;
        put64(t + 8, N_FUNCTIONS);
        put64(t + 24, TEXT);
        put64(t + 32, NAMES);
        put64(t + 56, VALUES);
        put64(t + 64, FUNCTAB);
        for (uint32_t i = 0; i < N_FUNCTIONS; i++) {
                uint32_t at = FUNCS + FUNC_SIZE * i;

                put32(t + FUNCTAB + 8 * i, FUNCTION_SIZE * i);
                put32(t + FUNCTAB + 8 * i + 4, at - FUNCTAB);
                put32(t + at + 4, name);
                put32(t + at + 16, i == N_FUNCTIONS - 1 ? 9 : 1);
                t[at + (magic == 0xf0 ? 37 : 41)] = functions[i].flags;
                strcpy((char *)t + NAMES + name, functions[i].name);
                name += (uint32_t)strlen(functions[i].name) + 1;
        }
        put32(t + FUNCTAB + 8 * N_FUNCTIONS, FUNCTION_SIZE * N_FUNCTIONS);
        /* -1 + 1 = 0 for 4 bytes, + 24 for 0x30, - 24 for 2, and the end. */
        memcpy(t + VALUES + 1, (const uint8_t[]){2, 4, 48, 0x30, 47, 2, 0}, 7);
        /* -1 + 4 = 3: no frame has such a size. */
        memcpy(t + VALUES + 9, (const uint8_t[]){8, 4, 0}, 3);
}

static void check(uint8_t magic)
{
        static const struct {
                uint64_t start, end;
                int32_t offset;
        } rows[] = {
                {TEXT, TEXT + 4, 8}, {TEXT + 4, TEXT + 0x34, 32}, {TEXT + 0x34, TEXT + 0x36, 8}};
        static const CfiCfa kinds[N_FUNCTIONS] = {
                0, CFI_CFA_ROOT, CFI_CFA_ROOT, CFI_CFA_GO_NEXT, CFI_CFA_SIGNAL, 0};
        uint64_t start, end;
        const CfiRule *rule;
        uint8_t bytes[SIZE];
        GoFunction f;
        GoProgram p;
        GoTable t;

        make(bytes, magic);
        cr_assert(go_table_init(&t, bytes, SIZE));
        cr_assert_eq(t.n_functions, N_FUNCTIONS);
        cr_assert(go_table_function(&t, 0, &f));
        go_program_init(&p, &t, &f, (CfiBytes){0});
        for (size_t i = 0; i < 3; i++) {
                cr_assert_eq(go_program_next(&p, &start, &end, &rule), 0);
                cr_expect_eq(start, rows[i].start);
                cr_expect_eq(end, rows[i].end);
                cr_expect_eq(rule->cfa, CFI_CFA_REG);
                cr_expect_eq(rule->cfa_reg, X86_RSP);
                cr_expect_eq(rule->cfa_offset, rows[i].offset);
                cr_expect_eq(rule->how[X86_RIP], CFI_REG_OFFSET);
                cr_expect_eq(rule->offset[X86_RIP], -8);
                cr_expect(rule->undef & 1 << X86_RBP);
        }
        cr_assert_eq(go_program_next(&p, &start, &end, &rule), 1);
        for (size_t i = 1; i < N_FUNCTIONS - 1; i++) {
                cr_assert(go_table_function(&t, i, &f));
                cr_expect_str_eq((const char *)f.name.p, functions[i].name);
                go_program_init(&p, &t, &f, (CfiBytes){0});
                cr_assert_eq(go_program_next(&p, &start, &end, &rule), 0);
                cr_expect_eq(rule->cfa, kinds[i], "%s", f.name);
                /* What a handler returns to is a call's last byte, as it were. */
                cr_expect_eq(start, TEXT + i * FUNCTION_SIZE - (kinds[i] == CFI_CFA_SIGNAL));
                if (kinds[i] != CFI_CFA_GO_NEXT)
                        cr_expect_eq(end, TEXT + (i + 1) * FUNCTION_SIZE);
        }
        cr_assert(go_table_function(&t, N_FUNCTIONS - 1, &f));
        go_program_init(&p, &t, &f, (CfiBytes){0});
        cr_expect_eq(go_program_next(&p, &start, &end, &rule), 1);
}

Test(go, functions)
{
        check(0xf0); /* 1.18 */
        check(0xf1); /* 1.20 */
}

Test(go, goexit)
{
        static const uint8_t code[] = {0x90, 0xe8, 1, 2, 3, 4, 0x90}, other[sizeof(code)];
        uint8_t bytes[SIZE];
        GoFunction f;
        GoTable t;

        make(bytes, 0xf1);
        cr_assert(go_table_init(&t, bytes, SIZE));
        cr_assert(go_table_goexit(&t, &f));
        cr_expect_eq(f.start, TEXT + FUNCTION_SIZE);
        cr_expect(go_function_is_goexit(&f, (CfiBytes){.p = code, .end = code + sizeof(code)}));
        cr_expect_not(go_function_is_goexit(&f, (CfiBytes){.p = code, .end = code + 6}));
        cr_expect_not(
                go_function_is_goexit(&f, (CfiBytes){.p = other, .end = other + sizeof(other)}));
}

/* What is behind a function that is below the one before it is not looked at. */
Test(go, descending)
{
        uint8_t bytes[SIZE];
        GoTable t;

        make(bytes, 0xf1);
        put32(bytes + FUNCTAB + 8 * 3, FUNCTION_SIZE * 2 - 1);
        cr_assert(go_table_init(&t, bytes, SIZE));
        cr_expect_eq(t.n_functions, 2);
}

/* A name that nothing ends is none that is known, and not searched for its end. */
Test(go, endless_name)
{
        const size_t size = SIZE + sizeof("runtime.goexit") - 1;
        uint8_t *bytes = calloc(1, size);
        GoFunction f;
        GoTable t;

        cr_assert(bytes);
        make(bytes, 0xf1);
        memcpy(bytes + SIZE, "runtime.goexit", size - SIZE);
        put32(bytes + FUNCS + 4, SIZE - NAMES);
        put32(bytes + FUNCS + FUNC_SIZE + 4, SIZE - NAMES);
        cr_assert(go_table_init(&t, bytes, size));
        cr_expect(go_table_function(&t, 0, &f));
        cr_expect_not(go_table_goexit(&t, &f));
        free(bytes);
}

/* Numbers have 32 bits, and no more bytes than those take. */
Test(go, endless_number)
{
        uint8_t bytes[SIZE];
        const CfiRule *rule;
        uint64_t start, end;
        GoFunction f;
        GoProgram p;
        GoTable t;

        make(bytes, 0xf1);
        memcpy(bytes + VALUES + 1, (const uint8_t[]){0x82, 0x80, 0x80, 0x80, 0x80, 0, 4}, 7);
        cr_assert(go_table_init(&t, bytes, SIZE));
        cr_assert(go_table_function(&t, 0, &f));
        go_program_init(&p, &t, &f, (CfiBytes){0});
        cr_expect_eq(go_program_next(&p, &start, &end, &rule), 1);
}

/* Many functions share a long list: the steps are bounded all the same. */
Test(go, shared_list)
{
        enum {
                N = 1024,
                PAIRS = 1 << 16, /* and as many bytes of code in each */
                RECORD = FUNCTAB + 8 * N + 4,
                LIST = RECORD + FUNC_SIZE,
                LIST_SIZE = 2 * PAIRS + 1,
        };
        uint8_t *bytes = calloc(1, LIST + LIST_SIZE);
        size_t n_steps = 0;
        GoTable t;

        cr_assert(bytes);
        make(bytes, 0xf1);
        memset(bytes + FUNCTAB, 0, LIST - FUNCTAB);
        put64(bytes + 8, N);
        put64(bytes + 32, LIST + LIST_SIZE - 1);
        put64(bytes + 56, LIST - 1);
        for (uint32_t i = 0; i <= N; i++) {
                put32(bytes + FUNCTAB + 8 * i, PAIRS * i);
                if (i < N)
                        put32(bytes + FUNCTAB + 8 * i + 4, RECORD - FUNCTAB);
        }
        put32(bytes + RECORD + 16, 1);
        for (size_t i = 0; i < PAIRS; i++) {
                bytes[LIST + 2 * i] = i == 0 ? 2 : i % 2 ? 32 : 31; /* -1 + 1, + 16, - 16, … */
                bytes[LIST + 2 * i + 1] = 1;
        }
        cr_assert(go_table_init(&t, bytes, LIST + LIST_SIZE));
        cr_assert_eq(t.n_functions, N);
        for (size_t i = 0; i < N; i++) {
                const CfiRule *rule;
                uint64_t start, end;
                GoFunction f;
                GoProgram p;

                cr_assert(go_table_function(&t, i, &f));
                go_program_init(&p, &t, &f, (CfiBytes){0});
                while (go_program_next(&p, &start, &end, &rule) == 0)
                        n_steps++;
        }
        cr_expect_eq(n_steps, GO_ROWS_MAX);
        free(bytes);
}

/* Cut off anywhere, and with a byte of it changed: reads nothing beyond it (for the sanitizer). */
Test(go, hostile)
{
        uint8_t bytes[SIZE];

        for (size_t i = 0; i < 2 * SIZE; i++) {
                size_t n = i < SIZE ? i : SIZE;
                uint8_t *copy = malloc(n + 1);
                GoTable t;

                cr_assert(copy);
                make(bytes, 0xf1);
                if (i >= SIZE)
                        bytes[i - SIZE] ^= 0xff;
                memcpy(copy, bytes, n);
                copy = realloc(copy, n ? n : 1);
                for (size_t k = 0; go_table_init(&t, copy, n) && k < t.n_functions && k < 10; k++) {
                        uint64_t start, end;
                        const CfiRule *rule;
                        GoFunction f;
                        GoProgram p;

                        if (!go_table_function(&t, k, &f))
                                continue;
                        go_program_init(&p, &t, &f, (CfiBytes){0});
                        while (go_program_next(&p, &start, &end, &rule) == 0)
                                cr_assert(start < end && end <= f.end);
                }
                free(copy);
        }
}
