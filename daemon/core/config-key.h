/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/config.h"

/* The table of keys, and the texts of their values. Pure. */

typedef enum ConfigType {
        CONFIG_WORD_TEXT, /* char *, one of the words */
        CONFIG_PATH,      /* char *, absolute, at most `max` bytes */
        CONFIG_FILE,      /* char *, absolute path or empty, at most `max` bytes */
        CONFIG_NAME,      /* char *, may be empty, at most `max` bytes */
        CONFIG_SERVERS,   /* char *, host:port,host:port… or empty */
        CONFIG_SECRET,    /* char *, where one is: env:NAME, file:PATH, or empty; never itself */
        CONFIG_BOOL,      /* bool */
        CONFIG_WORD,      /* int, index of one of the words */
        CONFIG_WORDS,     /* uint32_t, a bit for each of the words, as they stand; none: auto */
        CONFIG_NUMBER,    /* uint32_t, as those below, from `min` to `max` */
        CONFIG_SIZE,      /* bytes */
        CONFIG_DURATION,  /* milliseconds */
} ConfigType;

typedef struct ConfigKey {
        const char *section; /* "": at the top */
        const char *name;
        const char *full_name; /* "section.name", or just the name */
        ConfigType type;
        size_t offset; /* of the member of Config */
        uint32_t min, max;
        const char *const *words; /* ends with NULL */
        const char *default_value;
        const char *env; /* a variable of the SkyWalking agents that gives the default, or NULL */
        const char *env_unit; /* which that variable does not write */
        const char *help;
} ConfigKey;

extern const ConfigKey config_keys[];
extern const size_t config_n_keys;

/*
 * Replaces the value. Return: 0, CONFIG_E_INVALID: not one that config_key_describe() allows,
 * -ENOMEM.
 */
int config_key_set(const ConfigKey *k, Config *c, const char *text);

/* The value, as YAML. Return: malloc'ed, NULL: no memory. */
char *config_key_format(const ConfigKey *k, const Config *c);

/* What is allowed, as in "a number from 1 to 5". */
void config_key_describe(const ConfigKey *k, char *ret, size_t size);

/*
 * The key, or at the top the section, that somebody who wrote that most likely meant; NULL: none.
 */
const char *config_key_guess(const char *section, const char *name);
