/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lifecycle MODE ...: threads and processes that end, and become others, amid their spans.
 *
 * Each span runs inside a marker function of its own, marker_00 to marker_77, and is told of as
 * {"segment": ID, "marker": NAME, "start": MS}. What runs after the span's end is inside another.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "program.h"

#define OPERATION "/life"
#define N_MARKERS 64
#define FOREVER   UINT_MAX

/* Until a number hits: others of this host take some, too. */
#define N_TRIES 500

typedef void (*Body)(void *arg);

/* Their bodies differ, lest the compiler make one of them. */
#define MARKER(n)                                             \
        static NOINLINE void marker_##n(Body body, void *arg) \
        {                                                     \
                __asm__ volatile("# " #n);                    \
                body(arg);                                    \
                NO_TAIL_CALL();                               \
        }
#define EIGHT(X, d) X(d##0) X(d##1) X(d##2) X(d##3) X(d##4) X(d##5) X(d##6) X(d##7)
#define ALL(X)      \
        EIGHT(X, 0) \
        EIGHT(X, 1) EIGHT(X, 2) EIGHT(X, 3) EIGHT(X, 4) EIGHT(X, 5) EIGHT(X, 6) EIGHT(X, 7)
#define ENTRY(n) marker_##n,

ALL(MARKER)
static void (*const markers[N_MARKERS])(Body body, void *arg) = {ALL(ENTRY)};

static NOINLINE void in_marker(unsigned marker, Body body, void *arg)
{
        markers[marker](body, arg);
        NO_TAIL_CALL();
}

static void must(bool done, const char *what)
{
        if (done)
                return;
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
}

typedef struct Work {
        unsigned ms;
        bool burns; /* on the CPU for half of the time */
} Work;

static NOINLINE void work(void *arg)
{
        const Work *w = arg;
        double end = now_wall_ms() + w->ms;

        while (now_wall_ms() < end) {
                double turn = now_wall_ms() + 3;

                while (w->burns && now_wall_ms() < turn)
                        ;
                sleep_ms(w->burns ? 3 : 20);
        }
}

/* Half of the time on the CPU, until a character can be read, which is. */
static NOINLINE void work_until_input(void *nothing)
{
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        char c;

        while (poll(&input, 1, 3) == 0) {
                double turn = now_wall_ms() + 3;

                while (now_wall_ms() < turn)
                        ;
        }
        must(read(STDIN_FILENO, &c, 1) >= 0, "input");
        (void)nothing;
}

static void work_in(unsigned marker, unsigned ms, bool burns)
{
        in_marker(marker, work, &(Work){.ms = ms, .burns = burns});
}

static void tell_death(const char *segment, double end)
{
        printf("{\"segment\": \"%s\", \"death\": %.3f}\n", segment, end);
        fflush(stdout);
}

/* Starts a span and says so. */
static void begin(struct swprof *c, struct swprof_span *span, unsigned marker)
{
        double start = now_wall_ms();

        start_span(c, span, OPERATION);
        printf("{\"segment\": \"%s\", \"marker\": \"marker_%02o\", \"start\": %.3f}\n",
                swprof_span_segment_id(span), marker, start);
        fflush(stdout);
}

static void end(struct swprof *c, struct swprof_span *span)
{
        swprof_span_stop(c, span, 0);
        printf("{\"segment\": \"%s\", \"stop\": %.3f}\n", swprof_span_segment_id(span),
                now_wall_ms());
        fflush(stdout);
}

static void wait_for_input(void)
{
        char c;

        while (read(STDIN_FILENO, &c, 1) < 0 && errno == EINTR)
                ;
}

/* The next process or thread gets this number, if nobody comes between. */
static void wish_number(pid_t number)
{
        FILE *f = fopen("/proc/sys/kernel/ns_last_pid", "we");

        must(f && fprintf(f, "%d", number - 1) > 0 && fclose(f) == 0, "ns_last_pid");
}

/* ---- threads ---- */

typedef struct Thread {
        pthread_t thread;
        struct swprof *client;
        struct swprof_span span;
        unsigned marker, ms;
        bool burns, stops;
        pid_t tid, wanted; /* wanted: do nothing if the tid is another one */
} Thread;

static void *thread_main(void *arg)
{
        Thread *t = arg;

        t->tid = (pid_t)syscall(SYS_gettid);
        if (t->wanted && t->tid != t->wanted)
                return NULL;
        /* The successor of a thread first does something that no span is for. */
        if (t->wanted)
                work_in((t->marker + 1) % N_MARKERS, 60, true);
        begin(t->client, &t->span, t->marker);
        work_in(t->marker, t->ms, t->burns);
        if (t->stops) {
                end(t->client, &t->span);
                work_in((t->marker + 2) % N_MARKERS, 60, true);
        }
        return NULL;
}

static void thread_start(Thread *t)
{
        pthread_attr_t attr;

        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 64 * 1024);
        errno = pthread_create(&t->thread, &attr, thread_main, t);
        must(errno == 0, "pthread_create");
        pthread_attr_destroy(&attr);
}

