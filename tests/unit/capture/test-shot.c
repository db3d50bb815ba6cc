/* SPDX-License-Identifier: Apache-2.0 */

/* One-shot events of the calling thread: how often they fire. */

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "capture/capture-bpf.h"
#include "capture/shot.h"
#include "util/time.h"

/* Longer than a hundred periods of the event. */
#define WHILE_NS NS_PER_MS

static CaptureBpf *bpf;
static struct swp_slot *slot;
static Shot shot = SHOT_INIT;

static void setup(void)
{
        int r = capture_bpf_new(&bpf, true, 1, false);

        if (r == -EPERM)
                cr_skip_test("BPF programs cannot be loaded");
        cr_assert_eq(r, 0);
        slot = capture_bpf_slot(bpf, 0);
        slot->buffer = SWP_NO_BUFFER;
}

static void teardown(void)
{
        shot_deinit(&shot);
        capture_bpf_free(bpf);
}

static bool answered(void)
{
        return __atomic_load_n(&slot->answered, __ATOMIC_ACQUIRE) == slot->request;
}

static bool answered_within(uint64_t ns)
{
        uint64_t begin = mono_now_ns();

        while (!answered() && mono_now_ns() - begin < ns)
                ;
        return answered();
}

static void fire(void)
{
        slot->request++;
        cr_assert_eq(shot_fire(&shot, bpf, (pid_t)syscall(SYS_gettid), 0), 0);
}

/* Whether the event fires without having been asked to. */
static bool fires_again(void)
{
        slot->request++;
        return answered_within(WHILE_NS);
}

TestSuite(shot, .init = setup, .fini = teardown);

Test(shot, fires_once)
{
        for (int i = 0; i < 100; i++) {
                fire();
                cr_assert(answered_within(NS_PER_S));
                shot_answered(&shot);
                cr_assert(!fires_again(), "%d", i);
        }
}

Test(shot, fires_once_after_stopped_ones)
{
        int n_stopped = 0;

        for (int i = 0; i < 100; i++) {
                for (int k = 0; k < 3; k++) {
                        fire();
                        shot_stop(&shot);
                        if (answered()) {
                                shot_answered(&shot);
                        } else {
                                shot_unanswered(&shot);
                                n_stopped++;
                        }
                        cr_assert(!fires_again(), "stopped");
                }
                fire();
                cr_assert(answered_within(NS_PER_S));
                shot_answered(&shot);
                cr_assert(!fires_again(), "twice");
        }
        cr_assert_gt(n_stopped, 0);
}
