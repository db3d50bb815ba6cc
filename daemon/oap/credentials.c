/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oap/certificate.h"
#include "oap/credentials.h"
#include "util/cleanup.h"
#include "util/error.h"

#define FILE_MAX  (1024 * 1024)
#define TOKEN_MAX 8192

static void secret_freep(char **s)
{
        if (*s)
                explicit_bzero(*s, strlen(*s));
        free(*s);
}

void credentials_deinit(Credentials *c)
{
        free(c->ca);
        free(c->certificate);
        free(c->server_name);
        secret_freep(&c->key);
        secret_freep(&c->token);
        *c = (Credentials){0};
}

static int __attribute__((format(printf, 2, 3))) fail(char **ret_error, const char *format, ...)
{
        va_list args;
        int n;

        va_start(args, format);
        n = vasprintf(ret_error, format, args);
        va_end(args);
        return n < 0 ? error_origin(-ENOMEM) : CREDENTIALS_E_INVALID;
}

/* Return: 0, CREDENTIALS_E_INVALID, -ENOMEM. */
static int read_text(const char *key, const char *path, char **ret, char **ret_error)
{
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        char *text;
        size_t size = 0;
        ssize_t n = 1;
        int r = 0;

        if (fd < 0)
                return fail(ret_error, "%s: %s: %s", key, path, strerror(errno));
        text = malloc(FILE_MAX + 1);
        if (!text)
                return error_origin(-ENOMEM);
        while (n > 0 && size <= FILE_MAX) {
                n = read(fd, text + size, FILE_MAX + 1 - size);
                size += n > 0 ? (size_t)n : 0;
        }
        if (n < 0)
                r = fail(ret_error, "%s: %s: %s", key, path, strerror(errno));
        else if (size > FILE_MAX)
                r = fail(ret_error, "%s: %s: it is larger than 1 MiB", key, path);
        else if (memchr(text, '\0', size))
                r = fail(ret_error, "%s: %s: it is not a text", key, path);
        if (r == 0) {
                text[size] = '\0';
                *ret = strdup(text);
                if (!*ret)
                        r = error_origin(-ENOMEM);
        }
        explicit_bzero(text, size);
        free(text);
        return r;
}

static int read_certificate(const char *key, const char *path, char **ret, char **ret_error)
{
        int r;

        if (!path[0])
                return 0;
        r = read_text(key, path, ret, ret_error);
        if (r == 0 && !certificate_is(*ret))
                r = fail(ret_error, "%s: %s: there is no certificate (PEM) in it", key, path);
        return error_trace(r);
}

static int load_tls(Credentials *c, const Config *config, char **ret_error)
{
        int r;

        r = read_certificate("oap.ca_file", config->oap_ca_file, &c->ca, ret_error);
        if (r == 0)
                r = read_certificate("oap.certificate_file", config->oap_certificate_file,
                        &c->certificate, ret_error);
        if (r == 0 && config->oap_key_file[0])
                r = read_text("oap.key_file", config->oap_key_file, &c->key, ret_error);
        if (r)
                return error_trace(r);
        if (c->certificate && !c->key)
                return fail(ret_error, "oap.key_file: there must be the key of "
                                       "oap.certificate_file");
        if (c->key && !c->certificate)
                return fail(ret_error, "oap.certificate_file: there must be the certificate of "
                                       "oap.key_file");
        if (c->key && !certificate_fits_key(c->certificate, c->key))
                return fail(ret_error,
                        "oap.key_file: %s: it is not the key (PEM, without a passphrase) of "
                        "oap.certificate_file",
                        config->oap_key_file);
        return 0;
}

/* It goes into a header: printable ASCII, without spaces at the ends. */
static bool is_token(const char *s)
{
        size_t n = strlen(s);

        for (size_t i = 0; i < n; i++)
                if (s[i] < 0x20 || s[i] > 0x7e)
                        return false;
        return n > 0 && n <= TOKEN_MAX && s[0] != ' ' && s[n - 1] != ' ';
}

static int load_token(Credentials *c, const char *source, char **ret_error)
{
        const char *path = source + strlen("file:"), *value;
        int r;

        if (!source[0])
                return 0;
        if (strncmp(source, "env:", 4) == 0) {
                value = getenv(source + 4);
                /* A daemon without a token is the usual one. */
                if (!value || !value[0])
                        return 0;
                c->token = strdup(value);
                if (!c->token)
                        return error_origin(-ENOMEM);
                return is_token(c->token) ? 0
                                          : fail(ret_error,
                                                    "oap.authentication: the environment variable "
                                                    "%s holds no token of printable ASCII",
                                                    source + 4);
        }
        r = read_text("oap.authentication", path, &c->token, ret_error);
        if (r)
                return error_trace(r);
        c->token[strcspn(c->token, "\r\n")] = '\0';
        return is_token(c->token)
                       ? 0
                       : fail(ret_error,
                                 "oap.authentication: %s: its first line is no token of printable "
                                 "ASCII",
                                 path);
}

int credentials_load(Credentials *ret, const Config *config, char **ret_error)
{
        _cleanup_(credentials_deinit) Credentials c = {.tls = config->oap_tls};
        int r = 0;

        if (c.tls)
                r = load_tls(&c, config, ret_error);
        else if (config->oap_ca_file[0] || config->oap_certificate_file[0] ||
                 config->oap_key_file[0] || config->oap_server_name[0])
                r = fail(ret_error, "oap.tls: it must be true where there is a ca_file, "
                                    "certificate_file, key_file or server_name");
        if (r == 0)
                r = load_token(&c, config->oap_authentication, ret_error);
        if (r)
                return error_trace(r);
        if (config->oap_server_name[0]) {
                c.server_name = strdup(config->oap_server_name);
                if (!c.server_name)
                        return error_origin(-ENOMEM);
        }
        *ret = c;
        c = (Credentials){0};
        return 0;
}

static bool same(const char *a, const char *b)
{
        return a && b ? strcmp(a, b) == 0 : a == b;
}

bool credentials_equal(const Credentials *a, const Credentials *b)
{
        return a->tls == b->tls && same(a->ca, b->ca) && same(a->certificate, b->certificate) &&
               same(a->key, b->key) && same(a->server_name, b->server_name) &&
               same(a->token, b->token);
}
