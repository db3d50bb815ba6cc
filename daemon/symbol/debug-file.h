/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "symbol/elf-file.h"

/*
 * Where the symbols and lines of a stripped binary are: in a separate debug file under
 * /usr/lib/debug (by build-id, or by the name in .gnu_debuglink), in the file that several debug
 * files share
 * (.gnu_debugaltlink, of dwz), and in the compressed .gnu_debugdata. What is found is checked to
 * belong to the binary. Files are looked for inside of a root directory, out of which no link
 * leads.
 */

/* `*ret_path`: malloc'ed, relative to the root, of the file that was found.
 * Return: 0 with *ret NULL when there is none; -ENOMEM. */
int debug_file_find(ElfFile **ret, char **ret_path, ElfFile *binary, int root_fd);

/* The shared file that the debug file at `path` refers to. Return: as above. */
int debug_file_find_alt(ElfFile **ret, ElfFile *debug, const char *path, int root_fd);

/* The symbols in .gnu_debugdata. Return: 0 with *ret NULL when there are none; -ENOMEM. */
int debug_file_unpack(ElfFile **ret, ElfFile *binary);
