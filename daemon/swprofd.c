/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "core/config.h"
#include "manager/manager.h"
#include "util/log.h"
#include "version.h"

#define DEFAULT_CONFIG SWPROFD_SYSCONFDIR "/swprofd.yaml"

/* The command line; its values win over the file's. */
typedef struct Options {
        const char *config;
        const char *span_socket;
        const char *control_socket;
        const char *state_dir;
        const char *oap_server;
        const char *log_level;
        const char *capture_backend;
        bool check;
} Options;

static const char help_text[] =
        "Usage: swprofd [OPTION]...\n"
        "Profile threads of instrumented programs for SkyWalking.\n"
        "\n"
        "  -c, --config=FILE          configuration (default " DEFAULT_CONFIG ")\n"
        "      --check-config         print the configuration as understood, and exit\n"
        "      --span-socket=PATH     socket for instrumented apps\n"
        "      --control-socket=PATH  socket for swprofctl\n"
        "      --state-dir=DIR        directory for what is kept over restarts\n"
        "      --oap=HOST:PORT        the SkyWalking backend; empty: none\n"
        "      --capture=BACKEND      auto, bpf-syscall or bpf-iter\n"
        "  -l, --log-level=LEVEL      error, warning, notice, info or debug\n"
        "  -h, --help                 print this help, and exit\n"
        "      --version              print the version, and exit\n"
        "\n"
        "Options win over the configuration file. See swprofd(8), swprofd.yaml(5).\n";

enum {
        OPTION_CHECK = 256,
        OPTION_SPAN,
        OPTION_CONTROL,
        OPTION_STATE,
        OPTION_OAP,
        OPTION_CAPTURE,
        OPTION_VERSION,
};

static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},
        {"check-config", no_argument, NULL, OPTION_CHECK},
        {"span-socket", required_argument, NULL, OPTION_SPAN},
        {"control-socket", required_argument, NULL, OPTION_CONTROL},
        {"state-dir", required_argument, NULL, OPTION_STATE},
        {"oap", required_argument, NULL, OPTION_OAP},
        {"capture", required_argument, NULL, OPTION_CAPTURE},
        {"log-level", required_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL},
};

static int replace_string(char **value, const char *option)
{
        char *copy;

        if (!option)
                return 0;
        copy = strdup(option);
        if (!copy)
                return -ENOMEM;
        free(*value);
        *value = copy;
        return 0;
}

/* The options as a small configuration of their own would be a second way to say the same: they are
 * checked by printing the merged configuration and parsing that. */
static int merge_options(const Options *o, Config *c)
{
        _cleanup_(freep) char *text = NULL, *error = NULL;
        Config checked;
        int r;

        if (replace_string(&c->span_socket, o->span_socket) < 0 ||
                replace_string(&c->control_socket, o->control_socket) < 0 ||
                replace_string(&c->state_dir, o->state_dir) < 0 ||
                replace_string(&c->oap_server, o->oap_server) < 0 ||
                replace_string(&c->log_level, o->log_level) < 0)
                return -ENOMEM;
        text = config_format(c);
        if (!text)
                return -ENOMEM;
        r = config_parse(&checked, "command line", text, strlen(text), getenv, &error);
        if (r > 0) {
                log_error("%s", error);
                return r;
        }
        if (r < 0)
                return r;
        config_deinit(c);
        *c = checked;
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
        r = merge_options(o, &c);
        if (r != 0) {
                config_deinit(&c);
                return r;
        }
        *ret = c;
        return 0;
}

/* Return: -1 go on, else the exit code. */
static int parse_options(int argc, char **argv, Options *o)
{
        int opt;

        while ((opt = getopt_long(argc, argv, "c:l:h", long_options, NULL)) >= 0)
                switch (opt) {
                case 'c':
                        o->config = optarg;
                        break;
                case OPTION_CHECK:
                        o->check = true;
                        break;
                case OPTION_SPAN:
                        o->span_socket = optarg;
                        break;
                case OPTION_CONTROL:
                        o->control_socket = optarg;
                        break;
                case OPTION_STATE:
                        o->state_dir = optarg;
                        break;
                case OPTION_OAP:
                        o->oap_server = optarg;
                        break;
                case OPTION_CAPTURE:
                        o->capture_backend = optarg;
                        break;
                case 'l':
                        o->log_level = optarg;
                        break;
                case 'h':
                        fputs(help_text, stdout);
                        return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
                case OPTION_VERSION:
                        puts("swprofd " SWPROFD_VERSION);
                        return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
                default:
                        fputs("Try 'swprofd --help'.\n", stderr);
                        return 2;
                }
        if (optind < argc) {
                fprintf(stderr, "swprofd: unexpected argument '%s'\nTry 'swprofd --help'.\n",
                        argv[optind]);
                return 2;
        }
        return -1;
}

static int check_config(const Config *c)
{
        _cleanup_(freep) char *text = config_format(c);

        if (!text || fputs(text, stdout) < 0 || fflush(stdout) < 0) {
                log_error("cannot print the configuration: %s", strerror(errno));
                return EXIT_FAILURE;
        }
        return EXIT_SUCCESS;
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

        r = parse_options(argc, argv, &options);
        if (r >= 0)
                return r;
        r = load_config(&options, &config);
        if (r != 0)
                return EXIT_FAILURE;
        if (options.check) {
                r = check_config(&config);
                config_deinit(&config);
                return r;
        }
        log_set_max_level(log_level_from_string(config.log_level));

        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        sigaddset(&signals, SIGHUP);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        signal(SIGPIPE, SIG_IGN);
        /* Copies of other processes' stacks are in our memory: never in a core dump. */
        prctl(PR_SET_DUMPABLE, 0);
        raise_file_limit();
        /* Clients never wait for us: what their sockets cannot hold is lost. Without CAP_SYS_NICE it is as it is. */
        setpriority(PRIO_PROCESS, 0, -5);

        r = manager_new(&m, &config, options.config ? options.config : DEFAULT_CONFIG, load_config,
                &options);
        if (r < 0) {
                config_deinit(&config);
                return EXIT_FAILURE;
        }
        return manager_run(m) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
