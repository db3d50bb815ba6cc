/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <inttypes.h>
#include <libelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/unwind.h"
#include "util/time.h"

/*
 * What tables and unwinding cost: "unwind-bench FILE…" builds the table of each file, and then
 * unwinds a made-up stack through the first file's code, which visits as many different rows.
 */

enum {
        N_BUILDS = 5,
        N_FRAMES = 64,
        N_STACKS = 256,
        N_ROUNDS = 10, /* of all stacks, in one measurement */
        N_MEASUREMENTS = 41,
        STACK_WORDS = N_FRAMES * 64,
};

static uint64_t state = 1;

static uint64_t random_u64(void)
{
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
}

static Elf *open_elf(const char *path)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        return fd < 0 ? NULL : elf_begin(fd, ELF_C_READ_MMAP, NULL); /* both live as long as we */
}

static CfiTable *bench_build(const char *path)
{
        uint64_t best_ns = UINT64_MAX;
        CfiTable *t = NULL;

        for (int i = 0; i < N_BUILDS; i++) {
                Elf *elf = open_elf(path);
                uint64_t begin_ns = mono_now_ns(), ns;

                t = cfi_table_free(t);
                if (!elf || cfi_table_new(&t, elf, NULL) != 0) {
                        fprintf(stderr, "%s: not a usable ELF file\n", path);
                        return NULL;
                }
                ns = mono_now_ns() - begin_ns;
                if (ns < best_ns)
                        best_ns = ns;
        }
        printf("%-60s %8zu rows %5zu rules %8zu KiB %8.2f ms\n", path, cfi_table_n_rows(t),
                cfi_table_n_rules(t), cfi_table_bytes(t) / 1024, (double)best_ns / NS_PER_MS);
        return t;
}

/* A frame of rsp alone, whose registers are saved in it. */
static bool is_plain(const CfiRule *rule)
{
        if (rule->cfa != CFI_CFA_REG || rule->cfa_reg != X86_RSP || rule->cfa_offset <= 0 ||
                rule->cfa_offset > 256 || rule->cfa_offset % 8 != 0)
                return false;
        for (unsigned reg = 0; reg < N_REGS; reg++)
                if (rule->how[reg] != CFI_REG_SAME &&
                        (rule->how[reg] != CFI_REG_OFFSET || rule->offset[reg] >= 0 ||
                                rule->offset[reg] < -rule->cfa_offset))
                        return false;
        return rule->offset[X86_RIP] == -8;
}

/* A stack whose return addresses lie in functions with rsp-based frames. */
static size_t make_stack(
        const CfiTable *t, uint64_t text_size, uint64_t base, StackCopy *copy, uint64_t *words)
{
        size_t at = 0, n = 0;

        memset(words, 0, STACK_WORDS * sizeof(*words));
        copy->addr = 0x7ffc00000000;
        copy->n = STACK_WORDS * sizeof(*words);
        copy->bytes = (const uint8_t *)words;
        copy->regs = (UnwindRegs){.r = {[X86_RSP] = copy->addr}};
        while (n < N_FRAMES) {
                uint64_t pc = random_u64() % text_size;
                const CfiRule *rule = cfi_table_find(t, n == 0 ? pc : pc - 1);

                if (!is_plain(rule))
                        continue;
                if (n == 0)
                        copy->regs.r[X86_RIP] = base + pc;
                else
                        words[at - 1] = base + pc;
                at += rule->cfa_offset / 8;
                n++;
        }
        return n; /* the last return address is 0: the root */
}

static int compare_doubles(const void *a, const void *b)
{
        double x, y;

        memcpy(&x, a, sizeof(x));
        memcpy(&y, b, sizeof(y));
        return (x > y) - (x < y);
}

static void bench_unwind(CfiTable *t)
{
        static uint64_t words[N_STACKS][STACK_WORDS];
        static StackCopy copies[N_STACKS];
        const uint64_t text_size = 64 << 20, base = 0x7f0000000000;
        ModuleSegment segment = {.filesz = text_size};
        Module *m = module_new("bench", t, 1, &segment);
        char maps[128];
        Frame frames[N_FRAMES + 1];
        ProcMap *map;
        size_t n = 0;

        snprintf(maps, sizeof(maps), "%" PRIx64 "-%" PRIx64 " r-xp 00000000 fe:00 7 /bench\n", base,
                base + text_size);
        if (!m || procmap_parse(&map, maps, strlen(maps)) != 0)
                return;
        map->mappings[0].module = m;
        for (int i = 0; i < N_STACKS; i++)
                make_stack(t, text_size, base, &copies[i], words[i]);
        for (int n_stacks = 1; n_stacks <= N_STACKS; n_stacks *= N_STACKS) {
                double ns[N_MEASUREMENTS];

                for (size_t k = 0; k < N_MEASUREMENTS; k++) {
                        uint64_t begin_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);

                        n = 0;
                        for (int i = 0; i < N_ROUNDS * N_STACKS; i++)
                                n += unwind_cfi(&copies[i % n_stacks], map, frames, N_FRAMES + 1)
                                             .n_frames;
                        ns[k] = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin_ns) / n;
                }
                qsort(ns, N_MEASUREMENTS, sizeof(*ns), compare_doubles);
                printf("%3d different stacks of %d frames: %.1f ns/frame (%.1f to %.1f)\n",
                        n_stacks, N_FRAMES, ns[N_MEASUREMENTS / 2], ns[0], ns[N_MEASUREMENTS - 1]);
        }
        procmap_unref(map);
}

int main(int argc, char **argv)
{
        CfiTable *first = NULL;

        elf_version(EV_CURRENT);
        for (int i = 1; i < argc; i++) {
                CfiTable *t = bench_build(argv[i]);

                if (!first)
                        first = t;
                else
                        cfi_table_free(t);
        }
        if (first)
                bench_unwind(first);
        return 0;
}
