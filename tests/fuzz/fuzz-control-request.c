/* SPDX-License-Identifier: Apache-2.0 */
#include "control.pb-c.h"
#include "control/server.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Swprof__Control__Request *request = control_request_parse(data, size);

        if (request)
                swprof__control__request__free_unpacked(request, NULL);
        return 0;
}
