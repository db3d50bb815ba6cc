/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/config-key.h"
#include "util/error.h"

#define KIB 1024U
#define MIB (1024U * KIB)
#define GIB (1024U * MIB)

#define MS     1U
#define SECOND 1000U
#define MINUTE (60U * SECOND)
#define HOUR   (60U * MINUTE)

/* sun_path of a Unix socket holds that, and a NUL. */
#define SOCKET_PATH_MAX 107

static const char *const log_levels[] = {"error", "warning", "notice", "info", "debug", NULL};
static const char *const backends[] = {"auto", "bpf", "bpf-syscall", "bpf-iter", "ptrace", NULL};
static const char *const task_backends[] = {"oap", "local", NULL};
static const char *const unwind_modes[] = {"dwarf", "fp", NULL};
static const char *const python_modes[] = {"python", "mixed", NULL};
static const char *const compressions[] = {"none", "gzip", NULL};
static const char *const report_modes[] = {"auto", "never", NULL};

static const char *const redelivery_modes[] = {"at-most-once", "at-least-once", NULL};

/* clang-format off */
#define TOP(n, t, ...)        {.section = "", .name = #n, .full_name = #n, .type = (t), \
                               .offset = offsetof(Config, n), __VA_ARGS__}
#define KEY(s, n, m, t, ...)  {.section = #s, .name = #n, .full_name = #s "." #n, .type = (t), \
                               .offset = offsetof(Config, m), __VA_ARGS__}

