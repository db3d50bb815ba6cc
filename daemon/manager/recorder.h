/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "core/config.h"

/*
 * `swprofd --record`: captures of one thread in a file (unwind/recording.h), to find out later why
 * its stack reads as it does, and to be a test from then on. Alone in its process; no daemon is
 * needed, none is disturbed.
 */

enum {
        RECORDER_CAPTURES_MAX = 1000, /* they are held in memory, up to 64 KiB each */
};

typedef struct RecorderOptions {
        const char *path; /* of the file to be made */
        pid_t pid, tid;
        unsigned n_captures;
        uint32_t interval_ms;
} RecorderOptions;

/*
 * Logs what it does and what it cannot do. Nothing is written before all captures are taken; the
 * file must not exist, and is readable by its owner alone.
 * Return: 0; RECORDER_E_FAILED: logged, no file is left; -errno.
 */
enum {
        _RECORDER_E_SUCCESS,
        RECORDER_E_FAILED,
};
int recorder_run(const Config *config, const RecorderOptions *options);