static void thread_join(const Thread *t)
{
        pthread_join(t->thread, NULL);
        if (!t->stops)
                tell_death(swprof_span_segment_id((struct swprof_span *)&t->span), now_wall_ms());
}

/* ends SERVICE INSTANCE: eight threads end without a stop; the process lives until its input ends. */
static void run_ends(char **args)
{
        struct swprof *c = connect_daemon(args[0], args[1]);
        Thread threads[8];

        wait_watched(c, OPERATION);
        for (unsigned i = 0; i < 8; i++) {
                threads[i] = (Thread){.client = c, .marker = i * 8, .ms = 200, .burns = i % 2};
                thread_start(&threads[i]);
        }
        for (unsigned i = 0; i < 8; i++)
                thread_join(&threads[i]);
        wait_for_input();
        swprof_close(c);
}

/* holds SERVICE INSTANCE: eight threads whose spans never end. */
static void run_holds(char **args)
{
        struct swprof *c = connect_daemon(args[0], args[1]);
        Thread threads[8];

        wait_watched(c, OPERATION);
        for (unsigned i = 0; i < 8; i++) {
                threads[i] =
                        (Thread){.client = c, .marker = i * 8 + 1, .ms = FOREVER, .burns = i == 0};
                thread_start(&threads[i]);
        }
        thread_join(&threads[0]);
}

/* tids SERVICE INSTANCE: a thread ends amid its span, and one with its number follows at once; four times. */
static void run_tids(char **args)
{
        struct swprof *c = connect_daemon(args[0], args[1]);

        wait_watched(c, OPERATION);
        for (unsigned i = 0; i < 4; i++) {
                Thread first = {.client = c, .marker = i * 16, .ms = 100, .burns = i % 2}, next;
                unsigned n_tries = 0;
                double death;

                thread_start(&first);
                pthread_join(first.thread, NULL);
                death = now_wall_ms();
                /* It is joined a moment before its number is free. */
                while (syscall(SYS_tgkill, getpid(), first.tid, 0) == 0)
                        sched_yield();
                do {
                        next = (Thread){.client = c,
                                .marker = i * 16 + 4,
                                .ms = 100,
                                .burns = true,
                                .stops = true,
                                .wanted = first.tid};
                        wish_number(first.tid);
                        thread_start(&next);
                        pthread_join(next.thread, NULL);
                } while (next.tid != first.tid && ++n_tries < N_TRIES);
                must(next.tid == first.tid, "the thread's number did not come again");
                tell_death(swprof_span_segment_id(&first.span), death);
        }
        swprof_close(c);
}

