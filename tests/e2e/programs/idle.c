/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idle SERVICE INSTANCE OPERATION [WAIT]: connects and says so; with WAIT: opens a span as soon as
 * its operation is watched, and says its id. Then sleeps in a function called wait_for_end() until
 * its input ends, stops the span, and says when.
 */
#include "program.h"

static NOINLINE void wait_for_end(void)
{
        char c;

        while (read(STDIN_FILENO, &c, 1) > 0)
                ;
        NO_TAIL_CALL();
}

int main(int argc, char **argv)
{
        struct swprof *c = connect_daemon(argv[1], argv[2]);
        struct swprof_span span;
        bool spans = argc > 4;

        swprof_watched(c, argv[3]);
        puts("{\"ready\": true}");
        fflush(stdout);
        if (spans) {
                wait_watched(c, argv[3]);
                start_span(c, &span, argv[3]);
                printf("{\"segment\": \"%s\", \"start\": %.3f}\n", swprof_span_segment_id(&span),
                        now_wall_ms());
                fflush(stdout);
        }
        wait_for_end();
        if (spans)
                swprof_span_stop(c, &span, 0);
        printf("{\"stop\": %.3f}\n", now_wall_ms());
        swprof_close(c);
        return 0;
}
