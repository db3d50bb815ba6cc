/* SPDX-License-Identifier: Apache-2.0 */
#include "util/owner.h"

#include <stdio.h>
#include <sys/stat.h>

Owner owner_of(pid_t pid, uid_t uid)
{
        char state;
        unsigned long long real, effective, saved, fs;
        char path[64], line[256];
        Owner owner = OWNER_GONE;
        struct stat st;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
        if (stat(path, &st) < 0)
                return OWNER_GONE;
        snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
        f = fopen(path, "re");
        if (!f)
                return OWNER_GONE;
        while (fgets(line, sizeof(line), f)) {
                /* The files of one that has ended are root's, whoever ran it. */
                if (sscanf(line, "State: %c", &state) == 1 && (state == 'Z' || state == 'X'))
                        break;
                if (sscanf(line, "Uid: %llu %llu %llu %llu", &real, &effective, &saved, &fs) == 4) {
                        owner = st.st_uid == uid && real == uid && effective == uid && saved == uid
                                        ? OWNER_SELF
                                        : OWNER_OTHER;
                        break;
                }
        }
        fclose(f);
        return owner;
}
