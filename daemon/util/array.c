/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "util/array.h"
#include "util/error.h"

int array_reserve(void *array, size_t n, size_t *size, size_t element)
{
        void **p = array, *grown;

        if (n < *size)
                return 0;
        grown = realloc(*p, (2 * *size + 16) * element);
        if (!grown)
                return error_origin(-ENOMEM);
        *p = grown;
        *size = 2 * *size + 16;
        return 0;
}
