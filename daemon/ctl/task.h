/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* `swprofctl task start|list|stop`: the tasks of the local backend. */

struct Options;

typedef struct TaskOptions {
        const char *service;
        uint32_t threshold_ms, period_ms, count;
        bool wait;
} TaskOptions;

#define TASK_DEFAULTS                                            \
        {                                                        \
                .threshold_ms = 200, .period_ms = 10, .count = 5 \
        }

/* For getopt_long(), and the cases of a switch: values beyond those of others. */
enum { TASK_OPTION_THRESHOLD = 512, TASK_OPTION_PERIOD, TASK_OPTION_COUNT };
#define TASK_LONG_OPTIONS                                                      \
        {"service", required_argument, NULL, 'S'},                             \
                {"threshold", required_argument, NULL, TASK_OPTION_THRESHOLD}, \
                {"period", required_argument, NULL, TASK_OPTION_PERIOD},       \
                {"count", required_argument, NULL, TASK_OPTION_COUNT},         \
        {                                                                      \
                "wait", no_argument, NULL, 'w'                                 \
        }
#define TASK_OPTIONS                                                          \
        'S' : case 'w' : case TASK_OPTION_THRESHOLD : case TASK_OPTION_PERIOD \
            : case TASK_OPTION_COUNT

/* Takes one of them. Return: whether its value is one; else that was said. */
bool task_option(TaskOptions *o, int option, const char *value);

/* Return: an exit status. */
int task_run(const struct Options *o);