/* crowd SERVICE N: N threads at once, nine for each client, whose service is SERVICE-NUMBER. */
static void run_crowd(char **args)
{
        unsigned n = (unsigned)atoi(args[1]), n_clients = (n + 8) / 9;
        struct swprof **clients = calloc(n_clients, sizeof(*clients));
        Thread *threads = calloc(n, sizeof(*threads));

        must(clients && threads, "calloc");
        for (unsigned i = 0; i < n_clients; i++) {
                char service[64];

                snprintf(service, sizeof(service), "%s-%u", args[0], i);
                clients[i] = connect_daemon(service, "one");
        }
        for (unsigned i = 0; i < n_clients; i++)
                wait_watched(clients[i], OPERATION);
        for (unsigned i = 0; i < n; i++) {
                threads[i] = (Thread){.client = clients[i / 9],
                        .marker = i % N_MARKERS,
                        .ms = 2000,
                        .burns = i % (N_MARKERS - 1) == 0, /* of each marker one in the end */
                        .stops = i % 3};
                thread_start(&threads[i]);
        }
        for (unsigned i = 0; i < n; i++)
                thread_join(&threads[i]);
        for (unsigned i = 0; i < n_clients; i++)
                swprof_close(clients[i]);
        free(threads);
        free(clients);
}

/* ---- processes ---- */

/* A child's life: a span that does not end; as successor (wanted), something else, and one that does. */
static void child(const char *service, unsigned marker, bool is_successor)
{
        struct swprof_span span;
        struct swprof *c;

        if (is_successor)
                work_in(marker + 1, 60, true);
        c = connect_daemon(service, NULL);
        wait_watched(c, OPERATION);
        begin(c, &span, marker);
        if (!is_successor)
                puts("{\"holds\": true}");
        fflush(stdout);
        work_in(marker, is_successor ? 100 : FOREVER, true);
        end(c, &span);
        work_in(marker + 2, 60, true);
        exit(0);
}

/* pids SERVICE: a process is killed amid its span, when a line is read, and one with its number follows at once. */
static void run_pids(char **args)
{
        for (unsigned i = 0; i < 3; i++) {
                pid_t first = fork(), next;
                unsigned n_tries = 0;
                int status;

                must(first >= 0, "fork");
                if (first == 0)
                        child(args[0], i * 16, false);
                wait_for_input();
                kill(first, SIGKILL);
                waitpid(first, &status, 0);
                do {
                        wish_number(first);
                        next = fork();
                        must(next >= 0, "fork");
                        if (next == 0 && getpid() == first)
                                child(args[0], i * 16 + 4, true);
                        if (next == 0)
                                _exit(0);
                        waitpid(next, &status, 0);
                } while (next != first && ++n_tries < N_TRIES);
                must(next == first && status == 0, "the process' number did not come again");
        }
}

/* ---- exec ---- */

static void *exec_at_input(void *nothing)
{
        work_until_input(nothing);
        execl("/proc/self/exe", "lifecycle", "becomes", NULL);
        must(false, "exec");
        return nothing;
}

static void exec_here(void *arg)
{
        exec_at_input(arg);
}

static void exec_elsewhere(void *arg)
{
        pthread_t thread;

        pthread_create(&thread, NULL, exec_at_input, arg);
        work(&(Work){.ms = FOREVER, .burns = true});
}

/*
 * exec SERVICE INSTANCE leader|thread|forked: this thread or another makes another program of the process; forked: a
 * child has the connection, too, and lives as long, so that it is not closed.
 */
static void run_exec(char **args)
{
        struct swprof *c = connect_daemon(args[0], args[1]);
        struct swprof_span span;

        wait_watched(c, OPERATION);
        begin(c, &span, 0);
        if (strcmp(args[2], "forked") == 0 && fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                pause();
        }
        in_marker(0, strcmp(args[2], "thread") == 0 ? exec_elsewhere : exec_here, NULL);
}

static void run_becomes(char **nothing)
{
        printf("{\"became\": %.3f}\n", now_wall_ms());
        fflush(stdout);
        work_in(1, 300, true);
        (void)nothing;
}

/* ---- fork ---- */

