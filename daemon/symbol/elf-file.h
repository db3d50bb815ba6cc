/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <gelf.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * An opened ELF file and what its Elf handle reads from: a descriptor or a piece of memory.
 *
 * Files are read (ELF_C_READ), not mapped: a file that its owner truncates while it is mapped would
 * kill us with SIGBUS. libelf then reads the headers, and each section when it is asked for.
 */

#define BUILD_ID_MAX 64

typedef struct ElfFile {
        int fd;      /* -1: memory */
        void *bytes; /* NULL: a descriptor */
        Elf *elf;
        char build_id[2 * BUILD_ID_MAX + 1]; /* hex, "" when it has none */
} ElfFile;

enum {
        _ELF_FILE_E_SUCCESS,
        ELF_FILE_E_BAD, /* not an x86-64 executable or library */
};

/* Take over fd, or bytes (malloc'ed), on failure, too. Return: 0, ELF_FILE_E_BAD, -ENOMEM. */
int elf_file_new(ElfFile **ret, int fd);
int elf_file_new_memory(ElfFile **ret, void *bytes, size_t size);
ElfFile *elf_file_free(ElfFile *f);
DEFINE_CLEANUP(ElfFile *, elf_file_free)

/* The first section of that name that has contents in the file, or NULL. */
Elf_Scn *elf_file_section(ElfFile *f, const char *name, GElf_Shdr *ret_shdr);
