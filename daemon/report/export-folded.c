/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>

#include "report/export.h"
#include "util/error.h"

/* A semicolon would end the frame, a line feed the stack; other control characters steer terminals. */
static void put_name(const char *name, FILE *f)
{
        for (const unsigned char *s = (const unsigned char *)name; *s; s++)
                if (*s == ';') {
                        putc_unlocked(':', f);
                } else if (*s < 0x20 || *s == 0x7f) {
                        putc_unlocked(' ', f);
                } else if (s[0] == 0xc2 && s[1] < 0xa0) {
                        putc_unlocked(' ', f);
                        s++;
                } else {
                        putc_unlocked(*s, f);
                }
}

static void put_stack(const Profile *p, uint32_t leaf, uint32_t *path, FILE *f)
{
        uint32_t depth = profile_stack(p, leaf, path);

        for (uint32_t i = 0; i < depth; i++) {
                if (i > 0)
                        putc_unlocked(';', f);
                put_name(p->frames[path[i]].signature, f);
        }
}

int export_folded(const Analysis *a, FILE *f)
{
        _cleanup_(freep) uint32_t *path = NULL;

        path = malloc(PROFILE_DEPTH_MAX * sizeof(*path));
        if (!path)
                return error_origin(-ENOMEM);
        for (uint32_t i = analysis_next(a, 0, false); i; i = analysis_next(a, i, false)) {
                uint64_t own_us = analysis_own_us(&a->places[i]);

                if (own_us == 0)
                        continue;
                put_stack(a->profile, i, path, f);
                fprintf(f, " %" PRIu64 "\n", own_us);
        }
        return 0;
}
