/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/config.h"

static struct {
        const char *name, *value;
} variables[4];

static char *fake_env(const char *name)
{
        for (size_t i = 0; i < 4 && variables[i].name; i++)
                if (strcmp(variables[i].name, name) == 0)
                        return (char *)variables[i].value;
        return NULL;
}

static Config parse_good(const char *text)
{
        Config c;
        char *error = NULL;
        int r = config_parse(&c, "f", text, strlen(text), fake_env, &error);

        cr_assert_eq(r, 0, "%s", error);
        return c;
}

static char *parse_bad(const char *text, size_t size)
{
        Config c, untouched;
        char *error = NULL;

        memset(&c, 0x55, sizeof(c));
        untouched = c;
        cr_assert_eq(
                config_parse(&c, "f", text, size, fake_env, &error), CONFIG_E_INVALID, "%s", text);
        cr_assert_eq(memcmp(&c, &untouched, sizeof(c)), 0);
        cr_assert_not_null(error);
        return error;
}

static char *read_shipped(void)
{
        static char text[16384];
        FILE *f = fopen(getenv("SWPROFD_SHIPPED_CONFIG"), "re");

        cr_assert_not_null(f);
        text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
        fclose(f);
        return text;
}

static char *canonical(const char *text)
{
        Config c = parse_good(text);
        char *printed = config_format(&c);

        config_deinit(&c);
        return printed;
}

Test(config, defaults)
{
        Config c = parse_good("");

        cr_assert_str_eq(c.log_level, "info");
        cr_assert_str_eq(c.span_socket, "/run/swprofd/span.sock");
        cr_assert_str_eq(c.control_socket, "/run/swprofd/control.sock");
        cr_assert_str_eq(c.control_group, "swprofd");
        cr_assert_str_eq(c.state_dir, "/var/lib/swprofd");
        cr_assert_eq(c.backends, 0);
        cr_assert_str_eq(c.oap_servers, "");
        cr_assert_eq(c.oap_failover_ms, 3000);
        cr_assert_not(c.oap_tls);
        cr_assert_str_eq(c.oap_ca_file, "");
        cr_assert_str_eq(c.oap_certificate_file, "");
        cr_assert_str_eq(c.oap_key_file, "");
        cr_assert_str_eq(c.oap_server_name, "");
        cr_assert_str_eq(c.oap_authentication, "env:SW_AGENT_AUTHENTICATION");
        cr_assert_eq(c.oap_compression, COMPRESSION_NONE);
        cr_assert_eq(c.oap_poll_interval_ms, 20000);
        cr_assert_eq(c.oap_deadline_ms, 30000);
        cr_assert_eq(c.oap_batch_interval_ms, 500);
        cr_assert_eq(c.oap_batch_snapshots, 500);
        cr_assert_eq(c.oap_buffer_bytes, 16 << 20);
        cr_assert_not(c.oap_heartbeat);
        cr_assert_eq(c.oap_heartbeat_interval_ms, 30000);
        cr_assert_eq(c.oap_report_segments, REPORT_SEGMENTS_AUTO);
        cr_assert(c.profile_active);
        cr_assert_eq(c.profile_max_parallel, 5);
        cr_assert_eq(c.profile_max_sub_parallel, 5);
        cr_assert_eq(c.profile_max_duration_ms, 600000);
        cr_assert_eq(c.profile_max_depth, 500);
        cr_assert_eq(c.profile_max_pending, 256);
        cr_assert_eq(c.profile_max_pending_samples, 2048);
        cr_assert_eq(c.profile_settle_ms, 100);
        cr_assert_eq(c.capture_backend, CAPTURE_BACKEND_AUTO);
        cr_assert_eq(c.capture_unwind, UNWIND_MODE_DWARF);
        cr_assert_not(c.capture_kernel_frames);
        cr_assert_eq(c.capture_max_stack_bytes, 65536);
        cr_assert_eq(c.capture_max_targets, 4096);
        cr_assert(c.symbols_lines);
        cr_assert_eq(c.limits_clients_per_uid, 256);
        cr_assert_eq(c.limits_segments_per_client, 4096);
        config_deinit(&c);
        config_deinit(&c);
}

