/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/progress.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "ctl/call.h"
#include "util/time.h"

static struct {
        uint64_t begin_mono_ns;
        unsigned duration_s;
        volatile sig_atomic_t interrupted;
} progress;

static void on_interrupt(int number)
{
        progress.interrupted = 1;
}

/* Short enough for 20 columns: a line that wraps could not be written over. */
static bool progress_tick(void *userdata)
{
        unsigned s = (unsigned)((mono_now_ns() - progress.begin_mono_ns) / NS_PER_S);

        if (isatty(STDERR_FILENO))
                fprintf(stderr, "\r%u of %u s", s, progress.duration_s);
        return !progress.interrupted;
}

void progress_begin(uint32_t duration_ms)
{
        struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};

        progress.begin_mono_ns = mono_now_ns();
        progress.duration_s = (duration_ms + 999) / 1000;
        sigaction(SIGINT, &action, NULL);
        call_set_tick(progress_tick, NULL);
}

void progress_end(void)
{
        call_set_tick(NULL, NULL);
        signal(SIGINT, SIG_DFL);
        if (isatty(STDERR_FILENO))
                fputs("\r\033[K", stderr);
}
