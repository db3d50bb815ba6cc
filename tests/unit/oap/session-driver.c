/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/core.h"
#include "core/counter.h"
#include "oap/session.h"

/*
 * A session in the hands of a test: session-driver SERVER [SETTING=NUMBER]…
 *
 * It does what the lines on standard input say, words separated by spaces, and answers each with
 * one line. In between lines "task SERVICE INSTANCE ID ENDPOINT CREATED" tell of tasks that came.
 *
 *   attach|attach-agent|detach SERVICE INSTANCE
 *   snapshot SERVICE INSTANCE TASK SEGMENT TIME FRAME…   answer: taken, refused
 *   segment SERVICE INSTANCE SEGMENT OPERATION START END [PARENT]
 *   finish SERVICE INSTANCE TASK
 *   flush, active 0|1, status, quit
 *
 * A task of the endpoint "/leave" makes its instance go at once.
 */

#define WORDS_MAX     64
#define INSTANCES_MAX 2000
/* Names the stacks: equal ones are one Stack, as in the daemon. */
#define STACKS_MAX 256

static Instance *instances[INSTANCES_MAX];
static size_t n_instances;
static char *stack_names[STACKS_MAX];
static Stack *stacks[STACKS_MAX];
static size_t n_stacks;
static uint32_t chance;
static Session *session;

static uint32_t fixed_random(void)
{
        return chance;
}

/* What the session needs of the core. */
int core_task_add(Core *c, Instance *i, const TaskCommand *command, Now now)
{
        if (command->create_wall_ms > i->last_command_wall_ms)
                i->last_command_wall_ms = command->create_wall_ms;
        printf("task %s %s %s %s %lld\n", i->service, i->name, command->task_id, command->endpoint,
                (long long)command->create_wall_ms);
        if (strcmp(command->endpoint, "/leave") == 0)
                session_instance_removed(session, i);
        return 0;
}

__attribute__((noreturn)) static void die(const char *message)
{
        fprintf(stderr, "session-driver: %s\n", message);
        exit(2);
}

static void set(Config *c, const char *setting)
{
        const struct {
                const char *name;
                uint32_t *value;
        } settings[] = {
                {"poll", &c->oap_poll_interval_ms},
                {"deadline", &c->oap_deadline_ms},
                {"batch-interval", &c->oap_batch_interval_ms},
                {"batch", &c->oap_batch_snapshots},
                {"buffer", &c->oap_buffer_bytes},
                {"heartbeat", &c->oap_heartbeat_interval_ms},
                {"random", &chance},
        };
        size_t n = strcspn(setting, "=");

        for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
                if (strlen(settings[i].name) == n && strncmp(settings[i].name, setting, n) == 0 &&
                        setting[n]) {
                        *settings[i].value = (uint32_t)strtoul(setting + n + 1, NULL, 10);
                        return;
                }
        die("no such setting");
}

static Instance *instance_find(const char *service, const char *name, size_t *ret_index)
{
        for (size_t i = 0; i < n_instances; i++)
                if (strcmp(instances[i]->service, service) == 0 &&
                        strcmp(instances[i]->name, name) == 0) {
                        *ret_index = i;
                        return instances[i];
                }
        return NULL;
}

static void attach(Session *s, const char *service, const char *name, bool agent)
{
        Instance *i = calloc(1, sizeof(*i));

        if (!i || n_instances == INSTANCES_MAX)
                die("too many instances");
        i->service = strdup(service);
        i->name = strdup(name);
        i->agent = agent;
        i->n_clients = 1;
        i->last_command_wall_ms = -1;
        instances[n_instances++] = i;
        session_instance_added(s, i, now_get());
}

static void detach(Session *s, const char *service, const char *name)
{
        size_t index;
        Instance *i = instance_find(service, name, &index);

        if (!i)
                die("no such instance");
        session_instance_removed(s, i);
        instances[index] = instances[--n_instances];
        free(i->service);
        free(i->name);
        free(i);
}

static Stack *stack_of(char *const *frames, size_t n)
{
        char name[1024] = "";

        for (size_t i = 0; i < n; i++)
                snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s;", frames[i]);
        for (size_t i = 0; i < n_stacks; i++)
                if (strcmp(stack_names[i], name) == 0)
                        return stacks[i];
        if (n_stacks == STACKS_MAX)
                die("too many stacks");
        stack_names[n_stacks] = strdup(name);
        stacks[n_stacks] = stack_new();
        if (!stacks[n_stacks] ||
                stack_set_ready(stacks[n_stacks], n, (const char *const *)frames) < 0)
                die("no memory");
        return stacks[n_stacks++];
}

static bool snapshot(Session *s, char **words, size_t n)
{
        return session_snapshot(s, &(Snapshot){.service = words[0],
                                           .instance = words[1],
                                           .task_id = words[2],
                                           .segment_id = words[3],
                                           .time_wall_ms = strtoll(words[4], NULL, 10),
                                           .stack = stack_of(words + 5, n - 5)});
}

