/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "unwind/cfi-elf.h"

enum {
        CIE_PROGRAM_MAX = 1024, /* bytes; compilers write about 8 */
};

bool cfi_elf_is_usable(Elf *elf)
{
        GElf_Ehdr eh;

        return elf_kind(elf) == ELF_K_ELF && gelf_getehdr(elf, &eh) &&
               eh.e_ident[EI_CLASS] == ELFCLASS64 && eh.e_ident[EI_DATA] == ELFDATA2LSB &&
               eh.e_machine == EM_X86_64;
}

Elf_Scn *cfi_elf_section(Elf *elf, const char *name, GElf_Shdr *ret)
{
        size_t names;

        if (elf_getshdrstrndx(elf, &names) < 0)
                return NULL;
        for (Elf_Scn *s = elf_nextscn(elf, NULL); s; s = elf_nextscn(elf, s)) {
                GElf_Shdr sh;
                const char *n;

                if (!gelf_getshdr(s, &sh))
                        continue;
                n = elf_strptr(elf, names, sh.sh_name);
                if (n && strcmp(n, name) == 0 && sh.sh_type != SHT_NOBITS &&
                        sh.sh_size <= CFI_SECTION_MAX) {
                        *ret = sh;
                        return s;
                }
        }
        return NULL;
}

bool cfi_elf_cie(CfiCie *ret, const Dwarf_CIE *raw)
{
        CfiBytes program = {.p = raw->initial_instructions, .end = raw->initial_instructions_end};
        CfiBytes augmentation = {.p = raw->augmentation_data};

        if (augmentation.p)
                augmentation.end = augmentation.p + raw->augmentation_data_size;
        if (raw->return_address_register != X86_RIP || program.end - program.p > CIE_PROGRAM_MAX)
                return false;
        *ret = (CfiCie){
                .code_align = raw->code_alignment_factor, .data_align = raw->data_alignment_factor};
        return cfi_cie_augmentation(ret, raw->augmentation, augmentation) &&
               cfi_cie_run(ret, program) == 0;
}

bool cfi_elf_fde(const CfiCie *cie, CfiBytes *bytes, uint64_t *ret_start, uint64_t *ret_size)
{
        uint64_t skip;

        if (!cfi_bytes_address(bytes, cie->encoding, ret_start) ||
                !cfi_bytes_address(bytes, cie->encoding & 0x0f, ret_size))
                return false;
        if (!cie->augmented)
                return true;
        if (!cfi_bytes_uleb(bytes, &skip) || skip > (uint64_t)(bytes->end - bytes->p))
                return false;
        bytes->p += skip;
        bytes->vaddr += skip;
        return true;
}
