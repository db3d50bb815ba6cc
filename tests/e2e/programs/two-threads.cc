// SPDX-License-Identifier: Apache-2.0
// two-threads SERVICE INSTANCE MS: one thread burns CPU, one is blocked in recv, each a segment, for MS milliseconds.
#include <sys/socket.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "program.h"

namespace work
{

std::atomic<bool> stop{false};
std::mutex print;

template <typename T> struct Mixer {
        T state{1};

        NOINLINE T churn(unsigned rounds)
        {
                for (unsigned i = 0; i < rounds; i++)
                        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
                NO_TAIL_CALL();
                return state;
        }
};

NOINLINE uint64_t burn()
{
        Mixer<uint64_t> m;

        while (!stop)
                m.churn(200000);
        return m.state;
}

NOINLINE ssize_t wait_for_peer(int fd)
{
        char buffer[16];
        ssize_t n = recv(fd, buffer, sizeof(buffer), 0);

        NO_TAIL_CALL();
        return n;
}

template <typename F> NOINLINE void segment(struct swprof *c, const char *name, F f)
{
        struct swprof_span span;
        double start = now_wall_ms(), end;

        start_span(c, &span, "/threads");
        f();
        end = now_wall_ms();
        std::lock_guard<std::mutex> lock(print);
        printf("{\"name\": \"%s\", \"segment\": \"%s\", \"start\": %.3f, ", name,
                swprof_span_segment_id(&span), start);
        swprof_span_stop(c, &span, 0);
        printf("\"end\": %.3f, \"stop\": %.3f}\n", end, now_wall_ms());
}

} // namespace work

int main(int argc, char **argv)
{
        struct swprof *c = connect_daemon(argv[1], argv[2]);
        int fds[2];

        if (argc < 4 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
                return 1;
        wait_watched(c, "/threads");
        std::thread cpu([&] { work::segment(c, "cpu", [] { work::burn(); }); });
        std::thread blocked(
                [&] { work::segment(c, "recv", [&] { work::wait_for_peer(fds[0]); }); });
        sleep_ms((unsigned)atoi(argv[3]));
        work::stop = true;
        if (write(fds[1], "x", 1) != 1)
                return 1;
        cpu.join();
        blocked.join();
        swprof_close(c);
        return 0;
}