typedef struct Fork {
        struct swprof *client;
        struct swprof_span span;
        bool parent_dies;
} Fork;

static void child_inside(void *arg)
{
        Fork *f = arg;

        swprof_span_stop(f->client, &f->span, 0);
        wait_watched(f->client, OPERATION);
        begin(f->client, &f->span, 2);
        work(&(Work){.ms = 100, .burns = true});
        end(f->client, &f->span);
}

/* The child goes on below the parent's marker, and says so by another one. */
static NOINLINE void fork_inside(void *arg)
{
        Fork *f = arg;
        pid_t pid;

        work_until_input(NULL);
        pid = fork();
        must(pid >= 0, "fork");
        if (pid == 0) {
                work_in(1, 100, true);
                in_marker(2, child_inside, f);
                work_until_input(NULL);
                exit(0);
        }
        if (f->parent_dies)
                raise(SIGKILL);
        work(&(Work){.ms = 300, .burns = true});
}

/* fork SERVICE INSTANCE stays|dies: the child has spans of its own; the parent stays, or does not. */
static void run_fork(char **args)
{
        Fork f = {.parent_dies = strcmp(args[2], "dies") == 0};

        f.client = connect_daemon(args[0], args[1]);
        wait_watched(f.client, OPERATION);
        begin(f.client, &f.span, 0);
        in_marker(0, fork_inside, &f);
        end(f.client, &f.span);
        work_in(3, 60, true);
        wait(NULL);
        swprof_close(f.client);
}

/* ---- libraries ---- */

static void *plugin, *plugin_function;

static void load(const char *path, const char *function)
{
        Dl_info info;

        plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        must(plugin, path);
        plugin_function = dlsym(plugin, function);
        must(plugin_function && dladdr(plugin_function, &info), function);
        printf("{\"plugin\": \"%s\", \"base\": %llu}\n", function,
                (unsigned long long)(uintptr_t)info.dli_fbase);
        fflush(stdout);
}

static NOINLINE void call_plugin(void *arg)
{
        ((void (*)(Body, void *))plugin_function)(work, arg);
        NO_TAIL_CALL();
}

static void call_until_input(void *nothing)
{
        ((void (*)(Body, void *))plugin_function)(work_until_input, nothing);
        NO_TAIL_CALL();
}

/*
 * plugin SERVICE INSTANCE A B: code comes and goes amid a span: in marker_01 A, in marker_02 none, in marker_03 B, and
 * straight afterwards, in marker_04, A, until a character is read.
 */
static void run_plugin(char **args)
{
        struct swprof *c = connect_daemon(args[0], args[1]);
        struct swprof_span span;
        Work w = {.ms = 150, .burns = true};

        wait_watched(c, OPERATION);
        begin(c, &span, 0);
        work_in(0, 100, true);
        load(args[2], "in_plugin_a");
        in_marker(1, call_plugin, &w);
        dlclose(plugin);
        work_in(2, 100, true);
        load(args[3], "in_plugin_b");
        in_marker(3, call_plugin, &w);
        dlclose(plugin);
        load(args[2], "in_plugin_a");
        in_marker(4, call_until_input, NULL);
        dlclose(plugin);
        end(c, &span);
        swprof_close(c);
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                void (*run)(char **args);
                int n_args;
        } modes[] = {
                {"ends", run_ends, 2},
                {"holds", run_holds, 2},
                {"tids", run_tids, 2},
                {"crowd", run_crowd, 2},
                {"pids", run_pids, 1},
                {"exec", run_exec, 3},
                {"becomes", run_becomes, 0},
                {"fork", run_fork, 3},
                {"plugin", run_plugin, 4},
        };

        for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
                if (argc < 2 || strcmp(argv[1], modes[i].name) != 0 || argc - 2 < modes[i].n_args)
                        continue;
                modes[i].run(argv + 2);
                return 0;
        }
        fputs("which mode?\n", stderr);
        return 2;
}