const ConfigKey config_keys[] = {
        TOP(log_level, CONFIG_WORD_TEXT, .words = log_levels, .default_value = "info",
                .help = "What is logged: messages of this and the more severe levels."),
        TOP(span_socket, CONFIG_PATH, .max = SOCKET_PATH_MAX,
                .default_value = "/run/swprofd/span.sock",
                .help = "Socket for instrumented programs."),
        TOP(control_socket, CONFIG_PATH, .max = SOCKET_PATH_MAX,
                .default_value = "/run/swprofd/control.sock",
                .help = "Socket for swprofctl."),
        TOP(control_group, CONFIG_NAME, .max = 255, .default_value = "swprofd",
                .help = "Group that may use the control socket, beside root; it need not exist."),
        TOP(state_dir, CONFIG_PATH, .max = 4095, .default_value = "/var/lib/swprofd",
                .help = "Directory for what is kept over restarts."),

        TOP(backends, CONFIG_WORDS, .words = task_backends, .default_value = "auto",
                .help = "Where tasks come from: oap, local; auto: oap if oap.servers names any, else local."),

        KEY(oap, servers, oap_servers, CONFIG_SERVERS, .max = 4095,
                .default_value = "",
                .env = "SW_AGENT_COLLECTOR_BACKEND_SERVICES",
                .help = "The gRPC addresses of the SkyWalking backend, host:port,host:port; empty: none."),
        KEY(oap, failover, oap_failover_ms, CONFIG_DURATION,
                .min = 500 * MS, .max = 10 * MINUTE, .default_value = "3s",
                .help = "How long a server may give no sign of life until another one is tried."),
        KEY(oap, tls, oap_tls, CONFIG_BOOL, .default_value = "false", .env = "SW_AGENT_FORCE_TLS",
                .help = "Whether to speak TLS with the backend."),
        KEY(oap, ca_file, oap_ca_file, CONFIG_FILE, .max = 4095, .default_value = "",
                .help = "Authorities of the backend's certificate; empty: the system's."),
        KEY(oap, certificate_file, oap_certificate_file, CONFIG_FILE, .max = 4095,
                .default_value = "",
                .help = "Certificate to show to the backend; empty: none."),
        KEY(oap, key_file, oap_key_file, CONFIG_FILE, .max = 4095, .default_value = "",
                .help = "Private key of that certificate."),
        KEY(oap, server_name, oap_server_name, CONFIG_NAME, .max = 255, .default_value = "",
                .help = "Name in the backend's certificate; empty: the one in oap.servers."),
        KEY(oap, authentication, oap_authentication, CONFIG_SECRET, .max = 4095,
                .default_value = "env:SW_AGENT_AUTHENTICATION",
                .help = "Where the backend's token is: env:NAME or file:PATH; empty: none."),
        KEY(oap, compression, oap_compression, CONFIG_WORD, .words = compressions,
                .default_value = "none",
                .help = "How what is sent is compressed."),
        KEY(oap, poll_interval, oap_poll_interval_ms, CONFIG_DURATION,
                .min = 100 * MS, .max = HOUR, .default_value = "20s",
                .env = "SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL", .env_unit = "s",
                .help = "How often to ask for profile tasks."),
        KEY(oap, deadline, oap_deadline_ms, CONFIG_DURATION,
                .min = 100 * MS, .max = 10 * MINUTE, .default_value = "30s",
                .help = "How long a call may take."),
        KEY(oap, batch_interval, oap_batch_interval_ms, CONFIG_DURATION,
                .min = 10 * MS, .max = MINUTE, .default_value = "500ms",
                .help = "How long snapshots are gathered before they are sent together."),
        KEY(oap, batch_snapshots, oap_batch_snapshots, CONFIG_NUMBER,
                .min = 1, .max = 100000, .default_value = "500",
                .help = "How many snapshots are sent together at most."),
        KEY(oap, buffer, oap_buffer_bytes, CONFIG_SIZE,
                .min = 64 * KIB, .max = GIB, .default_value = "16MiB",
                .help = "How much memory snapshots may take that wait for the backend."),
        KEY(oap, heartbeat, oap_heartbeat, CONFIG_BOOL, .default_value = "false",
                .help = "Whether to report programs without an agent as alive."),
        KEY(oap, heartbeat_interval, oap_heartbeat_interval_ms, CONFIG_DURATION,
                .min = SECOND, .max = HOUR, .default_value = "30s",
                .help = "How often that is."),
        KEY(oap, report_segments, oap_report_segments, CONFIG_WORD, .words = report_modes,
                .default_value = "auto",
                .help = "Whether to report trace segments of what is profiled, where no agent does."),
        KEY(oap, redelivery, oap_redelivery, CONFIG_WORD, .words = redelivery_modes,
                .default_value = "at-most-once",
                .help = "Whether snapshots of which it is not known if they arrived are sent again."),

        KEY(store, max, store_max_bytes, CONFIG_SIZE,
                .min = MIB, .max = 3U * GIB, .default_value = "256MiB",
                .help = "How much may be kept on disk of what waits for the backend."),

        KEY(local, max_size, local_max_bytes, CONFIG_SIZE,
                .min = MIB, .max = 3U * GIB, .default_value = "256MiB",
                .help = "How much may be kept on disk of what the tasks of swprofctl yield."),
        KEY(local, max_age, local_max_age_ms, CONFIG_DURATION,
                .min = HOUR, .max = 1000U * HOUR, .default_value = "168h",
                .help = "How long that is kept."),

        KEY(profile, active, profile_active, CONFIG_BOOL, .default_value = "true",
                .env = "SW_AGENT_PROFILE_ACTIVE",
                .help = "Whether profile tasks are carried out."),
        KEY(profile, max_parallel, profile_max_parallel, CONFIG_NUMBER,
                .min = 1, .max = 1024, .default_value = "5", .env = "SW_AGENT_PROFILE_MAX_PARALLEL",
                .help = "Requests of one task that are profiled at once."),
        KEY(profile, max_sub_parallel, profile_max_sub_parallel, CONFIG_NUMBER,
                .min = 0, .max = 1024, .default_value = "5",
                .env = "SW_AGENT_PROFILE_MAX_ACCEPT_SUB_PARALLEL",
                .help = "Further threads of one request that are profiled at once."),
        KEY(profile, max_duration, profile_max_duration_ms, CONFIG_DURATION,
                .min = SECOND, .max = 24 * HOUR, .default_value = "10m",
                .env = "SW_AGENT_PROFILE_DURATION", .env_unit = "m",
                .help = "How long one request is profiled at most."),
        KEY(profile, max_depth, profile_max_depth, CONFIG_NUMBER,
                .min = 1, .max = 4096, .default_value = "500",
                .env = "SW_AGENT_PROFILE_DUMP_MAX_STACK_DEPTH",
                .help = "Frames of a stack that are reported at most."),
        KEY(profile, max_pending, profile_max_pending, CONFIG_NUMBER,
                .min = 1, .max = 65536, .default_value = "256",
                .help = "Requests of an instance that may yet cross a task's threshold."),
        KEY(profile, max_pending_samples, profile_max_pending_samples, CONFIG_NUMBER,
                .min = 1, .max = 1000000, .default_value = "2048",
                .help = "Samples held for each of them."),
        KEY(profile, settle, profile_settle_ms, CONFIG_DURATION,
                .min = 0, .max = 10 * SECOND, .default_value = "100ms",
                .help = "How long a sample waits for the word that its request had already ended."),

        KEY(capture, backend, capture_backend, CONFIG_WORD, .words = backends,
                .default_value = "auto",
                .help = "How stacks are read: by BPF (6.1), or ptrace, which stops threads for a moment."),
        KEY(capture, unwind, capture_unwind, CONFIG_WORD, .words = unwind_modes,
                .default_value = "dwarf",
                .help = "By the tables in the binaries, or by frame pointers, if all code has them."),
        KEY(capture, kernel_frames, capture_kernel_frames, CONFIG_BOOL, .default_value = "false",
                .help = "Whether functions of the kernel are shown as the innermost frames."),
        KEY(capture, realtime, capture_realtime, CONFIG_BOOL, .default_value = "true",
                .help = "Whether reading events and sampling may become real-time, on busy hosts."),
        KEY(capture, max_stack_bytes, capture_max_stack_bytes, CONFIG_SIZE,
                .min = 4 * KIB, .max = 64 * KIB, .default_value = "64KiB",
                .help = "How much of a stack is read at most."),
        KEY(capture, max_targets, capture_max_targets, CONFIG_NUMBER,
                .min = 1, .max = 65536, .default_value = "4096",
                .help = "Threads that are sampled at once at most."),

        KEY(stacks, blocked_on, stacks_blocked_on, CONFIG_BOOL, .default_value = "false",
                .help = "Whether the innermost frame says what a thread waits for: [read fd 7]."),

        KEY(python, stacks, python_stacks, CONFIG_WORD, .words = python_modes,
                .default_value = "python",
                .help = "Functions of Python and the innermost native one, or all native ones, too."),

        KEY(symbols, lines, symbols_lines, CONFIG_BOOL, .default_value = "true",
                .help = "Whether a frame names the source line."),

        KEY(limits, clients_per_uid, limits_clients_per_uid, CONFIG_NUMBER,
                .min = 1, .max = 65536, .default_value = "256",
                .help = "Programs of one user that may be connected."),
        KEY(limits, segments_per_client, limits_segments_per_client, CONFIG_NUMBER,
                .min = 1, .max = 65536, .default_value = "4096",
                .help = "Live requests of a program that are followed."),
};
/* clang-format on */

