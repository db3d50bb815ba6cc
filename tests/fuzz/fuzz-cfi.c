/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "unwind/unwind.h"

/*
 * The first bytes are registers and stack, the others an ELF file, mapped where the registers point
 * to: whatever they are, the table is in order and the walk ends.
 */

enum {
        STACK_SIZE = 512, /* after the registers */
        FRAMES_MAX = 64,
};

#define TEXT  0x400000UL
#define STACK 0x7ffc00000000UL
#define OTHER 0x7ffb00000000UL

static const char maps[] = "400000-800000 r-xp 00000000 fe:00 7 /file\n"
                           "a00000-a01000 r-xp 00000000 00:00 0 \n";

static void walk(const uint8_t *bytes, CfiTable *t)
{
        ModuleSegment segment = {.filesz = 0x400000};
        Module *m = module_new("file", t, 1, &segment);
        /* The other stack has the same bytes. */
        StackCopy copy = {.addr = STACK,
                .n = STACK_SIZE,
                .bytes = bytes + sizeof(copy.regs),
                .other_addr = OTHER,
                .other_n = STACK_SIZE,
                .other_bytes = bytes + sizeof(copy.regs),
                .code = bytes + sizeof(copy.regs),
                .n_code = 128};
        Frame frames[FRAMES_MAX];
        ProcMap *map = NULL;
        UnwindResult r;

        if (!m || procmap_parse(&map, maps, sizeof(maps) - 1) != 0)
                abort();
        memcpy(&copy.regs, bytes, sizeof(copy.regs));
        copy.go_sp = copy.regs.r[X86_R14];
        copy.go_pc = copy.regs.r[X86_R15];
        map->mappings[0].module = m;
        r = unwind_cfi(&copy, map, frames, FRAMES_MAX);
        if (r.n_frames > FRAMES_MAX ||
                (r.status == UNWIND_TRUNCATED && !r.other && r.need_end <= STACK + STACK_SIZE) ||
                (r.status == UNWIND_OTHER_STACK && !r.other))
                abort();
        r = unwind_fp(&copy, map, frames, FRAMES_MAX);
        if (r.n_frames > FRAMES_MAX)
                abort();
        procmap_unref(map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const size_t head = sizeof(UnwindRegs) + STACK_SIZE;
        CfiTable *t = NULL;
        char *image;
        Elf *elf;

        if (size <= head)
                return 0;
        image = malloc(size - head);
        if (!image)
                return 0;
        memcpy(image, data + head, size - head);
        elf_version(EV_CURRENT);
        elf = elf_memory(image, size - head);
        if (elf && cfi_table_new(&t, elf, NULL) == 0) {
                for (uint64_t at = 0; at < size; at += 7)
                        if (cfi_table_find(t, at)->cfa > CFI_CFA_GO_CALLER)
                                abort();
                walk(data, t);
        }
        if (elf && cfi_table_new_lazy(&t, elf) == 0) {
                for (uint64_t at = 0; at < size; at += 7)
                        if (cfi_table_find(t, at)->cfa > CFI_CFA_UNREAD)
                                abort();
                walk(data, t);
        }
        elf_end(elf);
        free(image);
        return 0;
}
