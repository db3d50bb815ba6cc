/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ctl/ctl.h"

int output_take(char *text)
{
        bool good = fputs(text, stdout) >= 0 && fflush(stdout) == 0;

        free(text);
        if (good)
                return CTL_EXIT_OK;
        fprintf(stderr, "swprofctl: cannot write: %s\n", strerror(errno));
        return CTL_EXIT_FAILED;
}

bool output_wants_colour(void)
{
        const char *no = getenv("NO_COLOR");

        return isatty(STDOUT_FILENO) && !(no && *no);
}

unsigned output_width(void)
{
        struct winsize size;

        if (!isatty(STDOUT_FILENO))
                return 0;
        return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}
