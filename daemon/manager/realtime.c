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

/* No more than this late is on time. */
#define LATE_NS     NS_PER_MS
#define HOLD_MIN_NS (10 * NS_PER_S)
#define HOLD_MAX_NS (600 * NS_PER_S)

/* Return: 0, -errno. */
static int set_policy(int policy)
{
        struct sched_param param = {.sched_priority = policy == SCHED_FIFO ? PRIORITY : 0};

        return sched_setscheduler(0, policy | SCHED_RESET_ON_FORK, &param) < 0 ? -errno : 0;
}

void realtime_init(Realtime *r, const char *name, bool allowed, int nice, uint64_t share_ns)
{
        int error;

        *r = (Realtime){.name = name,
                .share_ns = share_ns,
                .denied = !allowed,
                .begin_mono_ns = mono_now_ns(),
                .begin_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID)};
        setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice);
        error = allowed ? set_policy(SCHED_FIFO) : 0;
        set_policy(SCHED_OTHER);
        r->denied |= error != 0;
        if (error)
                log_notice("no real-time scheduling of the %s thread (%s): samples come late while "
                           "all CPUs are busy; it needs CAP_SYS_NICE, and a control group with "
                           "real-time bandwidth",
                        name, strerror(-error));
}

void realtime_step(Realtime *r, bool needed, uint64_t cpu_ns, uint64_t now_mono_ns)
{
        static LogLimit limit = LOG_LIMIT_INIT;
        unsigned suppressed;
        bool much = cpu_ns - r->begin_cpu_ns > r->share_ns, on;

        if (r->denied)
                return;
        r->immodest |= much;
        if (now_mono_ns - r->begin_mono_ns >= NS_PER_S) {
                r->immodest = much;
                r->begin_mono_ns = now_mono_ns;
                r->begin_cpu_ns = cpu_ns;
        }
        on = needed && !r->immodest;
        if (on == r->on || set_policy(on ? SCHED_FIFO : SCHED_OTHER) < 0)
                return;
        r->on = on;
        if (r->immodest && log_limit(&limit, &suppressed))
                log_warning(
                        "the %s thread takes more than a third of a CPU: it is no longer preferred "
                        "to other programs",
                        r->name);
}

bool realtime_need(RealtimeNeed *n, uint64_t late_ns, uint64_t now_mono_ns)
{
        if (late_ns > LATE_NS && now_mono_ns >= n->until_mono_ns) {
                bool soon = n->until_mono_ns && now_mono_ns < n->until_mono_ns + HOLD_MIN_NS;

                n->hold_ns = soon ? n->hold_ns * 2 : HOLD_MIN_NS;
                if (n->hold_ns > HOLD_MAX_NS)
                        n->hold_ns = HOLD_MAX_NS;
                n->until_mono_ns = now_mono_ns + n->hold_ns;
        }
        return now_mono_ns < n->until_mono_ns;
}
