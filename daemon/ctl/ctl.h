/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * swprofctl: asks the daemon over its control socket and shows the answer. Data goes to stdout,
 * whole or not at all, and everything else to stderr.
 */

enum {
        CTL_EXIT_OK = 0,
        CTL_EXIT_FAILED = 1,
        CTL_EXIT_USAGE = 2,
        CTL_EXIT_NOT_RUNNING = 3,
        CTL_EXIT_DENIED = 5,
};

/* Return: the exit status, a CTL_EXIT_*. */
int ctl_main(int argc, char **argv);