Test(config, backends)
{
        static const struct {
                const char *text;
                unsigned backends;
        } good[] = {
                {"", BACKEND_LOCAL},
                {"backends: auto", BACKEND_LOCAL},
                {"oap: {servers: 'a:1'}", BACKEND_OAP},
                {"backends: auto\noap: {servers: 'a:1'}", BACKEND_OAP},
                {"backends: oap", BACKEND_OAP},
                {"backends: [local]\noap: {servers: 'a:1'}", BACKEND_LOCAL},
                {"backends: [local, oap]", BACKEND_OAP | BACKEND_LOCAL},
                {"backends:\n- oap\n- local\n", BACKEND_OAP | BACKEND_LOCAL},
                {"backends: 'oap, local'", BACKEND_OAP | BACKEND_LOCAL},
        };
        char *printed;

        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
                Config c = parse_good(good[i].text);

                cr_assert_eq(config_backends(&c), good[i].backends, "%s", good[i].text);
                config_deinit(&c);
        }
        printed = canonical("backends: [local, oap]");
        cr_assert(strstr(printed, "\nbackends: [oap, local]\n"));
        free(printed);
}

Test(config, values)
{
        Config c = parse_good("log_level: debug\n"
                              "span_socket: \"/tmp/a b\"\n"
                              "control_group: ''\n"
                              "oap:\n"
                              "  servers: '[::1]:11800,a.b-c_d:1'\n"
                              "  poll_interval: 1m\n"
                              "  buffer: 65536\n"
                              "  heartbeat: True\n"
                              "  report_segments: never\n"
                              "profile: {active: false, settle: 0s, max_duration: 2h}\n"
                              "capture:\n"
                              "  backend: bpf-iter\n"
                              "  unwind: \"fp\"\n"
                              "  max_stack_bytes: 8KiB\n"
                              "symbols:\n"
                              "limits:\n"
                              "  # nothing\n");

        cr_assert_str_eq(c.log_level, "debug");
        cr_assert_str_eq(c.span_socket, "/tmp/a b");
        cr_assert_str_eq(c.control_group, "");
        cr_assert_str_eq(c.oap_servers, "[::1]:11800,a.b-c_d:1");
        cr_assert_eq(c.oap_poll_interval_ms, 60000);
        cr_assert_eq(c.oap_buffer_bytes, 65536);
        cr_assert(c.oap_heartbeat);
        cr_assert_eq(c.oap_report_segments, REPORT_SEGMENTS_NEVER);
        cr_assert_not(c.profile_active);
        cr_assert_eq(c.profile_settle_ms, 0);
        cr_assert_eq(c.profile_max_duration_ms, 7200000);
        cr_assert_eq(c.capture_backend, CAPTURE_BACKEND_BPF_ITER);
        cr_assert_eq(c.capture_unwind, UNWIND_MODE_FP);
        cr_assert_eq(c.capture_max_stack_bytes, 8192);
        config_deinit(&c);
}

Test(config, variables)
{
        Config c;

        variables[0].name = "OAP";
        variables[0].value = "oap.example.org:1";
        variables[1].name = "EMPTY";
        variables[1].value = "";
        variables[2].name = "N";
        variables[2].value = "7";
        c = parse_good("oap: {servers: \"${OAP:x:2}\", poll_interval: \"${N}s\"}\n"
                       "state_dir: /a/${EMPTY:b}/${NONE:c$d}/${N:9}$\n"
                       "control_group: ${NONE:}\n"
                       "span_socket: ${NONE:/a:b}\n");
        cr_assert_str_eq(c.oap_servers, "oap.example.org:1");
        cr_assert_eq(c.oap_poll_interval_ms, 7000);
        cr_assert_str_eq(c.state_dir, "/a/b/c$d/7$");
        cr_assert_str_eq(c.control_group, "");
        cr_assert_str_eq(c.span_socket, "/a:b");
        config_deinit(&c);
}

Test(config, variables_of_the_agents)
{
        Config c;

        variables[0].name = "SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL";
        variables[0].value = "3";
        variables[1].name = "SW_AGENT_PROFILE_DURATION";
        variables[1].value = "2";
        variables[2].name = "SW_AGENT_PROFILE_ACTIVE";
        variables[2].value = "False";
        variables[3].name = "SW_AGENT_PROFILE_MAX_PARALLEL";
        variables[3].value = "9";
        c = parse_good("profile:\n  max_parallel: 2\n");
        cr_assert_eq(c.oap_poll_interval_ms, 3000);
        cr_assert_eq(c.profile_max_duration_ms, 120000);
        cr_assert_not(c.profile_active);
        /* The file wins. */
        cr_assert_eq(c.profile_max_parallel, 2);
        config_deinit(&c);
        c = parse_good(read_shipped());
        cr_assert_eq(c.oap_poll_interval_ms, 3000);
        cr_assert_eq(c.profile_max_duration_ms, 120000);
        cr_assert_not(c.profile_active);
        cr_assert_eq(c.profile_max_parallel, 9);
        config_deinit(&c);
}

