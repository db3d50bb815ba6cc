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

static struct winsize terminal_size(void)
{
        struct winsize size = {0};

        if (!isatty(STDOUT_FILENO))
                return size;
        ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
        size.ws_col = size.ws_col ?: 80;
        size.ws_row = size.ws_row ?: 24;
        return size;
}

unsigned output_width(void)
{
        return terminal_size().ws_col;
}

unsigned output_height(void)
{
        return terminal_size().ws_row;
}
