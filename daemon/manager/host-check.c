/* SPDX-License-Identifier: Apache-2.0 */
#include "manager/host-check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include "capture/capture.h"
#include "capture/host.h"
#include "util/cleanup.h"
#include "util/error.h"

/* For each address that the OAP's name has. */
#define CONNECT_MS 2000

typedef enum Found {
        FOUND_NO,
        FOUND_YES,
        FOUND_UNKNOWN,
} Found;

static void print_string(FILE *f, const char *s)
{
        fputc('"', f);
        for (; *s; s++) {
                unsigned char c = (unsigned char)*s;

                if (c == '"' || c == '\\')
                        fputc('\\', f);
                if (c < ' ')
                        fprintf(f, "\\u%04x", c);
                else
                        fputc(c, f);
        }
        fputc('"', f);
}

/* `fix` is printed unless it is well. */
static void print_fact(FILE *f, const char *name, Found found, const char *fix, const char *format,
        ...) __attribute__((format(printf, 5, 6)));
static void print_fact(
        FILE *f, const char *name, Found found, const char *fix, const char *format, ...)
{
        static const char *const words[] = {"false", "true", "null"};
        char text[1024];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        fprintf(f, "{\"name\": \"%s\", \"ok\": %s, \"text\": ", name, words[found]);
        print_string(f, text);
        fputs(", \"fix\": ", f);
        print_string(f, found == FOUND_YES ? "" : fix);
        fputs("}\n", f);
        fflush(f);
}

/* The first line of a file. Return: whether there is one. */
static bool read_line(const char *path, char *line, size_t size)
{
        _cleanup_(fclosep) FILE *f = fopen(path, "re");

        if (!f || !fgets(line, (int)size, f))
                return false;
        line[strcspn(line, "\n")] = '\0';
        return true;
}

/* ---- facts that need no trial ---- */

static void check_kernel(FILE *f)
{
        unsigned major = 0, minor = 0;
        struct utsname u;
        bool good;

        if (uname(&u) < 0)
                return;
        good = sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
               (major > 6 || (major == 6 && minor >= 1)) && strcmp(u.machine, "x86_64") == 0;
        print_fact(f, "kernel", good ? FOUND_YES : FOUND_NO,
                "BPF needs Linux 6.1 or later on x86-64", "Linux %s %s", u.release, u.machine);
}

static void check_lockdown(FILE *f)
{
        static const char path[] = "/sys/kernel/security/lockdown";
        char line[128];

        if (read_line(path, line, sizeof(line)))
                print_fact(f, "lockdown", host_is_locked_down() ? FOUND_NO : FOUND_YES,
                        "boot without lockdown=confidentiality", "%s", line);
        else if (access(path, F_OK) < 0 && errno == ENOENT)
                print_fact(f, "lockdown", FOUND_YES, "", "none");
        else
                print_fact(f, "lockdown", FOUND_UNKNOWN, "ask as root", "unknown");
}

static void check_files(FILE *f)
{
        char line[128];
        bool found;

        found = access("/sys/kernel/btf/vmlinux", R_OK) == 0;
        print_fact(f, "btf", found ? FOUND_YES : FOUND_NO, "a kernel with CONFIG_DEBUG_INFO_BTF",
                "/sys/kernel/btf/vmlinux %s", found ? "is there" : "cannot be read");
        check_lockdown(f);
        found = read_line("/proc/sys/kernel/perf_event_paranoid", line, sizeof(line));
        print_fact(f, "perf_event_paranoid",
                found && (host_has_capability(CAP_PERFMON) || geteuid() == 0) ? FOUND_YES
                : found                                                       ? FOUND_UNKNOWN
                                                                              : FOUND_NO,
                found ? "with CAP_PERFMON it does not matter" : "a kernel with CONFIG_PERF_EVENTS",
                "%s", found ? line : "no perf events");
        if (!read_line("/proc/sys/kernel/yama/ptrace_scope", line, sizeof(line)))
                strcpy(line, "no Yama");
        print_fact(f, "ptrace_scope", line[0] == '3' ? FOUND_NO : FOUND_YES,
                "kernel.yama.ptrace_scope below 3, and a reboot", "%s", line);
}

