/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/host.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"

bool host_has_capability(unsigned capability)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

        return syscall(SYS_capget, &header, data) == 0 &&
               (data[capability / 32].effective & 1U << capability % 32);
}

bool host_is_locked_down(void)
{
        _cleanup_(fclosep) FILE *f = fopen("/sys/kernel/security/lockdown", "re");
        char line[128];

        return f && fgets(line, sizeof(line), f) && strstr(line, "[confidentiality]");
}

int host_try_perf_event(void)
{
        struct perf_event_attr attr = {
                .size = sizeof(attr),
                .type = PERF_TYPE_SOFTWARE,
                .config = PERF_COUNT_SW_TASK_CLOCK,
                .sample_period = 10000,
                .disabled = 1,
        };
        int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

        if (fd < 0)
                return error_origin(-errno);
        close(fd);
        return 0;
}
