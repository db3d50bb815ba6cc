/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"
#include "oap/backend.h"
#include "util/list.h"

/*
 * Asks the backend for the tasks of each attached instance, and keeps instances without an agent
 * alive there if that is configured. One poll and one heartbeat of an instance at a time. First
 * polls of many instances are spread; daemons that began together do not march in step, see
 * poller_delay_ms(). An instance's userdata is ours. The time is the backend's `now`.
 */

typedef struct Pollers {
        Backend *backend;
        Core *core;
        const TaskSource *source; /* that tasks name */
        ListLink pollers;
} Pollers;

void pollers_init(Pollers *p, Backend *backend, Core *core, const TaskSource *source);
/* After the backend's calls were cancelled. */
void pollers_deinit(Pollers *p);

/* The instance's first poll is due, within moments unless many are. Return: 0, -ENOMEM. */
int pollers_add(Pollers *p, Instance *i);
/* Replies that are still to come for it are dropped. */
void pollers_remove(Pollers *p, Instance *i);

/*
 * From one poll to the next: the interval ± 10 %, after the first poll ± 50 %. So thousands of
 * daemons that a fleet's update starts at once poll evenly from their second poll on. `random`: 32
 * bits. Pure.
 */
uint32_t poller_delay_ms(uint32_t interval_ms, bool first, uint32_t random);

uint64_t pollers_next_mono_ns(const Pollers *p);
void pollers_step(Pollers *p);