static void check_capabilities(FILE *f)
{
        static const struct {
                unsigned capability;
                const char *name;
                bool needed; /* by all backends together */
        } capabilities[] = {
                {CAP_BPF, "CAP_BPF", true},
                {CAP_PERFMON, "CAP_PERFMON", true},
                {CAP_SYS_PTRACE, "CAP_SYS_PTRACE", true},
                {CAP_CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE", false},
                {CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", false},
                {CAP_SYSLOG, "CAP_SYSLOG", false},
                {CAP_SYS_NICE, "CAP_SYS_NICE", false},
        };
        char missing[256] = "";
        bool good = true;

        for (size_t i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++)
                if (!host_has_capability(capabilities[i].capability)) {
                        good &= !capabilities[i].needed;
                        strcat(missing, missing[0] ? " " : "missing: ");
                        strcat(missing, capabilities[i].name);
                }
        print_fact(f, "capabilities", good ? FOUND_YES : FOUND_NO,
                "run as root, or as the systemd unit does", "%s", missing[0] ? missing : "all");
}

/* ---- trials ---- */

/* All that is missing may be the caller's rights, which the daemon has. */
static bool is_unable(void)
{
        return geteuid() != 0 &&
               !(host_has_capability(CAP_BPF) && host_has_capability(CAP_PERFMON) &&
                       host_has_capability(CAP_SYS_PTRACE));
}

static void check_perf(FILE *f)
{
        int r = host_try_perf_event();

        print_fact(f, "perf_event",
                r == 0        ? FOUND_YES
                : is_unable() ? FOUND_UNKNOWN
                              : FOUND_NO,
                is_unable() ? "ask as root"
                            : "CAP_PERFMON, and perf_event_open not denied by seccomp",
                "%s", r == 0 ? "one-shot events can be opened" : strerror(-r));
}

static int check_backend(const Config *config, FILE *f, CaptureBackend backend, const char *name)
{
        _cleanup_(capture_freep) Capture *c = NULL;
        Config one = *config; /* borrows */
        CaptureInfo info;
        const char *text = info.reason;
        int r;

        one.capture_backend = (int)backend;
        r = capture_new(&c, &one, &info);
        /* "NAME: …" */
        if (strncmp(text, name, strlen(name)) == 0 && text[strlen(name)] == ':')
                text += strlen(name) + 2;
        if (r == 0)
                print_fact(f, name, FOUND_YES, "", "%s", text);
        else
                print_fact(f, name, is_unable() ? FOUND_UNKNOWN : FOUND_NO,
                        is_unable()                         ? "ask as root"
                        : backend == CAPTURE_BACKEND_PTRACE ? "CAP_SYS_PTRACE, and ptrace allowed"
                                                            : "what is said to be missing",
                        "%s", text);
        return r < 0 && r != -EPERM ? error_trace(r) : 0;
}

static int check_choice(const Config *config, FILE *f)
{
        _cleanup_(capture_freep) Capture *c = NULL;
        CaptureInfo info;
        int r;

        r = capture_new(&c, config, &info);
        print_fact(f, "backend",
                r == 0        ? FOUND_YES
                : is_unable() ? FOUND_UNKNOWN
                              : FOUND_NO,
                is_unable() ? "ask as root" : "capture.backend: auto, and one of the above", "%s",
                r && is_unable() ? "unknown" : info.backend);
        return r < 0 ? error_trace(r) : 0;
}

/* ---- the OAP ---- */

/* Return: 0, -errno. */
static int try_connect(const struct addrinfo *a)
{
        _cleanup_(closep) int fd = -1;
        socklen_t size = sizeof(int);
        struct pollfd p;
        int error = 0, r;

        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return error_origin(-errno);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
                return 0;
        if (errno != EINPROGRESS)
                return error_origin(-errno);
        p = (struct pollfd){.fd = fd, .events = POLLOUT};
        r = poll(&p, 1, CONNECT_MS);
        if (r <= 0)
                return error_origin(r < 0 ? -errno : -ETIMEDOUT);
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
                return error_origin(-errno);
        return error_origin(-error);
}

static void check_server(const char *server, FILE *f)
{
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses = NULL;
        const char *colon = strrchr(server, ':');
        char host[256];
        int r;

        snprintf(host, sizeof(host), "%.*s", (int)(colon - server), server);
        /* [::1]:11800 */
        if (host[0] == '[' && strchr(host, ']')) {
                memmove(host, host + 1, strlen(host));
                *strchr(host, ']') = '\0';
        }
        r = getaddrinfo(host, colon + 1, &hints, &addresses);
        if (r) {
                print_fact(f, "oap", FOUND_NO, "oap.servers, or the resolver's configuration",
                        "%s: %s", server, gai_strerror(r));
                return;
        }
        r = -EHOSTUNREACH;
        for (const struct addrinfo *a = addresses; a && r; a = a->ai_next)
                r = try_connect(a);
        freeaddrinfo(addresses);
        print_fact(f, "oap", r ? FOUND_NO : FOUND_YES,
                "start it, or mend oap.servers or what is between", "%s: %s", server,
                r ? strerror(-r) : "accepts connections");
}

static int check_oap(const Config *config, FILE *f)
{
        _cleanup_(freep) char *servers = strdup(config->oap_servers);
        char *rest = servers, *server;

        if (!servers)
                return error_origin(-ENOMEM);
        if (!servers[0] && config_backends(config) & BACKEND_LOCAL)
                print_fact(f, "oap", FOUND_YES, "", "none is configured: see swprofctl task");
        else if (!servers[0])
                print_fact(f, "oap", FOUND_NO, "oap.servers", "none is configured");
        while (servers[0] && (server = strsep(&rest, ",")))
                check_server(server, f);
        return 0;
}

int host_check(const Config *config, FILE *f)
{
        int r;

        check_kernel(f);
        check_files(f);
        check_capabilities(f);
        check_perf(f);
        r = check_backend(config, f, CAPTURE_BACKEND_BPF_SYSCALL, "bpf/syscall");
        if (r == 0)
                r = check_backend(config, f, CAPTURE_BACKEND_BPF_ITER, "bpf/iter");
        if (r == 0)
                r = check_backend(config, f, CAPTURE_BACKEND_PTRACE, "ptrace");
        if (r == 0)
                r = check_choice(config, f);
        if (r == 0)
                r = check_oap(config, f);
        if (r == 0 && ferror(f))
                r = error_origin(-EIO);
        return error_trace(r);
}