/* The parser notes in 64 bits which it has seen. */
_Static_assert(sizeof(config_keys) / sizeof(config_keys[0]) <= 64, "too many keys");

const size_t config_n_keys = sizeof(config_keys) / sizeof(config_keys[0]);

/* ---- numbers with units ---- */

typedef struct Unit {
        const char *name;
        uint32_t factor;
} Unit;

static const Unit no_units[] = {{"", 1}, {NULL}};
static const Unit size_units[] = {{"GiB", GIB}, {"MiB", MIB}, {"KiB", KIB}, {"", 1}, {NULL}};
static const Unit duration_units[] = {
        {"h", HOUR}, {"m", MINUTE}, {"s", SECOND}, {"ms", MS}, {NULL}};

static const Unit *key_units(const ConfigKey *k)
{
        return k->type == CONFIG_SIZE       ? size_units
               : k->type == CONFIG_DURATION ? duration_units
                                            : no_units;
}

static bool quantity_parse(const Unit *units, const char *text, uint64_t *ret)
{
        size_t n = strspn(text, "0123456789");
        uint64_t v = 0;

        /* More digits than any limit has. */
        if (n == 0 || n > 10)
                return false;
        for (size_t i = 0; i < n; i++)
                v = v * 10 + (uint64_t)(text[i] - '0');
        for (; units->name; units++)
                if (strcmp(text + n, units->name) == 0) {
                        *ret = v * units->factor;
                        return true;
                }
        return false;
}

