/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "core/config.h"
#include "manager/host-check.h"
#include "manager/manager.h"
#include "manager/recorder.h"
#include "util/log.h"
#include "version.h"

#define DEFAULT_CONFIG SWPROFD_SYSCONFDIR "/swprofd.yaml"

static const char help_text[] =
        "Usage: swprofd [OPTION]...\n"
        "Profile threads of instrumented programs for SkyWalking.\n"
        "\n"
        "  -c, --config=FILE          configuration (default " DEFAULT_CONFIG ")\n"
        "      --check-config         print the configuration as understood, and exit\n"
        "      --check-host           print what this host allows, and exit\n"
        "      --span-socket=PATH     socket for instrumented apps\n"
        "      --control-socket=PATH  socket for swprofctl\n"
        "      --state-dir=DIR        directory for what is kept over restarts\n"
        "      --oap=HOST:PORT,...    the SkyWalking backend; empty: none\n"
        "      --capture=BACKEND      auto, bpf, bpf-syscall, bpf-iter or ptrace\n"
        "  -l, --log-level=LEVEL      error, warning, notice, info or debug\n"
        "      --record=FILE          for debugging: write the stack of a thread, raw\n"
        "                             bytes and all, to FILE, and exit\n"
        "      --pid=PID              --record: of this process\n"
        "      --tid=TID              --record: of this thread (default: the first)\n"
        "      --count=N              --record: so many times (default 1)\n"
        "      --interval=MS          --record: milliseconds between (default 10)\n"
        "  -h, --help                 print this help, and exit\n"
        "      --version              print the version, and exit\n"
        "\n"
        "Options win over the configuration file. See swprofd(8), swprofd.yaml(5).\n";

/* Options that replace the value of a configuration key. */
static const struct {
        const char *name;
        const char *key;
        char letter;
} settings[] = {
        {"span-socket", "span_socket", 0},
        {"control-socket", "control_socket", 0},
        {"state-dir", "state_dir", 0},
        {"oap", "oap.servers", 0},
        {"capture", "capture.backend", 0},
        {"log-level", "log_level", 'l'},
};
#define N_SETTINGS (sizeof(settings) / sizeof(settings[0]))

enum {
        OPTION_CHECK = 256,
        OPTION_CHECK_HOST,
        OPTION_VERSION,
        OPTION_RECORD,
        OPTION_PID,
        OPTION_TID,
        OPTION_COUNT,
        OPTION_INTERVAL,
        OPTION_SETTING, /* + index into settings */
};

typedef struct Options {
        const char *config;
        const char *values[N_SETTINGS]; /* NULL: not given */
        bool check, check_host;
        RecorderOptions record; /* path NULL: not asked for */
} Options;

/* Exit code, and what load_config returns, for a wrong command line. */
#define WRONG_USAGE 2

/* Return: 0, WRONG_USAGE (logged), -ENOMEM. */
static int apply_options(const Options *o, Config *c)
{
        for (size_t i = 0; i < N_SETTINGS; i++) {
                _cleanup_(freep) char *error = NULL;
                char origin[32];
                int r;

                if (!o->values[i])
                        continue;
                snprintf(origin, sizeof(origin), "--%s", settings[i].name);
                r = config_set(c, origin, settings[i].key, o->values[i], &error);
                if (r > 0) {
                        log_error("%s", error);
                        return WRONG_USAGE;
                }
                if (r < 0)
                        return r;
        }
        return 0;
}

static int load_config(void *userdata, Config *ret)
{
        const Options *o = userdata;
        const char *path = o->config ? o->config : DEFAULT_CONFIG;
        _cleanup_(freep) char *error = NULL;
        Config c;
        int r;

        if (!o->config && access(path, F_OK) < 0 && errno == ENOENT)
                r = config_init_default(&c, &error);
        else
                r = config_load(&c, path, &error);
        if (r > 0)
                log_error("%s", error);
        if (r != 0)
                return r;
        r = apply_options(o, &c);
        if (r != 0) {
                config_deinit(&c);
                return r;
        }
        *ret = c;
        return 0;
}

/* False: not a number, or not one of these; told. */
static bool parse_number(const char *option, const char *text, long min, long max, long *ret)
{
        char *end;
        long n;

        errno = 0;
        n = strtol(text, &end, 10);
        if (end != text && *end == '\0' && errno == 0 && n >= min && n <= max) {
                *ret = n;
                return true;
        }
        fprintf(stderr, "swprofd: --%s: '%s' is not a number from %ld to %ld\n", option, text, min,
                max);
        return false;
}

/* Return: whether it was one of those that go with --record, and *ret_wrong if it was wrong. */
static bool parse_record_option(int opt, RecorderOptions *o, bool *ret_wrong)
{
        long n = 0;

        switch (opt) {
        case OPTION_RECORD:
                o->path = optarg;
                return true;
        case OPTION_PID:
                *ret_wrong |= !parse_number("pid", optarg, 1, INT_MAX, &n);
                o->pid = (pid_t)n;
                return true;
        case OPTION_TID:
                *ret_wrong |= !parse_number("tid", optarg, 1, INT_MAX, &n);
                o->tid = (pid_t)n;
                return true;
        case OPTION_COUNT:
                *ret_wrong |= !parse_number("count", optarg, 1, RECORDER_CAPTURES_MAX, &n);
                o->n_captures = (unsigned)n;
                return true;
        case OPTION_INTERVAL:
                *ret_wrong |= !parse_number("interval", optarg, 1, 3600 * 1000, &n);
                o->interval_ms = (uint32_t)n;
                return true;
        }
        return false;
}

