/* SPDX-License-Identifier: Apache-2.0 */
/* Says where its function is, and waits to be killed. */
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) static void waits(void)
{
        for (;;)
                pause();
}

int main(void)
{
        printf("%p\n", (void *)waits);
        fflush(stdout);
        waits();
}
