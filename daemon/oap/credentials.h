/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "core/config.h"

/*
 * What proves us to the backend and the backend to us, as read from the files and variables that
 * the configuration names. Secrets are overwritten when they are given up, and not in any message.
 */
typedef struct Credentials {
        bool tls;
        char *ca;                /* PEM; NULL: the system's */
        char *certificate, *key; /* PEM; both or none */
        char *server_name;       /* NULL: that of the address */
        char *token;             /* NULL: none */
} Credentials;

enum {
        _CREDENTIALS_E_SUCCESS,
        CREDENTIALS_E_INVALID,
};

/*
 * Return: 0; CREDENTIALS_E_INVALID with *ret_error a malloc'ed "oap.key: message"; -ENOMEM.
 */
int credentials_load(Credentials *ret, const Config *config, char **ret_error);
void credentials_deinit(Credentials *c);
bool credentials_equal(const Credentials *a, const Credentials *b);
