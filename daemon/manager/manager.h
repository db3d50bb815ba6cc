/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "core/config.h"
#include "util/cleanup.h"

/*
 * Builds the daemon from its parts and runs its main thread: one sd-event loop (libsystemd's:
 * sockets, timers, signals, socket activation and the watchdog in one well-kept library).
 */

typedef struct Manager Manager;

/* Reads the configuration anew on SIGHUP and `swprofctl reload`: file and command line as at start.
 * Logs what is wrong. Return: 0, CONFIG_E_INVALID (logged), -errno. */
typedef int (*ManagerLoadConfig)(void *userdata, Config *ret);

/* Whether the files that a configuration names do; which do not is logged. Return: 0,
 * CONFIG_E_INVALID, -ENOMEM. */
int manager_check_config(const Config *config);

/*
 * Binds the sockets (or takes the passed ones), loads the BPF programs, starts the threads.
 * SIGTERM, SIGINT and SIGHUP must be blocked by the caller, before any thread exists. Takes *config
 * over on success. Logs why it fails. Return: 0, -errno.
 */
int manager_new(Manager **ret, Config *config, const char *config_file, ManagerLoadConfig load,
        void *userdata);
Manager *manager_free(Manager *m);
DEFINE_CLEANUP(Manager *, manager_free)

/* Tells systemd READY and runs until SIGTERM or SIGINT; then hands out what the live segments have
 * and sends it, for at most 1.8 s. Return: 0, -errno. */
int manager_run(Manager *m);
