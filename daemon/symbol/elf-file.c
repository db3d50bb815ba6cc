/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "symbol/elf-file.h"
#include "util/error.h"

/* Real files have some kilobytes of either. */
#define SECTION_NAMES_MAX (16u << 20)
#define NOTES_MAX         (1u << 20)

ElfFile *elf_file_free(ElfFile *f)
{
        if (!f)
                return NULL;
        elf_end(f->elf);
        if (f->fd >= 0)
                close(f->fd);
        free(f->bytes);
        free(f);
        return NULL;
}

/*
 * Looked at before libelf does, which believes the number of sections: more than 65279 of them
 * (e_shnum 0, the number is elsewhere) no executable has.
 */
static bool header_is_usable(const Elf64_Ehdr *h)
{
        return memcmp(h->e_ident, ELFMAG, SELFMAG) == 0 && h->e_ident[EI_CLASS] == ELFCLASS64 &&
               h->e_ident[EI_DATA] == ELFDATA2LSB && h->e_machine == EM_X86_64 &&
               (h->e_type == ET_EXEC || h->e_type == ET_DYN) &&
               (h->e_shnum != 0 || h->e_shoff == 0) && h->e_phnum != PN_XNUM;
}

/* libelf reads the section names as one piece. */
static bool section_names_are_usable(Elf *elf)
{
        GElf_Shdr shdr;
        size_t names;
        Elf_Scn *scn;

        if (elf_getshdrstrndx(elf, &names) != 0)
                return false;
        scn = elf_getscn(elf, names);
        return !scn || (gelf_getshdr(scn, &shdr) && shdr.sh_size <= SECTION_NAMES_MAX);
}

static bool build_id_find(ElfFile *f, Elf_Data *notes)
{
        GElf_Nhdr note;
        size_t name, desc;

        for (size_t at = 0; notes && (at = gelf_getnote(notes, at, &note, &name, &desc)) > 0;) {
                const unsigned char *bytes = notes->d_buf;

                if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != sizeof(ELF_NOTE_GNU) ||
                        memcmp(bytes + name, ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) != 0 ||
                        note.n_descsz == 0 || note.n_descsz > BUILD_ID_MAX)
                        continue;
                for (size_t i = 0; i < note.n_descsz; i++)
                        sprintf(f->build_id + 2 * i, "%02x", bytes[desc + i]);
                return true;
        }
        return false;
}

/* By section first: in separate debug files the segments' offsets mean nothing. */
static void build_id_read(ElfFile *f)
{
        size_t n_segments;

        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(f->elf, scn));) {
                GElf_Shdr shdr;

                if (gelf_getshdr(scn, &shdr) && shdr.sh_type == SHT_NOTE &&
                        shdr.sh_size <= NOTES_MAX && build_id_find(f, elf_getdata(scn, NULL)))
                        return;
        }
        if (elf_getphdrnum(f->elf, &n_segments) != 0)
                return;
        for (size_t i = 0; i < n_segments; i++) {
                GElf_Phdr phdr;

                if (gelf_getphdr(f->elf, (int)i, &phdr) && phdr.p_type == PT_NOTE &&
                        phdr.p_filesz <= NOTES_MAX &&
                        build_id_find(f, elf_getdata_rawchunk(f->elf, (int64_t)phdr.p_offset,
                                                 phdr.p_filesz, ELF_T_NHDR)))
                        return;
        }
}

static int elf_file_init(ElfFile **ret, ElfFile *f)
{
        if (!f->elf || elf_kind(f->elf) != ELF_K_ELF || !section_names_are_usable(f->elf))
                return ELF_FILE_E_BAD;
        build_id_read(f);
        *ret = f;
        return 0;
}

int elf_file_new(ElfFile **ret, int fd)
{
        _cleanup_(elf_file_freep) ElfFile *f = calloc(1, sizeof(*f));
        Elf64_Ehdr header;
        int r;

        if (!f) {
                close(fd);
                return error_origin(-ENOMEM);
        }
        f->fd = fd;
        if (pread(fd, &header, sizeof(header), 0) != sizeof(header) || !header_is_usable(&header))
                return ELF_FILE_E_BAD;
        elf_version(EV_CURRENT);
        f->elf = elf_begin(fd, ELF_C_READ, NULL);
        r = elf_file_init(ret, f);
        if (r == 0)
                f = NULL;
        return r;
}

int elf_file_new_memory(ElfFile **ret, void *bytes, size_t size)
{
        _cleanup_(elf_file_freep) ElfFile *f = calloc(1, sizeof(*f));
        Elf64_Ehdr header;
        int r;

        if (!f) {
                free(bytes);
                return error_origin(-ENOMEM);
        }
        f->fd = -1;
        f->bytes = bytes;
        if (size < sizeof(header))
                return ELF_FILE_E_BAD;
        memcpy(&header, bytes, sizeof(header));
        if (!header_is_usable(&header))
                return ELF_FILE_E_BAD;
        elf_version(EV_CURRENT);
        f->elf = elf_memory(bytes, size);
        r = elf_file_init(ret, f);
        if (r == 0)
                f = NULL;
        return r;
}

Elf_Scn *elf_file_section(ElfFile *f, const char *name, GElf_Shdr *ret_shdr)
{
        size_t names;

        if (elf_getshdrstrndx(f->elf, &names) != 0)
                return NULL;
        for (Elf_Scn *scn = NULL; (scn = elf_nextscn(f->elf, scn));) {
                GElf_Shdr shdr;
                const char *found;

                if (!gelf_getshdr(scn, &shdr) || shdr.sh_type == SHT_NOBITS)
                        continue;
                found = elf_strptr(f->elf, names, shdr.sh_name);
                if (found && strcmp(found, name) == 0) {
                        *ret_shdr = shdr;
                        return scn;
                }
        }
        return NULL;
}
