/* SPDX-License-Identifier: Apache-2.0 */
/* diagram SERVICE INSTANCE RUNS [SW8]: A calls B, which calls C (40 ms) and D (60 ms), each run a
 * segment on /diagram. With SW8: that is the caller, each second one fails, and has a tag. */
#include "program.h"

static double took[4];

static NOINLINE void C(void)
{
        double t = now_wall_ms();

        sleep_ms(slow_ms(40));
        took[2] = now_wall_ms() - t;
}

static NOINLINE void D(void)
{
        double t = now_wall_ms();

        sleep_ms(slow_ms(60));
        took[3] = now_wall_ms() - t;
}

static NOINLINE void B(void)
{
        double t = now_wall_ms();

        C();
        D();
        took[1] = now_wall_ms() - t;
}

static NOINLINE void A(void)
{
        double t = now_wall_ms();

        B();
        took[0] = now_wall_ms() - t;
}

int main(int argc, char **argv)
{
        struct swprof *c = connect_daemon(argv[1], argv[2]);
        struct swprof_span span;

        wait_watched(c, "/diagram");
        for (int i = 0; i < atoi(argv[3]); i++) {
                double start = now_wall_ms();

                start_span(c, &span, "/diagram");
                if (argc > 4) {
                        swprof_span_parent(c, &span, argv[4]);
                        swprof_span_tag(c, &span, "run", i % 2 ? "odd" : "even");
                }
                A();
                printf("{\"segment\": \"%s\", \"start\": %.3f, ", swprof_span_segment_id(&span),
                        start);
                swprof_span_stop(c, &span, argc > 4 && i % 2);
                printf("\"stop\": %.3f, \"A\": %.3f, \"B\": %.3f, \"C\": %.3f, \"D\": %.3f}\n",
                        now_wall_ms(), took[0], took[1], took[2], took[3]);
                fflush(stdout);
                /* Requests begin at any phase of the sampling period. */
                sleep_ms(5 + (unsigned)i * 7 % 23);
        }
        swprof_close(c);
        return 0;
}