Test(config, wrong_variable_of_the_agents)
{
        char *error;

        variables[0].name = "SW_AGENT_PROFILE_DURATION";
        variables[0].value = "ten";
        error = parse_bad("", 0);
        cr_assert_str_eq(error,
                "environment: SW_AGENT_PROFILE_DURATION is 'ten', for profile.max_duration: 'tenm' "
                "must be a duration from 1s to 24h, with its unit: ms, s, m or h");
        free(error);
}

typedef struct Bad {
        char text[160], error[240];
} Bad;

#define KEYS                                                                             \
        "allowed are log_level, span_socket, control_socket, control_group, state_dir, " \
        "backends, oap, store, local, profile, capture, stacks, python, symbols, limits"
#define PATH     "it must be an absolute path of at most 107 ASCII characters"
#define SERVERS  "it must be host:port, or several with commas between, or \"\""
#define SECRET   "must say where the secret is: env:NAME, file:/PATH, or \"\""
#define BACKENDS "it must be auto, or a list of oap or local"
#define DEADLINE "it must be a duration from 100ms to 10m, with its unit: ms, s, m or h"
#define DEPTH    "it must be a number from 1 to 4096"

ParameterizedTestParameters(config, errors)
{
        static Bad cases[] = {
                {"span_sockt: /a\n",
                        "1:1: there is no key 'span_sockt' here: did you mean 'span_socket'?"},
                {"\nprofile:\n  max_paralell: 5\n", "3:3: there is no key 'max_paralell' here: did "
                                                    "you mean 'profile.max_parallel'?"},
                {"max_parallel: 5\n", "1:1: there is no key 'max_parallel' here: did you mean "
                                      "'profile.max_parallel'?"},
                {"profil:\n  active: true\n",
                        "1:1: there is no key 'profil' here: did you mean 'profile'?"},
                {"symbols:\n  something: 1\n",
                        "2:3: there is no key 'something' here: allowed are lines"},
                {"else: 1\n", "1:1: there is no key 'else' here: " KEYS},
                {"<<: {a: 1}\n", "1:1: there is no key '<<' here: " KEYS},
                {"oap.servers: a:1\n", "1:1: there is no key 'oap.servers' here: " KEYS},
                {"\"\": 1\n", "1:1: there is no key '' here: " KEYS},
                {"state_dir: /a\nstate_dir: /b\n", "2:1: state_dir is there twice"},
                {"oap: {deadline: 1s, deadline: 1s}\n", "1:21: oap.deadline is there twice"},
                {"oap:\nsymbols:\noap:\n", "3:1: oap is there twice"},
                {"oap: 5\n", "1:6: oap is a section: it must have keys with values below it"},
                {"oap: []\n", "1:6: oap is a section: it must have keys with values below it"},
                {"backends: [oap, remote]\n", "1:11: backends is 'oap,remote': " BACKENDS},
                {"backends: []\n", "1:11: backends is '': " BACKENDS},
                {"backends: [[oap]]\n", "1:11: backends is 'a list of lists': " BACKENDS},
                {"backends: {oap: 1}\n", "1:11: backends is 'a mapping': " BACKENDS},
                {"log_level: loud\n", "1:12: log_level is 'loud': it must be error, warning, "
                                      "notice, info or debug"},
                {"span_socket: run/a\n", "1:14: span_socket is 'run/a': " PATH},
                {"span_socket: \"/a\\tb\"\n", "1:14: span_socket is '/a\tb': " PATH},
                {"control_group: \"a\\Nb\"\n", "1:16: control_group is 'a\302\205b': it must be a "
                                               "name of at most 255 ASCII characters, or \"\""},
                {"span_socket: \"/a\\0b\"\n", "1:14: NUL is not allowed"},
                {"span_socket:\n", "1:13: span_socket is '': " PATH},
                {"span_socket: [/a]\n", "1:14: span_socket is 'a list': " PATH},
                {"span_socket:\n  a: /b\n", "2:3: span_socket is 'a mapping': " PATH},
                {"oap:\n  servers: a:1,\n", "2:12: oap.servers is 'a:1,': " SERVERS},
                {"oap:\n  servers: a:1,,b:1\n", "2:12: oap.servers is 'a:1,,b:1': " SERVERS},
                {"oap:\n  servers: a:1, b:1\n", "2:12: oap.servers is 'a:1, b:1': " SERVERS},
                {"oap:\n  servers: a\n", "2:12: oap.servers is 'a': " SERVERS},
                {"oap:\n  servers: a:1,b:70000\n", "2:12: oap.servers is 'a:1,b:70000': " SERVERS},
                {"oap:\n  servers: ':1'\n", "2:12: oap.servers is ':1': " SERVERS},
                {"oap: {ca_file: ca.crt}\n",
                        "1:16: oap.ca_file is 'ca.crt': it must be an absolute path of at most "
                        "4095 ASCII characters, or \"\""},
                {"oap:\n  authentication: s3cret\n", "2:19: oap.authentication " SECRET},
                {"oap:\n  authentication: env:s3-cret\n", "2:19: oap.authentication " SECRET},
                {"oap:\n  authentication: file:token\n", "2:19: oap.authentication " SECRET},
                {"oap:\n  authentication: [s3cret]\n", "2:19: oap.authentication " SECRET},
                {"oap: {compression: zip}\n",
                        "1:20: oap.compression is 'zip': it must be none or gzip"},
                {"oap: {heartbeat: yes}\n",
                        "1:18: oap.heartbeat is 'yes': it must be true or false"},
                {"oap: {report_segments: always}\n",
                        "1:24: oap.report_segments is 'always': it must be auto or never"},
                {"profile: {max_depth: 0}\n", "1:22: profile.max_depth is '0': " DEPTH},
                {"profile: {max_depth: -1}\n", "1:22: profile.max_depth is '-1': " DEPTH},
                {"profile: {max_depth: 4294967297}\n",
                        "1:22: profile.max_depth is '4294967297': " DEPTH},
                {"profile: {max_depth: 99999999999999999999}\n",
                        "1:22: profile.max_depth is '99999999999999999999': " DEPTH},
                {"profile: {max_depth: 5s}\n", "1:22: profile.max_depth is '5s': " DEPTH},
                {"oap: {deadline: 30}\n", "1:17: oap.deadline is '30': " DEADLINE},
                {"oap: {deadline: 1.5s}\n", "1:17: oap.deadline is '1.5s': " DEADLINE},
                {"oap: {deadline: 9999999999h}\n",
                        "1:17: oap.deadline is '9999999999h': " DEADLINE},
                {"capture:\n  max_stack_bytes: 128KiB\n",
                        "2:20: capture.max_stack_bytes is '128KiB': it must be a size from 4KiB to "
                        "64KiB, such as 8192 or 8KiB"},
                {"state_dir: /${NOT_SET}\n", "1:12: the environment variable NOT_SET is not set: "
                                             "${NOT_SET:default} would say what holds then"},
                {"state_dir: /${A\n", "1:12: '${A' is not understood: it must be ${NAME:default}"},
                {"state_dir: /${}\n", "1:12: '${}' is not understood: it must be ${NAME:default}"},
                {"state_dir: /${a-b:c}\n",
                        "1:12: '${a-b:c}' is not understood: it must be ${NAME:default}"},
                {"state_dir: /${A:${B:c}}\n",
                        "1:12: '/${B:c}' has ${ within: variables cannot be nested"},
                {"state_dir: &a /x\n", "1:12: anchors and aliases are not allowed"},
                {"state_dir: *a\n", "1:12: anchors and aliases are not allowed"},
                {"oap: &a {}\n", "1:6: anchors and aliases are not allowed"},
                {"state_dir: !!str /x\n", "1:12: tags are not allowed"},
                {"state_dir: /x\n---\nstate_dir: /y\n", "2:1: a second document is not allowed"},
                {"just text\n", "1:1: the configuration must be keys with values"},
                {"- a\n- b\n", "1:1: the configuration must be keys with values"},
                {"? [a]\n: b\n", "1:3: a key must be a name"},
                {"state_dir: \"/x\n", "2:1: this is not YAML: found unexpected end of stream"},
                {"log_level: info: c\n",
                        "1:16: this is not YAML: mapping values are not allowed in this context"},
                {"a:\n\t- b\n",
                        "2:1: this is not YAML: found character that cannot start any token"},
                {"# x\ns\x01: 1\n", "2:2: this is not YAML: control characters are not allowed"},
                {"#\xff\n", "1:2: this is not YAML: invalid leading UTF-8 octet"},
        };

        return cr_make_param_array(Bad, cases, sizeof(cases) / sizeof(cases[0]));
}

