/* SPDX-License-Identifier: Apache-2.0 */

/* What `loads` and `stub` call. */

int library_call(void (*function)(void));
void library_function(void);

static int __attribute__((noipa)) library_inner(void (*function)(void))
{
        char local[100];

        function();
        __asm__ volatile("" : : "r"(local) : "memory");
        return 1;
}

int __attribute__((visibility("default"))) library_call(void (*function)(void))
{
        return library_inner(function) + 1;
}

void __attribute__((visibility("default"))) library_function(void)
{
}