/* In the largest unit that needs no fraction. */
static int quantity_format(const Unit *units, uint32_t v, char *ret, size_t size)
{
        while (units[1].name && (v == 0 || v % units->factor != 0))
                units++;
        return snprintf(ret, size, "%u%s", v / units->factor, units->name);
}

/* ---- texts ---- */

/* Printable ASCII: of other characters some are line breaks to YAML, some are none that it can have. */
static bool is_plain_text(const char *s, size_t max)
{
        size_t n = strlen(s);

        for (size_t i = 0; i < n; i++)
                if (s[i] < 0x20 || s[i] > 0x7e)
                        return false;
        return n <= max;
}

static bool is_server(const char *s)
{
        const char *host = s, *port = strrchr(s, ':');
        size_t host_size, digits;
        uint64_t number;

        if (!port)
                return false;
        host_size = (size_t)(port - host);
        digits = strlen(port + 1);
        if (digits > 5 || !quantity_parse(no_units, port + 1, &number) || number < 1 ||
                number > 65535)
                return false;
        if (host[0] == '[')
                return host_size > 2 && host[host_size - 1] == ']' &&
                       strspn(host + 1, "0123456789abcdefABCDEF:.%") == host_size - 2;
        for (size_t i = 0; i < host_size; i++)
                if (!isalnum((unsigned char)host[i]) && !strchr("-._", host[i]))
                        return false;
        return host_size > 0;
}

static bool is_servers(const char *s)
{
        char server[256 + sizeof(":65535")];

        while (s[0]) {
                size_t n = strcspn(s, ",");

                if (n >= sizeof(server))
                        return false;
                memcpy(server, s, n);
                server[n] = '\0';
                if (!is_server(server) || (s[n] && !s[n + 1]))
                        return false;
                s += n + (s[n] == ',');
        }
        return true;
}

static bool is_env_name(const char *s)
{
        return s[0] && strlen(s) == strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                              "0123456789_");
}

static bool is_secret_source(const char *s)
{
        if (strncmp(s, "env:", 4) == 0)
                return is_env_name(s + 4);
        return !s[0] || strncmp(s, "file:/", 6) == 0;
}

static int text_set(char **value, const char *text)
{
        char *copy = strdup(text);

        if (!copy)
                return error_origin(-ENOMEM);
        free(*value);
        *value = copy;
        return 0;
}

static int word_find(const ConfigKey *k, const char *text)
{
        for (int i = 0; k->words[i]; i++)
                if (strcmp(k->words[i], text) == 0)
                        return i;
        return -1;
}

/* "auto", or names with commas between. */
static int words_set(const ConfigKey *k, uint32_t *value, const char *text)
{
        uint32_t bits = 0;
        char word[32];

        if (strcmp(text, "auto") == 0) {
                *value = 0;
                return 0;
        }
        for (const char *s = text, *comma; s; s = comma ? comma + 1 : NULL) {
                size_t n;
                int i;

                s += strspn(s, " ");
                comma = strchr(s, ',');
                n = comma ? (size_t)(comma - s) : strlen(s);
                while (n > 0 && s[n - 1] == ' ')
                        n--;
                snprintf(word, sizeof(word), "%.*s", (int)n, s);
                i = word_find(k, word);
                if (i < 0)
                        return CONFIG_E_INVALID;
                bits |= 1U << i;
        }
        *value = bits;
        return 0;
}

