/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

#include "core/config-key.h"
#include "util/error.h"

/* Of a file. */
#define FILE_MAX (1024 * 1024)

/* Of a value, its variables replaced. */
#define VALUE_MAX 16384

typedef struct Parser {
        const char *name;
        const char *text;
        size_t size;
        ConfigEnv env;
        char *error;
        Config config;
        uint64_t keys_seen;     /* by place in config_keys */
        uint64_t sections_seen; /* by the place of their first key */
        yaml_parser_t yaml;
} Parser;

/* One that is all zero is no event. */
static void event_deinit(yaml_event_t *e)
{
        yaml_event_delete(e);
}

/* ---- messages ---- */

/* Return: CONFIG_E_INVALID, -ENOMEM. */
static int __attribute__((format(printf, 3, 4)))
parser_fail(Parser *p, yaml_mark_t at, const char *format, ...)
{
        _cleanup_(freep) char *message = NULL;
        va_list args;
        int n;

        va_start(args, format);
        n = vasprintf(&message, format, args);
        va_end(args);
        if (n < 0) {
                message = NULL;
                return error_origin(-ENOMEM);
        }
        if (asprintf(&p->error, "%s:%zu:%zu: %s", p->name, at.line + 1, at.column + 1, message) <
                0) {
                p->error = NULL;
                return error_origin(-ENOMEM);
        }
        return CONFIG_E_INVALID;
}

/* The reader of libyaml knows the byte only. */
static yaml_mark_t mark_of_offset(const Parser *p, size_t offset)
{
        yaml_mark_t at = {0};

        for (size_t i = 0; i < offset && i < p->size; i++) {
                at.column++;
                if (p->text[i] == '\n') {
                        at.line++;
                        at.column = 0;
                }
        }
        return at;
}

static int parser_fail_yaml(Parser *p)
{
        const yaml_parser_t *yaml = &p->yaml;

        if (yaml->error == YAML_MEMORY_ERROR)
                return error_origin(-ENOMEM);
        return parser_fail(p,
                yaml->error == YAML_READER_ERROR ? mark_of_offset(p, yaml->problem_offset)
                                                 : yaml->problem_mark,
                "this is not YAML: %s", yaml->problem);
}

static int fail_unknown(Parser *p, yaml_mark_t at, const char *section, const char *name)
{
        const char *guess = config_key_guess(section, name);
        const char *last = "";
        char allowed[512];
        size_t used = 0;

        if (guess)
                return parser_fail(
                        p, at, "there is no key '%.64s' here: did you mean '%s'?", name, guess);
        allowed[0] = '\0';
        for (size_t i = 0; i < config_n_keys && used < sizeof(allowed); i++) {
                const ConfigKey *k = &config_keys[i];
                const char *word = strcmp(section, k->section) == 0          ? k->name
                                   : !section[0] && strcmp(last, k->section) ? k->section
                                                                             : NULL;

                last = k->section;
                if (word)
                        used += (size_t)snprintf(allowed + used, sizeof(allowed) - used, "%s%s",
                                used > 0 ? ", " : "", word);
        }
        return parser_fail(p, at, "there is no key '%.64s' here: allowed are %s", name, allowed);
}

static int fail_value(Parser *p, yaml_mark_t at, const ConfigKey *k, const char *value)
{
        char allowed[128];

        config_key_describe(k, allowed, sizeof(allowed));
        /* What is there may be the secret. */
        if (k->type == CONFIG_SECRET)
                return parser_fail(
                        p, at, "%s must say where the secret is: %s", k->full_name, allowed);
        return parser_fail(p, at, "%s is '%.64s': it must be %s", k->full_name, value, allowed);
}

/* ---- variables ---- */

/* Empty is not set. */
static const char *parser_env(const Parser *p, const char *name)
{
        const char *value = p->env(name);

        return value && value[0] ? value : NULL;
}

/*
 * Replaces each ${NAME:default}. What comes of it is text, not looked at again. Return: 0,
 * CONFIG_E_INVALID, -ENOMEM.
 */
