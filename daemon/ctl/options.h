/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control.pb-c.h"
#include "ctl/report.h"
#include "ctl/task.h"

/* What the command line says. */
typedef struct Options {
        const char *socket;
        unsigned timeout_s;
        bool json;
        uint32_t duration_ms; /* 0: not given */
        uint32_t interval_ms;
        unsigned iterations;      /* 0: not given */
        const char *arguments[2]; /* of the verb; NULL: not given */
        ReportOptions report;
        TaskOptions task;
} Options;

/* A large database takes longer. */
enum { CTL_RESULTS_S = 30 };

/*
 * Asks the daemon, and waits for up to more_s longer than usual. Says what goes wrong. The reply, also
 * of another kind than the wanted one, is freed with swprof__control__reply__free_unpacked. Return: an
 * exit status.
 */
int ctl_ask(const Options *o, Swprof__Control__Request *request, unsigned more_s, int result_case,
        Swprof__Control__Reply **ret);
