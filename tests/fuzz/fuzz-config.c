/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "fuzz.h"

static char *env_of_nothing(const char *name)
{
        return NULL;
}

/* The canonical form of what is accepted must be accepted, and be its own. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *error = NULL, *once, *twice;
        Config c;
        int r = config_parse(&c, "fuzz", (const char *)data, size, env_of_nothing, &error);

        if (r) {
                if (r > 0 && (!error || strncmp(error, "fuzz:", 5) != 0))
                        abort();
                free(error);
                return 0;
        }
        once = config_format(&c);
        config_deinit(&c);
        if (!once || config_parse(&c, "once", once, strlen(once), env_of_nothing, &error) != 0)
                abort();
        twice = config_format(&c);
        config_deinit(&c);
        if (!twice || strcmp(once, twice) != 0)
                abort();
        free(once);
        free(twice);
        return 0;
}