static int parser_expand(Parser *p, yaml_mark_t at, const char *text, char *ret)
{
        size_t used = 0;

        while (*text) {
                size_t n = strncmp(text, "${", 2) == 0 ? strcspn(text, "}") : 0, name_size;
                const char *value = text, *next = text + 1;
                char name[64];

                if (n > 0) {
                        name_size = strspn(text + 2,
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
                        if (text[n] != '}' || name_size < 1 || name_size >= sizeof(name) ||
                                (text[2 + name_size] != ':' && text[2 + name_size] != '}'))
                                return parser_fail(p, at,
                                        "'%.64s' is not understood: it must be ${NAME:default}",
                                        text);
                        next = text + n + 1;
                        memcpy(name, text + 2, name_size);
                        name[name_size] = '\0';
                        value = parser_env(p, name);
                        if (value) {
                                n = strlen(value);
                        } else if (text[2 + name_size] == ':') {
                                value = text + 2 + name_size + 1;
                                n = (size_t)(next - 1 - value);
                        } else {
                                return parser_fail(p, at,
                                        "the environment variable %s is not set: ${%s:default} "
                                        "would say what holds then",
                                        name, name);
                        }
                } else {
                        n = 1;
                }
                if (n >= VALUE_MAX - used)
                        return parser_fail(p, at, "the value is longer than %d bytes", VALUE_MAX);
                memcpy(ret + used, value, n);
                used += n;
                text = next;
        }
        ret[used] = '\0';
        /* It could not be written down in another file as it is. */
        if (strstr(ret, "${"))
                return parser_fail(p, at, "'%.64s' has ${ within: variables cannot be nested", ret);
        return 0;
}

/* ---- the document ---- */

static int parser_next(Parser *p, yaml_event_t *ret)
{
        if (!yaml_parser_parse(&p->yaml, ret))
                return parser_fail_yaml(p);
        if (ret->type == YAML_ALIAS_EVENT ||
                (ret->type == YAML_SCALAR_EVENT && ret->data.scalar.anchor) ||
                (ret->type == YAML_MAPPING_START_EVENT && ret->data.mapping_start.anchor) ||
                (ret->type == YAML_SEQUENCE_START_EVENT && ret->data.sequence_start.anchor))
                return parser_fail(p, ret->start_mark, "anchors and aliases are not allowed");
        if ((ret->type == YAML_SCALAR_EVENT && ret->data.scalar.tag) ||
                (ret->type == YAML_MAPPING_START_EVENT && ret->data.mapping_start.tag) ||
                (ret->type == YAML_SEQUENCE_START_EVENT && ret->data.sequence_start.tag))
                return parser_fail(p, ret->start_mark, "tags are not allowed");
        if (ret->type == YAML_SCALAR_EVENT &&
                strlen((const char *)ret->data.scalar.value) != ret->data.scalar.length)
                return parser_fail(p, ret->start_mark, "NUL is not allowed");
        return 0;
}

static bool event_is_nothing(const yaml_event_t *e)
{
        return e->type == YAML_SCALAR_EVENT && e->data.scalar.length == 0 &&
               e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* A list of words becomes a text with commas between them. Return: as parser_next(). */
static int parser_list(Parser *p, const ConfigKey *k, yaml_mark_t at, char *ret)
{
        size_t used = 0;

        for (ret[0] = '\0';;) {
                _cleanup_(event_deinit) yaml_event_t e = {0};
                int r = parser_next(p, &e);

                if (r)
                        return error_trace(r);
                if (e.type == YAML_SEQUENCE_END_EVENT)
                        return 0;
                if (e.type != YAML_SCALAR_EVENT)
                        return fail_value(p, at, k, "a list of lists");
                used += (size_t)snprintf(ret + used, VALUE_MAX - used, "%s%s", used > 0 ? "," : "",
                        (const char *)e.data.scalar.value);
                if (used >= VALUE_MAX)
                        return parser_fail(p, at, "the value is longer than %d bytes", VALUE_MAX);
        }
}

static int parser_value(Parser *p, const ConfigKey *k, const yaml_event_t *e)
{
        char value[VALUE_MAX];
        int r;

        if (e->type == YAML_SEQUENCE_START_EVENT && k->type == CONFIG_WORDS) {
                r = parser_list(p, k, e->start_mark, value);
                if (r)
                        return error_trace(r);
                r = config_key_set(k, &p->config, value);
                return r > 0 ? fail_value(p, e->start_mark, k, value) : error_trace(r);
        }
        if (e->type != YAML_SCALAR_EVENT)
                return fail_value(p, e->start_mark, k,
                        e->type == YAML_SEQUENCE_START_EVENT ? "a list" : "a mapping");
        if (event_is_nothing(e))
                return fail_value(p, e->start_mark, k, "");
        r = parser_expand(p, e->start_mark, (const char *)e->data.scalar.value, value);
        if (r)
                return error_trace(r);
        r = config_key_set(k, &p->config, value);
        return r > 0 ? fail_value(p, e->start_mark, k, value) : error_trace(r);
}

static int parser_mapping(Parser *p, const char *section);

/* Return: as parser_next(). *ret_found: there is such a section, and it was read. */
static int parser_section(
        Parser *p, const char *name, yaml_mark_t at, const yaml_event_t *value, bool *ret_found)
{
        size_t i = 0;

        while (i < config_n_keys && strcmp(config_keys[i].section, name) != 0)
                i++;
        *ret_found = i < config_n_keys && name[0];
        if (!*ret_found)
                return 0;
        if (p->sections_seen & UINT64_C(1) << i)
                return parser_fail(p, at, "%s is there twice", name);
        p->sections_seen |= UINT64_C(1) << i;
        /* All below it may be comments. */
        if (event_is_nothing(value))
                return 0;
        if (value->type != YAML_MAPPING_START_EVENT)
                return parser_fail(p, value->start_mark,
                        "%s is a section: it must have keys with values below it", name);
        return parser_mapping(p, name);
}

/* A key and its value. */
static int parser_pair(Parser *p, const char *section, const yaml_event_t *key)
{
        _cleanup_(event_deinit) yaml_event_t value = {0};
        const char *name = (const char *)key->data.scalar.value;
        size_t i = 0;
        bool found = false;
        int r;

        r = parser_next(p, &value);
        if (r)
                return error_trace(r);
        if (!section[0]) {
                r = parser_section(p, name, key->start_mark, &value, &found);
                if (r || found)
                        return error_trace(r);
        }
        while (i < config_n_keys && (strcmp(config_keys[i].section, section) != 0 ||
                                            strcmp(config_keys[i].name, name) != 0))
                i++;
        if (i == config_n_keys)
                return fail_unknown(p, key->start_mark, section, name);
        if (p->keys_seen & UINT64_C(1) << i)
                return parser_fail(
                        p, key->start_mark, "%s is there twice", config_keys[i].full_name);
        p->keys_seen |= UINT64_C(1) << i;
        return parser_value(p, &config_keys[i], &value);
}

/* What follows the start of a mapping, up to its end. */
static int parser_mapping(Parser *p, const char *section)
{
        for (;;) {
                _cleanup_(event_deinit) yaml_event_t key = {0};
                int r = parser_next(p, &key);

                if (r)
                        return error_trace(r);
                if (key.type == YAML_MAPPING_END_EVENT)
                        return 0;
                if (key.type != YAML_SCALAR_EVENT)
                        return parser_fail(p, key.start_mark, "a key must be a name");
                r = parser_pair(p, section, &key);
                if (r)
                        return error_trace(r);
        }
}

/* One document, or none. Return: 0, CONFIG_E_INVALID, -ENOMEM, as all of these. */
static int parser_stream(Parser *p)
{
        for (unsigned n_documents = 0;;) {
                _cleanup_(event_deinit) yaml_event_t e = {0};
                int r = parser_next(p, &e);

                if (r)
                        return error_trace(r);
                switch (e.type) {
                case YAML_STREAM_END_EVENT:
                        return 0;
                case YAML_DOCUMENT_START_EVENT:
                        if (n_documents++ > 0)
                                return parser_fail(
                                        p, e.start_mark, "a second document is not allowed");
                        break;
                case YAML_MAPPING_START_EVENT:
                        r = parser_mapping(p, "");
                        if (r)
                                return error_trace(r);
                        break;
                case YAML_SCALAR_EVENT:
                case YAML_SEQUENCE_START_EVENT:
                        if (!event_is_nothing(&e))
                                return parser_fail(p, e.start_mark,
                                        "the configuration must be keys with values");
                        break;
                default:
                        break;
                }
        }
}

/* ---- defaults ---- */

static int parser_env_default(Parser *p, const ConfigKey *k, const char *value)
{
        _cleanup_(freep) char *text = NULL;
        char allowed[128];
        int r;

        if (asprintf(&text, "%s%s", value, k->env_unit ?: "") < 0) {
                text = NULL;
                return error_origin(-ENOMEM);
        }
        r = config_key_set(k, &p->config, text);
        if (r <= 0)
                return error_trace(r);
        config_key_describe(k, allowed, sizeof(allowed));
        if (asprintf(&p->error, "environment: %s is '%.64s', for %s: '%.64s' must be %s", k->env,
                    value, k->full_name, text, allowed) < 0) {
                p->error = NULL;
                return error_origin(-ENOMEM);
        }
        return CONFIG_E_INVALID;
}

static int parser_defaults(Parser *p)
{
        for (size_t i = 0; i < config_n_keys; i++) {
                const ConfigKey *k = &config_keys[i];
                const char *value = k->env ? parser_env(p, k->env) : NULL;
                int r;

                if (p->keys_seen & UINT64_C(1) << i)
                        continue;
                r = value ? parser_env_default(p, k, value)
                          : error_fold(config_key_set(k, &p->config, k->default_value));
                if (r)
                        return error_trace(r);
        }
        return 0;
}

/* ---- interface ---- */

int config_parse(Config *ret, const char *name, const char *text, size_t size, ConfigEnv env,
        char **ret_error)
{
        Parser p = {.name = name, .text = text, .size = size, .env = env};
        int r;

        if (!yaml_parser_initialize(&p.yaml))
                return error_origin(-ENOMEM);
        yaml_parser_set_encoding(&p.yaml, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&p.yaml, (const unsigned char *)text, size);
        r = parser_stream(&p);
        if (r == 0)
                r = parser_defaults(&p);
        yaml_parser_delete(&p.yaml);
        if (r) {
                config_deinit(&p.config);
                *ret_error = p.error;
                return error_trace(r);
        }
        *ret = p.config;
        return 0;
}

int config_init_default(Config *ret, char **ret_error)
{
        return config_parse(ret, "default", "", 0, getenv, ret_error);
}

void config_deinit(Config *c)
{
        free(c->log_level);
        free(c->span_socket);
        free(c->control_socket);
        free(c->control_group);
        free(c->state_dir);
        free(c->oap_servers);
        free(c->oap_ca_file);
        free(c->oap_certificate_file);
        free(c->oap_key_file);
        free(c->oap_server_name);
        free(c->oap_authentication);
        *c = (Config){0};
}

static int load_fail(const char *path, const char *what, char **ret_error)
{
        char *error;

        if (asprintf(&error, "%s: %s", path, what) < 0)
                return error_origin(-ENOMEM);
        *ret_error = error;
        return CONFIG_E_INVALID;
}

unsigned config_backends(const Config *c)
{
        if (c->backends != 0)
                return c->backends;
        return c->oap_servers[0] ? BACKEND_OAP : BACKEND_LOCAL;
}

int config_load(Config *ret, const char *path, char **ret_error)
{
        _cleanup_(closep) int fd = -1;
        _cleanup_(freep) char *text = malloc(FILE_MAX + 1);
        size_t size = 0;
        ssize_t n;

        if (!text)
                return error_origin(-ENOMEM);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return load_fail(path, strerror(errno), ret_error);
        do {
                n = read(fd, text + size, FILE_MAX + 1 - size);
                if (n < 0 && errno != EINTR)
                        return load_fail(path, strerror(errno), ret_error);
                size += n > 0 ? (size_t)n : 0;
                if (size > FILE_MAX)
                        return load_fail(path, "it is larger than 1 MiB", ret_error);
        } while (n != 0);
        return config_parse(ret, path, text, size, getenv, ret_error);
}

int config_set(Config *c, const char *origin, const char *key, const char *value, char **ret_error)
{
        const ConfigKey *k = config_keys;
        char allowed[128], *error;
        int r;

        while (strcmp(k->full_name, key) != 0) {
                k++;
                assert(k < config_keys + config_n_keys);
        }
        r = config_key_set(k, c, value);
        if (r <= 0)
                return error_trace(r);
        config_key_describe(k, allowed, sizeof(allowed));
        if (asprintf(&error, "%s: '%.64s': it must be %s", origin, value, allowed) < 0)
                return error_origin(-ENOMEM);
        *ret_error = error;
        return CONFIG_E_INVALID;
}

char *config_format(const Config *c)
{
        const char *section = "";
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        bool complete = true;

        if (!f)
                return NULL;
        for (size_t i = 0; i < config_n_keys; i++) {
                const ConfigKey *k = &config_keys[i];
                _cleanup_(freep) char *value = config_key_format(k, c);

                if (strcmp(section, k->section) != 0)
                        fprintf(f, "%s:\n", k->section);
                section = k->section;
                complete = complete && value;
                fprintf(f, "%s%s: %s\n", section[0] ? "  " : "", k->name, value ?: "");
        }
        if (fclose(f) != 0 || !complete) {
                free(text);
                return NULL;
        }
        return text;
}

const char *config_key(size_t n, const char **ret_help)
{
        if (n >= config_n_keys)
                return NULL;
        *ret_help = config_keys[n].help;
        return config_keys[n].full_name;
}
