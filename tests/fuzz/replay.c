/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "util/cleanup.h"

/*
 * Runs the files and the directories of files that are named through a fuzzer, without libFuzzer:
 * each input that once mattered is a test of every build. Only a crash, or a file that cannot be
 * read, is a failure.
 */

static unsigned n_files;

static int replay_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        _cleanup_(fclosep) FILE *f = NULL;
        _cleanup_(freep) uint8_t *bytes = NULL;
        size_t size = (size_t)st->st_size;

        if (type != FTW_F)
                return 0;
        f = fopen(path, "re");
        /* Exactly as long as the file, for the sanitizer to see a read beyond it. */
        bytes = malloc(size ?: 1);
        if (!f || !bytes || fread(bytes, 1, size, f) != size) {
                fprintf(stderr, "%s: %s\n", path, strerror(errno));
                return -1;
        }
        LLVMFuzzerTestOneInput(bytes, size);
        n_files++;
        return 0;
}

int main(int argc, char **argv)
{
        for (int i = 1; i < argc; i++)
                if (nftw(argv[i], replay_file, 8, FTW_PHYS) != 0) {
                        fprintf(stderr, "%s: not replayed\n", argv[i]);
                        return 1;
                }
        printf("%u inputs\n", n_files);
        return n_files == 0;
}