static char *words_format(const ConfigKey *k, uint32_t bits)
{
        char text[128] = "[";
        size_t used = 1;

        if (bits == 0)
                return strdup("auto");
        for (unsigned i = 0; k->words[i] && used < sizeof(text); i++)
                if (bits & 1U << i)
                        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s",
                                used > 1 ? ", " : "", k->words[i]);
        snprintf(text + used, sizeof(text) - used, "]");
        return strdup(text);
}

/* ---- values ---- */

int config_key_set(const ConfigKey *k, Config *c, const char *text)
{
        void *value = (char *)c + k->offset;
        uint64_t v;

        switch (k->type) {
        case CONFIG_WORD_TEXT:
                return word_find(k, text) < 0 ? CONFIG_E_INVALID : text_set(value, text);
        case CONFIG_PATH:
                if (text[0] != '/' || !is_plain_text(text, k->max))
                        return CONFIG_E_INVALID;
                return text_set(value, text);
        case CONFIG_FILE:
                if ((text[0] && text[0] != '/') || !is_plain_text(text, k->max))
                        return CONFIG_E_INVALID;
                return text_set(value, text);
        case CONFIG_NAME:
                return is_plain_text(text, k->max) ? text_set(value, text) : CONFIG_E_INVALID;
        case CONFIG_SERVERS:
                if (!is_plain_text(text, k->max) || !is_servers(text))
                        return CONFIG_E_INVALID;
                return text_set(value, text);
        case CONFIG_SECRET:
                if (!is_plain_text(text, k->max) || !is_secret_source(text))
                        return CONFIG_E_INVALID;
                return text_set(value, text);
        case CONFIG_BOOL:
                /* The agents' variables may have the capitals of Python. */
                if (strcasecmp(text, "true") != 0 && strcasecmp(text, "false") != 0)
                        return CONFIG_E_INVALID;
                *(bool *)value = strcasecmp(text, "true") == 0;
                return 0;
        case CONFIG_WORD:
                if (word_find(k, text) < 0)
                        return CONFIG_E_INVALID;
                *(int *)value = word_find(k, text);
                return 0;
        case CONFIG_WORDS:
                return words_set(k, value, text);
        case CONFIG_NUMBER:
        case CONFIG_SIZE:
        case CONFIG_DURATION:
                if (!quantity_parse(key_units(k), text, &v) || v < k->min || v > k->max)
                        return CONFIG_E_INVALID;
                *(uint32_t *)value = (uint32_t)v;
                return 0;
        }
        return CONFIG_E_INVALID;
}

/* A path of harmless characters as it is; what YAML might take for something else in quotes. */
static char *text_format(const char *s)
{
        size_t n = strlen(s), used = 0;
        char *text;

        if (s[0] == '/' &&
                strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") ==
                        n)
                return strdup(s);
        text = malloc(2 * n + 3);
        if (!text)
                return NULL;
        text[used++] = '"';
        for (size_t i = 0; i < n; i++) {
                if (s[i] == '"' || s[i] == '\\')
                        text[used++] = '\\';
                text[used++] = s[i];
        }
        text[used++] = '"';
        text[used] = '\0';
        return text;
}

char *config_key_format(const ConfigKey *k, const Config *c)
{
        const void *value = (const char *)c + k->offset;
        char text[32];

        switch (k->type) {
        case CONFIG_WORD_TEXT:
                return strdup(*(char *const *)value);
        case CONFIG_PATH:
        case CONFIG_FILE:
        case CONFIG_NAME:
        case CONFIG_SERVERS:
        case CONFIG_SECRET:
                return text_format(*(char *const *)value);
        case CONFIG_BOOL:
                return strdup(*(const bool *)value ? "true" : "false");
        case CONFIG_WORD:
                return strdup(k->words[*(const int *)value]);
        case CONFIG_WORDS:
                return words_format(k, *(const uint32_t *)value);
        case CONFIG_NUMBER:
        case CONFIG_SIZE:
        case CONFIG_DURATION:
                break;
        }
        quantity_format(key_units(k), *(const uint32_t *)value, text, sizeof(text));
        return strdup(text);
}

