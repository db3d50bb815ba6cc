/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/shot.h"

#include <assert.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/error.h"

#define PERIOD_NS 10000 /* the least that the kernel's timer takes */

static int open_event(Shot *s, CaptureBpf *b, pid_t tid, uint32_t slot)
{
        struct perf_event_attr attr = {
                .size = sizeof(attr),
                .type = PERF_TYPE_SOFTWARE,
                .config = PERF_COUNT_SW_TASK_CLOCK,
                .sample_period = PERIOD_NS,
                .disabled = 1,
        };
        _cleanup_(closep) int fd = -1;
        int r;

        fd = (int)syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
        if (fd < 0)
                return error_origin(-errno);
        r = capture_bpf_link_shot(b, fd, slot);
        if (r < 0)
                return error_trace(r);
        s->link_fd = r;
        s->perf_fd = TAKE_FD(fd);
        return 0;
}

int shot_fire(Shot *s, CaptureBpf *b, pid_t tid, uint32_t slot)
{
        int r;

        assert(!s->out);

        if (s->perf_fd < 0) {
                r = open_event(s, b, tid, slot);
                if (r)
                        return error_trace(r);
        } else {
                /* The event disables itself by an interrupt that follows the shot's: enabled before
                 * that, it would never fire. Costs no interrupt where it is disabled already. */
                ioctl(s->perf_fd, PERF_EVENT_IOC_DISABLE, 0);
        }
        if (s->left_over)
                r = ioctl(s->perf_fd, PERF_EVENT_IOC_ENABLE, 0);
        else
                r = ioctl(s->perf_fd, PERF_EVENT_IOC_REFRESH, 1);
        if (r < 0)
                return error_origin(-errno);
        s->out = true;
        return 0;
}

void shot_answered(Shot *s)
{
        s->out = false;
        s->left_over = false;
}

void shot_stop(Shot *s)
{
        ioctl(s->perf_fd, PERF_EVENT_IOC_DISABLE, 0);
}

void shot_unanswered(Shot *s)
{
        s->out = false;
        s->left_over = true;
}

void shot_deinit(Shot *s)
{
        closep(&s->link_fd);
        closep(&s->perf_fd);
        *s = (Shot)SHOT_INIT;
}
