/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/check.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/json.h"
#include "ctl/text.h"
#include "util/cleanup.h"
#include "util/time.h"
#include "version.h"

/* Far more than all facts take. */
#define MAX_OUTPUT (256 * 1024)

extern char **environ;

/* The daemon beside us, as in a build tree, or where it is installed. */
static const char *find_daemon(char path[static PATH_MAX])
{
        ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
        char *slash;

        if (n > 0) {
                path[n] = '\0';
                slash = strrchr(path, '/');
                if (slash && (size_t)(slash - path) + sizeof("/swprofd") <= PATH_MAX) {
                        strcpy(slash, "/swprofd");
                        if (access(path, X_OK) == 0)
                                return path;
                }
        }
        return SWPROFD_SBINDIR "/swprofd";
}

/* Return: 0, -errno. */
static int start(pid_t *ret_pid, int *ret_fd)
{
        char path[PATH_MAX];
        const char *daemon = find_daemon(path);
        char *const argv[] = {(char *)"swprofd", (char *)"--check-host", NULL};
        posix_spawn_file_actions_t actions;
        int fds[2], r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
        r = posix_spawn(ret_pid, daemon, &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
        close(fds[1]);
        if (r) {
                close(fds[0]);
                return -r;
        }
        *ret_fd = fds[0];
        return 0;
}

/* What comes until the end, or until then. */
static char *read_until(int fd, uint64_t deadline_mono_ns)
{
        char *text = check_memory(malloc(MAX_OUTPUT));
        size_t n = 0;

        while (n < MAX_OUTPUT - 1) {
                uint64_t now = mono_now_ns();
                struct pollfd p = {.fd = fd, .events = POLLIN};
                ssize_t r;

                if (now >= deadline_mono_ns ||
                        poll(&p, 1, (int)((deadline_mono_ns - now) / NS_PER_MS) + 1) <= 0)
                        break;
                r = read(fd, text + n, MAX_OUTPUT - 1 - n);
                if (r <= 0)
                        break;
                n += (size_t)r;
        }
        text[n] = '\0';
        return text;
}

static struct json_object *parse_facts(char *text)
{
        struct json_object *facts = check_memory(json_object_new_array());
        char *state = NULL;

        for (char *line = strtok_r(text, "\n", &state); line; line = strtok_r(NULL, "\n", &state)) {
                struct json_object *fact = json_tokener_parse(line), *name;

                if (fact && json_object_object_get_ex(fact, "name", &name) &&
                        json_object_is_type(name, json_type_string))
                        json_object_array_add(facts, fact);
                else
                        json_object_put(fact);
        }
        return facts;
}

/* Kills it if it has not ended by then. Return: its status, as waitpid() tells it. */
static int reap(pid_t pid, uint64_t deadline_mono_ns)
{
        _cleanup_(closep) int fd = pidfd_open(pid, 0);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now = mono_now_ns();
        int status = 0;

        if (fd >= 0 && now < deadline_mono_ns)
                poll(&p, 1, (int)((deadline_mono_ns - now) / NS_PER_MS) + 1);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return status;
}

/* Its own message, if it had one, is on our stderr already. */
static const char *problem_of(int status)
{
        static char text[64];

        if (WIFSIGNALED(status))
                return WTERMSIG(status) == SIGKILL ? "it takes too long"
                                                   : strsignal(WTERMSIG(status));
        if (WEXITSTATUS(status) == 0)
                return "it says nothing";
        snprintf(text, sizeof(text), "it fails with status %d", WEXITSTATUS(status));
        return text;
}

struct json_object *check_run(unsigned timeout_s, const char **ret_problem)
{
        _cleanup_(freep) char *text = NULL;
        uint64_t deadline_mono_ns = mono_now_ns() + timeout_s * NS_PER_S;
        struct json_object *facts;
        pid_t pid;
        int fd, r;

        r = start(&pid, &fd);
        if (r < 0) {
                *ret_problem = strerror(-r);
                return NULL;
        }
        text = read_until(fd, deadline_mono_ns);
        close(fd);
        r = reap(pid, deadline_mono_ns);
        facts = parse_facts(text);
        if (json_object_array_length(facts) == 0) {
                json_object_put(facts);
                *ret_problem = problem_of(r);
                return NULL;
        }
        return facts;
}

/* ---- the report ---- */

static const char *text_of(struct json_object *object, const char *key)
{
        struct json_object *value;

        return json_object_object_get_ex(object, key, &value) && value
                       ? json_object_get_string(value)
                       : "";
}

/* Return: 1 yes, 0 no, -1 not known. */
static int ok_of(struct json_object *fact)
{
        struct json_object *value;

        return !json_object_object_get_ex(fact, "ok", &value) || !value
                       ? -1
                       : json_object_get_boolean(value);
}

static struct json_object *find_fact(struct json_object *facts, const char *name)
{
        for (size_t i = 0; i < json_object_array_length(facts); i++) {
                struct json_object *fact = json_object_array_get_idx(facts, i);

                if (strcmp(text_of(fact, "name"), name) == 0)
                        return fact;
        }
        return NULL;
}

static bool daemon_captures(const Swprof__Control__Status *s)
{
        return s && s->capture && s->capture->backend[0] &&
               strcmp(s->capture->backend, "none") != 0;
}

struct json_object *check_report(struct json_object *facts, const Swprof__Control__Status *s)
{
        struct json_object *report = json_new(), *daemon = NULL, *chosen;
        const char *backend = NULL;

        chosen = find_fact(facts, "backend");
        if (chosen && ok_of(chosen) == 1)
                backend = text_of(chosen, "text");
        /* What the daemon has is so, whatever we could try. */
        if (daemon_captures(s))
                backend = s->capture->backend;
        if (s) {
                daemon = json_new();
                json_add(daemon, "version", json_string(s->version));
                json_add(daemon, "backend", json_string(s->capture ? s->capture->backend : "none"));
                json_add(daemon, "reason", json_string(s->capture ? s->capture->reason : ""));
                json_add(daemon, "oap_server", json_string(s->oap ? s->oap->server : ""));
                json_add(daemon, "oap_state", json_string(s->oap ? s->oap->state : ""));
                json_add(daemon, "oap_error", json_string(s->oap ? s->oap->error : ""));
        }
        json_add(report, "version", json_string(SWPROFD_VERSION));
        json_add(report, "works", check_memory(json_object_new_boolean(backend != NULL)));
        json_add(report, "backend", backend ? json_string(backend) : NULL);
        json_add(report, "daemon", daemon);
        json_add(report, "facts", facts);
        return report;
}

bool check_works(struct json_object *report)
{
        struct json_object *value;

        return json_object_object_get_ex(report, "works", &value) && json_object_get_boolean(value);
}

static void show_line(FILE *f, const char *name, int ok, const char *text, const char *fix)
{
        _cleanup_(freep) char *escaped = text_escape(text);

        fprintf(f, "%-20s %-3s %s%s%s\n", name,
                ok < 0 ? "?"
                : ok   ? "ok"
                       : "no",
                escaped, fix[0] ? "; fix: " : "", fix);
}

void check_show(struct json_object *report, FILE *f)
{
        struct json_object *facts = NULL, *daemon = NULL;

        json_object_object_get_ex(report, "facts", &facts);
        for (size_t i = 0; i < json_object_array_length(facts); i++) {
                struct json_object *fact = json_object_array_get_idx(facts, i);

                show_line(f, text_of(fact, "name"), ok_of(fact), text_of(fact, "text"),
                        text_of(fact, "fix"));
        }
        json_object_object_get_ex(report, "daemon", &daemon);
        if (daemon) {
                const char *backend = text_of(daemon, "backend"),
                           *state = text_of(daemon, "oap_state");

                show_line(f, "daemon", strcmp(backend, "none") != 0, text_of(daemon, "reason"), "");
                show_line(f, "daemon's oap", strcmp(state, "ready") == 0,
                        text_of(daemon, "oap_error")[0] ? text_of(daemon, "oap_error") : state, "");
        } else {
                show_line(f, "daemon", -1,
                        geteuid() == 0 ? "is not running"
                                       : "does not answer: not running, or not for you",
                        "");
        }
        fprintf(f, "%s%s\n",
                check_works(report) ? "Stacks can be read, by "
                                    : "No way to read stacks is known to work",
                check_works(report) ? text_of(report, "backend") : "");
}
