/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "capture/proc-thread.h"
#include "swprof-abi.h"

/* What bpf/python.bpf.h does, for a thread that stands: answers the request in `p` into `w`. Private to
 * this folder. */
void python_walk(ProcThread *t, uint64_t fsbase, struct swp_python *p, struct swp_python_walk *w);
