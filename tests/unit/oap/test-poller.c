/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "oap/poller.h"

#define N_DAEMONS   10000
#define INTERVAL_MS 20000
#define END_S       600

/* Any generator does that is the same each time. */
static uint32_t next_random(void)
{
        static uint64_t state = 1;

        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        return (uint32_t)(state >> 32);
}

Test(poller, delays)
{
        cr_expect_eq(poller_delay_ms(20000, false, 0), 18000);
        cr_expect_eq(poller_delay_ms(20000, false, 4000), 22000);
        cr_expect_eq(poller_delay_ms(20000, false, 4001), 18000);
        cr_expect_eq(poller_delay_ms(20000, true, 0), 10000);
        cr_expect_eq(poller_delay_ms(20000, true, 20000), 30000);
        cr_expect_eq(poller_delay_ms(100, false, UINT32_MAX), 90 + UINT32_MAX % 21);
}

/* A fleet that starts in the same second: from the second poll on no second has much more than its
 * share. */
Test(poller, fleet_polls_evenly)
{
        static unsigned polls[END_S];
        const unsigned share = N_DAEMONS / (INTERVAL_MS / 1000);
        unsigned n_late = 0;

        for (int i = 0; i < N_DAEMONS; i++) {
                uint64_t at_ms = next_random() % 200;

                for (bool first = true; at_ms < END_S * 1000; first = false) {
                        polls[at_ms / 1000]++;
                        at_ms += poller_delay_ms(INTERVAL_MS, first, next_random());
                }
        }
        cr_expect_eq(polls[0], N_DAEMONS);
        for (int s = 1; s < END_S; s++) {
                cr_expect_leq(polls[s], share * 13 / 10, "%u in second %d", polls[s], s);
                n_late += s >= 60 && polls[s] < share * 7 / 10;
        }
        cr_expect_eq(n_late, 0);
}
