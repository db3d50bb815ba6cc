/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "fuzz.h"
#include "oap/codec.h"

static void check(void *userdata, const TaskCommand *command)
{
        unsigned *n = userdata;

        if (!command->task_id || !command->endpoint || ++*n > 1024)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        unsigned n = 0;
        int r = codec_commands(data, size, check, &n);

        if (r != 0 && r != CODEC_E_MALFORMED)
                abort();
        return 0;
}
