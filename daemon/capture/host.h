/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

/* What this process may do on this host, asked of the kernel. */

/* CAP_*, of linux/capability.h. */
bool host_has_capability(unsigned capability);
/* By the kernel's lockdown mode "confidentiality", which forbids BPF to read memory. */
bool host_is_locked_down(void);
/* Opens the event that shots use, on the calling thread. Return: 0, -errno. */
int host_try_perf_event(void);
