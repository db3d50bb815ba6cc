/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/* Of what the daemon takes its time for: on a terminal stderr says how far it is, and an interrupt
 * ends it early, with what there is by then; a second one ends this program. */

/* Before daemon_call. */
void progress_begin(uint32_t duration_ms);
void progress_end(void);