ParameterizedTest(Bad *bad, config, errors)
{
        char *error = parse_bad(bad->text, strlen(bad->text));

        cr_assert_eq(strncmp(error, "f:", 2), 0);
        cr_assert_str_eq(error + 2, bad->error);
        free(error);
}

Test(config, nul_byte)
{
        char *error = parse_bad("oap:\n\0 a", 8);

        cr_assert_str_eq(error, "f:2:1: this is not YAML: control characters are not allowed");
        free(error);
}

Test(config, long_values)
{
        static char text[40000];
        char *error;

        memset(text, 'x', sizeof(text) - 1);
        memcpy(text, "state_dir: /", 12);
        error = parse_bad(text, sizeof(text) - 1);
        cr_assert_str_eq(error, "f:1:12: the value is longer than 16384 bytes");
        free(error);
        text[200] = '\0';
        memcpy(text, "span_socket: /", 14);
        free(parse_bad(text, 200));
        text[13 + 107] = '\0';
        free(canonical(text));
        /* A name that is longer than all that are known. */
        memset(text, 'x', sizeof(text) - 1);
        memcpy(text + 500, ": 1\n", 5);
        free(parse_bad(text, 504));
}

Test(config, canonical_is_a_fixed_point)
{
        const char *texts[] = {
                "",
                "oap: {servers: '', poll_interval: 90s, batch_interval: 1500ms, buffer: 65537}\n"
                "profile: {settle: 0ms, max_duration: 60m, active: false}\n"
                "capture: {backend: bpf-syscall, unwind: fp, max_stack_bytes: 4096}\n",
                "log_level: error\nspan_socket: \"/a \\\"b\\\\ # c: d\"\ncontrol_group: 'yes'\n"
                "state_dir: /~\n",
                "control_group: ''\n",
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
                char *once = canonical(texts[i]), *twice = canonical(once);
                Config a = parse_good(texts[i]), b = parse_good(once);

                cr_assert_str_eq(once, twice);
                cr_assert_str_eq(a.span_socket, b.span_socket);
                cr_assert_str_eq(a.control_group, b.control_group);
                cr_assert_str_eq(a.oap_servers, b.oap_servers);
                cr_assert_eq(a.oap_buffer_bytes, b.oap_buffer_bytes);
                cr_assert_eq(a.profile_settle_ms, b.profile_settle_ms);
                config_deinit(&a);
                config_deinit(&b);
                free(once);
                free(twice);
        }
}