void config_key_describe(const ConfigKey *k, char *ret, size_t size)
{
        char min[32], max[32];
        size_t used = 0;

        quantity_format(key_units(k), k->min, min, sizeof(min));
        quantity_format(key_units(k), k->max, max, sizeof(max));
        switch (k->type) {
        case CONFIG_PATH:
                snprintf(ret, size, "an absolute path of at most %u ASCII characters", k->max);
                return;
        case CONFIG_FILE:
                snprintf(ret, size, "an absolute path of at most %u ASCII characters, or \"\"",
                        k->max);
                return;
        case CONFIG_NAME:
                snprintf(ret, size, "a name of at most %u ASCII characters, or \"\"", k->max);
                return;
        case CONFIG_SERVERS:
                snprintf(ret, size, "host:port, or several with commas between, or \"\"");
                return;
        case CONFIG_SECRET:
                snprintf(ret, size, "env:NAME, file:/PATH, or \"\"");
                return;
        case CONFIG_BOOL:
                snprintf(ret, size, "true or false");
                return;
        case CONFIG_NUMBER:
                snprintf(ret, size, "a number from %s to %s", min, max);
                return;
        case CONFIG_SIZE:
                snprintf(ret, size, "a size from %s to %s, such as 8192 or 8KiB", min, max);
                return;
        case CONFIG_DURATION:
                snprintf(ret, size, "a duration from %s to %s, with its unit: ms, s, m or h", min,
                        max);
                return;
        case CONFIG_WORDS:
                used = (size_t)snprintf(ret, size, "auto, or a list of ");
                break;
        case CONFIG_WORD_TEXT:
        case CONFIG_WORD:
                break;
        }
        for (size_t i = 0; k->words[i] && used < size; i++)
                used += (size_t)snprintf(ret + used, size - used, "%s%s",
                        i == 0            ? ""
                        : k->words[i + 1] ? ", "
                                          : " or ",
                        k->words[i]);
}

/* ---- guesses ---- */

#define GUESS_MAX_NAME 32

/* Edits (a character more, less or another) from a to b. */
static unsigned distance(const char *a, const char *b)
{
        unsigned row[GUESS_MAX_NAME + 1];
        size_t n = strlen(b);

        if (n > GUESS_MAX_NAME || strlen(a) > GUESS_MAX_NAME)
                return GUESS_MAX_NAME;
        for (size_t j = 0; j <= n; j++)
                row[j] = (unsigned)j;
        for (size_t i = 0; a[i]; i++) {
                unsigned corner = row[0];

                row[0] = (unsigned)i + 1;
                for (size_t j = 0; j < n; j++) {
                        unsigned best = corner + (a[i] != b[j]);

                        corner = row[j + 1];
                        if (row[j] + 1 < best)
                                best = row[j] + 1;
                        if (corner + 1 < best)
                                best = corner + 1;
                        row[j + 1] = best;
                }
        }
        return row[n];
}

const char *config_key_guess(const char *section, const char *name)
{
        const char *best = NULL;
        unsigned best_distance = 3;

        for (size_t i = 0; i < config_n_keys; i++) {
                const ConfigKey *k = &config_keys[i];
                /* The right name in the wrong section counts as one edit. */
                unsigned d = distance(name, k->name) + (strcmp(section, k->section) != 0);

                /* Of a short name, two letters are most of it. */
                if (d < best_distance && d < strlen(k->name) / 2) {
                        best = k->full_name;
                        best_distance = d;
                }
                if (section[0] || !k->section[0])
                        continue;
                d = distance(name, k->section);
                if (d < best_distance && d < strlen(k->section) / 2 + 1) {
                        best = k->section;
                        best_distance = d;
                }
        }
        return best;
}
