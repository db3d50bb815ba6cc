/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* loads LIBRARY [deleted]: loads a library, which is not there any more when it is called. */

static void leaf(void)
{
        pause();
}

int main(int argc, char **argv)
{
        void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
        int (*function)(void (*)(void)) = NULL;

        if (library)
                *(void **)&function = dlsym(library, "library_call");
        if (!function)
                return 1;
        if (argc > 2 && unlink(argv[1]) != 0)
                return 1;
        return function(leaf);
}