/* What is left out, and what does not go together. False: told. */
static bool complete_record_options(RecorderOptions *o)
{
        if (o->path ? o->pid == 0 : o->pid || o->tid || o->n_captures || o->interval_ms) {
                fputs(o->path ? "swprofd: --record needs --pid\n"
                              : "swprofd: --pid, --tid, --count and --interval go with --record\n",
                        stderr);
                return false;
        }
        o->tid = o->tid ?: o->pid;
        o->n_captures = o->n_captures ?: 1;
        o->interval_ms = o->interval_ms ?: 10;
        return true;
}

/* Return: -1 go on, else the exit code. */
static int parse_options(int argc, char **argv, Options *o)
{
        struct option options[N_SETTINGS + 11] = {
                {"config", required_argument, NULL, 'c'},
                {"check-config", no_argument, NULL, OPTION_CHECK},
                {"check-host", no_argument, NULL, OPTION_CHECK_HOST},
                {"help", no_argument, NULL, 'h'},
                {"version", no_argument, NULL, OPTION_VERSION},
                {"record", required_argument, NULL, OPTION_RECORD},
                {"pid", required_argument, NULL, OPTION_PID},
                {"tid", required_argument, NULL, OPTION_TID},
                {"count", required_argument, NULL, OPTION_COUNT},
                {"interval", required_argument, NULL, OPTION_INTERVAL},
        };
        bool wrong = false;
        int opt;

        for (size_t i = 0; i < N_SETTINGS; i++)
                options[10 + i] = (struct option){settings[i].name, required_argument, NULL,
                        settings[i].letter ? settings[i].letter : OPTION_SETTING + (int)i};
        while ((opt = getopt_long(argc, argv, "c:l:h", options, NULL)) >= 0)
                switch (opt) {
                case 'c':
                        o->config = optarg;
                        break;
                case OPTION_CHECK:
                        o->check = true;
                        break;
                case OPTION_CHECK_HOST:
                        o->check_host = true;
                        break;
                case 'h':
                        fputs(help_text, stdout);
                        return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
                case OPTION_VERSION:
                        puts("swprofd " SWPROFD_VERSION);
                        return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
                case '?':
                        fputs("Try 'swprofd --help'.\n", stderr);
                        return 2;
                default:
                        if (parse_record_option(opt, &o->record, &wrong))
                                break;
                        for (size_t i = 0; i < N_SETTINGS; i++)
                                if (opt == options[10 + i].val)
                                        o->values[i] = optarg;
                }
        if (optind < argc) {
                fprintf(stderr, "swprofd: unexpected argument '%s'\n", argv[optind]);
                wrong = true;
        }
        if (wrong || !complete_record_options(&o->record)) {
                fputs("Try 'swprofd --help'.\n", stderr);
                return 2;
        }
        return -1;
}

static int check_config(const Config *c)
{
        _cleanup_(freep) char *text = config_format(c);

        if (manager_check_config(c) != 0)
                return EXIT_FAILURE;
        if (!text || fputs(text, stdout) < 0 || fflush(stdout) < 0) {
                log_error("cannot print the configuration: %s", strerror(errno));
                return EXIT_FAILURE;
        }
        return EXIT_SUCCESS;
}

/* By the defaults and the options alone. Return: the exit code. */
static int record(const Options *o)
{
        _cleanup_(freep) char *error = NULL;
        Config config;
        int r;

        r = config_init_default(&config, &error);
        if (r > 0)
                log_error("%s", error);
        if (r != 0)
                return EXIT_FAILURE;
        r = apply_options(o, &config);
        if (r == 0) {
                log_set_max_level(log_level_from_string(config.log_level));
                r = recorder_run(&config, &o->record);
        }
        config_deinit(&config);
        return r == WRONG_USAGE ? WRONG_USAGE : r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Copies of other processes' stacks are in our memory, and the OAP's token and our key: never in a
 * core dump, nor for other processes to read. */
static void forbid_core_dumps(void)
{
        const struct rlimit none = {0, 0};

        if (prctl(PR_SET_DUMPABLE, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
                log_warning("cannot forbid core dumps: %s", strerror(errno));
}

/* Clients and sampled threads take some descriptors each; systemd's soft limit is 1024. */
static void raise_file_limit(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                log_warning("cannot raise the number of open files: %s", strerror(errno));
}

int main(int argc, char **argv)
{
        _cleanup_(manager_freep) Manager *m = NULL;
        Options options = {0};
        Config config;
        sigset_t signals;
        int r;

        forbid_core_dumps();
        r = parse_options(argc, argv, &options);
        if (r >= 0)
                return r;
        if (options.record.path)
                return record(&options);
        r = load_config(&options, &config);
        if (r != 0)
                return r == WRONG_USAGE ? WRONG_USAGE : EXIT_FAILURE;
        if (options.check) {
                r = check_config(&config);
                config_deinit(&config);
                return r;
        }
        if (options.check_host) {
                r = host_check(&config, stdout);
                config_deinit(&config);
                return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        }
        log_set_max_level(log_level_from_string(config.log_level));

        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        sigaddset(&signals, SIGHUP);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        signal(SIGPIPE, SIG_IGN);
        raise_file_limit();

        r = manager_new(&m, &config, options.config ? options.config : DEFAULT_CONFIG, load_config,
                &options);
        if (r < 0) {
                config_deinit(&config);
                return EXIT_FAILURE;
        }
        return manager_run(m) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