static void segment(Session *s, char **words, size_t n)
{
        session_segment_done(s, &(SegmentReport){.service = words[0],
                                        .instance = words[1],
                                        .trace_id = "",
                                        .segment_id = words[2],
                                        .operation = words[3],
                                        .start_wall_ms = strtoll(words[4], NULL, 10),
                                        .end_wall_ms = strtoll(words[5], NULL, 10),
                                        .parent_segment_id = n > 6 ? words[6] : NULL});
}

static void status(const Session *s)
{
        SessionStatus st = session_status(s);

        printf("{\"state\": \"%s\", \"buffered\": %llu, \"idle\": %s, \"succeeded\": %s", st.state,
                (unsigned long long)st.n_buffered, session_idle(s) ? "true" : "false",
                st.last_success_mono_ns ? "true" : "false");
        for (CounterId i = 0; i < N_COUNTERS; i++)
                printf(", \"%s\": %llu", counter_name(i), (unsigned long long)counter_get(i));
        printf("}\n");
}

/* Return: false: to end. */
static bool run(Session *s, Config *config, char *line)
{
        char *words[WORDS_MAX], *rest = line, *verb;
        size_t n = 0;

        while (n < WORDS_MAX && (words[n] = strsep(&rest, " ")))
                n++;
        verb = words[0];
        if (strcmp(verb, "quit") == 0)
                return false;
        if (strcmp(verb, "snapshot") == 0 && n > 6) {
                puts(snapshot(s, words + 1, n - 1) ? "taken" : "refused");
                return true;
        }
        if (strcmp(verb, "status") == 0) {
                status(s);
                return true;
        }
        if (strcmp(verb, "attach") == 0 && n == 3)
                attach(s, words[1], words[2], false);
        else if (strcmp(verb, "attach-agent") == 0 && n == 3)
                attach(s, words[1], words[2], true);
        else if (strcmp(verb, "detach") == 0 && n == 3)
                detach(s, words[1], words[2]);
        else if (strcmp(verb, "segment") == 0 && n >= 7)
                segment(s, words + 1, n - 1);
        else if (strcmp(verb, "finish") == 0 && n == 4)
                session_task_finished(s, words[1], words[2], words[3]);
        else if (strcmp(verb, "flush") == 0)
                session_flush(s, now_get());
        else if (strcmp(verb, "active") == 0 && n == 2) {
                config->profile_active = strcmp(words[1], "1") == 0;
                session_set_config(s, config, now_get());
        } else
                die(verb);
        puts("done");
        return true;
}

/* Reads what is there and does the lines that are complete. Return: false: to end. */
static bool read_lines(Session *s, Config *config)
{
        static char buffer[65536];
        static size_t n;
        char *end;
        ssize_t r = read(STDIN_FILENO, buffer + n, sizeof(buffer) - n);

        if (r <= 0)
                return false;
        n += (size_t)r;
        while ((end = memchr(buffer, '\n', n))) {
                *end++ = '\0';
                if (!run(s, config, buffer))
                        return false;
                n -= (size_t)(end - buffer);
                memmove(buffer, end, n);
        }
        return true;
}

static int timeout_ms(const Session *s)
{
        uint64_t next = session_next_mono_ns(s), now = mono_now_ns();

        if (next == UINT64_MAX)
                return -1;
        return next > now ? (int)((next - now) / NS_PER_MS) + 1 : 0;
}

int main(int argc, char **argv)
{
        Config config = {
                .oap_ca_file = (char *)"",
                .oap_certificate_file = (char *)"",
                .oap_key_file = (char *)"",
                .oap_server_name = (char *)"",
                .oap_authentication = (char *)"",
                .oap_failover_ms = 3000,
                .oap_poll_interval_ms = 200,
                .oap_deadline_ms = 5000,
                .oap_batch_interval_ms = 50,
                .oap_batch_snapshots = 500,
                .oap_buffer_bytes = 1 << 20,
                .profile_active = true,
        };
        Session *s;

        setlinebuf(stdout);
        if (argc < 2)
                die("which server?");
        config.oap_servers = argv[1];
        for (int i = 2; i < argc; i++)
                set(&config, argv[i]);
        config.oap_heartbeat = config.oap_heartbeat_interval_ms > 0;
        if (session_new(&s, &config, NULL, NULL, fixed_random) != 0)
                die("no session");
        session = s;
        for (;;) {
                struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                        {.fd = session_fd(s), .events = POLLIN}};

                if (poll(fds, 2, timeout_ms(s)) < 0)
                        die(strerror(errno));
                if (fds[1].revents)
                        session_dispatch(s, now_get());
                if (fds[0].revents && !read_lines(s, &config))
                        break;
                session_step(s, now_get());
        }
        session_free(s);
        while (n_instances > 0) {
                Instance *i = instances[--n_instances];

                free(i->service);
                free(i->name);
                free(i);
        }
        while (n_stacks > 0) {
                stack_unref(stacks[--n_stacks]);
                free(stack_names[n_stacks]);
        }
        return 0;
}
