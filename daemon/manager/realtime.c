/* SPDX-License-Identifier: Apache-2.0 */
#include "manager/realtime.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/log.h"
#include "util/time.h"

/* Above ordinary threads, below all real-time ones of others. */
#define PRIORITY 1
#define SHARE_NS (NS_PER_S / 3)
#define HANG_US  3000000

/* Return: 0, -errno. */
static int schedule(int policy)
{
        struct sched_param param = {.sched_priority = policy == SCHED_FIFO ? PRIORITY : 0};

        return sched_setscheduler(0, policy | SCHED_RESET_ON_FORK, &param) < 0 ? -errno : 0;
}

void realtime_init(Realtime *r, const char *name, bool wanted, int nice)
{
        struct rlimit hang = {.rlim_cur = HANG_US, .rlim_max = HANG_US};
        int error;

        *r = (Realtime){.name = name,
                .denied = !wanted,
                .begin_mono_ns = mono_now_ns(),
                .begin_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID)};
        /* For when it is not real-time. */
        setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice);
        if (!wanted)
                return;
        /* May be lower already. */
        setrlimit(RLIMIT_RTTIME, &hang);
        error = schedule(SCHED_FIFO);
        r->on = error == 0;
        r->denied = error != 0;
        if (error)
                log_notice(
                        "no real-time scheduling of the %s thread (%s), which needs CAP_SYS_NICE: "
                        "samples come late while all CPUs are busy",
                        name, strerror(-error));
}

void realtime_account(Realtime *r, uint64_t cpu_ns, uint64_t now_mono_ns)
{
        static LogLimit limit = LOG_LIMIT_INIT;
        unsigned suppressed;
        bool modest = cpu_ns - r->begin_cpu_ns <= SHARE_NS;

        if (r->denied)
                return;
        if (r->on && !modest) {
                r->on = schedule(SCHED_OTHER) != 0;
                if (log_limit(&limit, &suppressed))
                        log_warning(
                                "the %s thread takes more than a third of a CPU: it is no longer "
                                "preferred to other programs",
                                r->name);
        }
        if (now_mono_ns - r->begin_mono_ns < NS_PER_S)
                return;
        if (!r->on && modest)
                r->on = schedule(SCHED_FIFO) == 0;
        r->begin_mono_ns = now_mono_ns;
        r->begin_cpu_ns = cpu_ns;
}
