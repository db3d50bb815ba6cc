/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

/*
 * The daemon's configuration: one flat table of keys ("section.key") drives parsing, range checks, the canonical print
 * and the documentation test, so that no default, limit or name stands twice. Values are YAML scalars, in which
 * `${ENV_NAME:default}` is replaced (SkyWalking's convention). Durations are written with a unit (`500ms`,
 * `20s`, `10m`), sizes as plain numbers or with KiB/MiB.
 */

typedef enum CaptureBackend {
        CAPTURE_BACKEND_AUTO,
        CAPTURE_BACKEND_BPF,         /* one of the next two */
        CAPTURE_BACKEND_BPF_SYSCALL, /* SEC("syscall") + bpf_task_from_pid */
        CAPTURE_BACKEND_BPF_ITER,    /* iter.s/task */
        CAPTURE_BACKEND_PTRACE,      /* stops the threads */
} CaptureBackend;

typedef enum UnwindMode {
        UNWIND_MODE_DWARF,
        UNWIND_MODE_FP,
} UnwindMode;

typedef enum PythonStacks {
        PYTHON_STACKS_PYTHON, /* functions of Python, and the innermost native one below them */
        PYTHON_STACKS_MIXED,  /* and the native ones between them */
} PythonStacks;

typedef enum ReportSegments {
        REPORT_SEGMENTS_AUTO, /* for clients whose hello says that no agent does */
        REPORT_SEGMENTS_NEVER,
} ReportSegments;

typedef enum Compression {
        COMPRESSION_NONE,
        COMPRESSION_GZIP,
} Compression;

typedef enum Redelivery {
        REDELIVERY_AT_MOST_ONCE,
        REDELIVERY_AT_LEAST_ONCE,
} Redelivery;

/* Bits of Config.backends; none: OAP if a server is named, else LOCAL. */
enum {
        BACKEND_OAP = 1,
        BACKEND_LOCAL = 2,
};

typedef struct Config {
        char *log_level;
        char *span_socket;
        char *control_socket;
        char *control_group; /* may use the control socket, beside root; may not exist */
        char *state_dir;

        uint32_t backends; /* see config_backends() */

        char *oap_servers;        /* host:port, with commas between; empty: no OAP */
        uint32_t oap_failover_ms; /* without a sign of life, until another server is tried */
        bool oap_tls;
        char *oap_ca_file;          /* empty: the system's authorities */
        char *oap_certificate_file; /* empty: none */
        char *oap_key_file;         /* of the certificate */
        char *oap_server_name;      /* that certificates are to have; empty: that of oap_servers */
        char *oap_authentication;   /* where the token is: env:NAME, file:PATH; empty: none */
        int oap_compression;        /* Compression */
        uint32_t oap_poll_interval_ms;
        uint32_t oap_deadline_ms;
        uint32_t oap_batch_interval_ms;
        uint32_t oap_batch_snapshots;
        uint32_t oap_buffer_bytes; /* snapshots waiting for the OAP */
        bool oap_heartbeat;
        uint32_t oap_heartbeat_interval_ms;
        int oap_report_segments; /* ReportSegments */
        int oap_redelivery;      /* Redelivery */

        uint32_t store_max_bytes; /* of the database */

        uint32_t local_max_bytes; /* of the local backend's database */
        uint32_t local_max_age_ms;

        bool profile_active;
        uint32_t profile_max_parallel;
        uint32_t profile_max_sub_parallel;
        uint32_t profile_max_duration_ms; /* per segment */
        uint32_t profile_max_depth;
        uint32_t profile_max_pending;         /* watched segments per instance */
        uint32_t profile_max_pending_samples; /* held per segment until the threshold */
        uint32_t profile_settle_ms; /* a sample waits so long for a late stop of its span */

        int capture_backend; /* CaptureBackend */
        int capture_unwind;  /* UnwindMode */
        bool capture_kernel_frames;
        bool capture_realtime;
        uint32_t capture_max_stack_bytes;
        uint32_t capture_max_targets;

        bool stacks_blocked_on;
        int python_stacks; /* PythonStacks */
        bool symbols_lines;

        uint32_t limits_clients_per_uid;
        uint32_t limits_segments_per_client;
} Config;

/* The configuration of an empty file: see config_parse(), which says what is returned. */
int config_init_default(Config *ret, char **ret_error);
void config_deinit(Config *c);

/*
 * Pure: text → configuration over the defaults. `name` is the file's name in messages. `env` looks a variable up
 * (getenv outside of tests); one that is empty counts as not set. A key that is not there has the value of its
 * SW_AGENT_… variable, if it has one and that is set, else its default.
 * Return: 0; CONFIG_E_INVALID with *ret_error a malloc'ed "name:line:column: message" that says what is allowed (or
 * "environment: message"); -ENOMEM. *ret is untouched unless 0.
 */
enum {
        _CONFIG_E_SUCCESS,
        CONFIG_E_INVALID,
};
typedef char *(*ConfigEnv)(const char *name);
int config_parse(Config *ret, const char *name, const char *text, size_t size, ConfigEnv env,
        char **ret_error);

/*
 * Replaces the value of one key ("section.key"), from the command line: `origin` stands in messages instead of a file's
 * name. Return: 0, CONFIG_E_INVALID with *ret_error, -ENOMEM.
 */
int config_set(Config *c, const char *origin, const char *key, const char *value, char **ret_error);

/* The backends that are wanted: BACKEND_*, at least one. */
unsigned config_backends(const Config *c);

/* Reads the file and parses it. A missing file is CONFIG_E_INVALID too. At most 1 MiB. */
int config_load(Config *ret, const char *path, char **ret_error);

/* The canonical YAML of a configuration, malloc'ed: loading it gives the same again. Return: NULL: no memory. */
char *config_format(const Config *c);

/* The n-th key as "section.key" with its one-line documentation; NULL past the last. For tests and man pages. */
const char *config_key(size_t n, const char **ret_help);
