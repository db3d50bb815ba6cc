/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "unwind/cfi-elf.h"

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
