/* SPDX-License-Identifier: Apache-2.0 */

/* Lines "MINOR FIRST_LINE N_UNITS TABLE" (hexadecimal, or "-") on standard input → the source line of each
 * instruction, as the daemon tells it. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpython-lines.h"

int main(void)
{
        static char hex[4 << 20];
        static uint8_t table[sizeof(hex) / 2];
        unsigned minor, n_units;
        int first;

        while (scanf("%u %d %u %4194303s", &minor, &first, &n_units, hex) == 4) {
                size_t n = hex[0] == '-' ? 0 : strlen(hex) / 2;

                for (size_t i = 0; i < n; i++) {
                        unsigned byte;

                        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
                                return EXIT_FAILURE;
                        table[i] = (uint8_t)byte;
                }
                for (unsigned unit = 0; unit < n_units; unit++)
                        printf("%d ", cpython_line(minor, table, n, first, unit));
                putchar('\n');
        }
        return EXIT_SUCCESS;
}