Test(config, shipped_file)
{
        const char *shipped = read_shipped();
        char *from_shipped = canonical(shipped), *from_nothing = canonical("");
        const char *help, *name;

        cr_assert_str_eq(from_shipped, from_nothing);
        for (size_t i = 0; (name = config_key(i, &help)); i++) {
                const char *dot = strrchr(name, '.');
                char line[64];

                snprintf(line, sizeof(line), "%s%s: ", dot ? "\n  " : "\n", dot ? dot + 1 : name);
                cr_assert_not_null(strstr(shipped, line), "%s", name);
                cr_assert_gt(strlen(help), 10);
                cr_assert_eq(help[strlen(help) - 1], '.');
        }
        free(from_shipped);
        free(from_nothing);
}

Test(config, load)
{
        char path[] = "/tmp/swprofd-test-XXXXXX";
        int fd = mkstemp(path);
        static char large[(1 << 20) + 1];
        char expected[128], *error = NULL;
        Config c;

        cr_assert_eq(write(fd, "state_dir: /x\n", 14), 14);
        cr_assert_eq(config_load(&c, path, &error), 0);
        cr_assert_str_eq(c.state_dir, "/x");
        config_deinit(&c);

        memset(large, '\n', sizeof(large));
        cr_assert_eq(pwrite(fd, large, sizeof(large), 14), sizeof(large));
        cr_assert_eq(config_load(&c, path, &error), CONFIG_E_INVALID);
        snprintf(expected, sizeof(expected), "%s: it is larger than 1 MiB", path);
        cr_assert_str_eq(error, expected);
        free(error);
        close(fd);
        unlink(path);
        cr_assert_eq(config_load(&c, path, &error), CONFIG_E_INVALID);
        snprintf(expected, sizeof(expected), "%s: No such file or directory", path);
        cr_assert_str_eq(error, expected);
        free(error);
        cr_assert_eq(config_load(&c, "/dev/null", &error), 0);
        config_deinit(&c);
        cr_assert_eq(config_load(&c, "/", &error), CONFIG_E_INVALID);
        free(error);
}
