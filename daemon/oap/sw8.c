/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "oap/sw8.h"
#include "util/cleanup.h"
#include "util/error.h"

#define N_FIELDS 8

static int base64_digit(char c)
{
        static const char digits[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *found = c ? strchr(digits, c) : NULL;

        return found ? (int)(found - digits) : -1;
}

/* Decodes text in place, with or without '=' at its end. False: it is not base64 of a text. */
static bool base64_decode(char *text)
{
        size_t n = strlen(text), used = 0;
        uint32_t bits = 0;
        unsigned n_bits = 0;

        while (n > 0 && text[n - 1] == '=')
                n--;
        if (n % 4 == 1)
                return false;
        for (size_t i = 0; i < n; i++) {
                int digit = base64_digit(text[i]);

                if (digit < 0)
                        return false;
                bits = (bits << 6 | (uint32_t)digit) & 0xffff;
                n_bits += 6;
                if (n_bits < 8)
                        continue;
                n_bits -= 8;
                text[used] = (char)(bits >> n_bits & 0xff);
                if (text[used++] == '\0')
                        return false;
        }
        text[used] = '\0';
        return true;
}

int sw8_parse(Sw8 *ret, const char *header)
{
        _cleanup_(freep) char *texts = strdup(header);
        char *fields[N_FIELDS + 1], *rest = texts, *end;
        size_t n = 0;
        long span_id;

        if (!texts)
                return error_origin(-ENOMEM);
        while (n <= N_FIELDS && (fields[n] = strsep(&rest, "-")))
                n++;
        if (n != N_FIELDS || (strcmp(fields[0], "0") != 0 && strcmp(fields[0], "1") != 0))
                return SW8_E_INVALID;
        if (fields[3][0] < '0' || fields[3][0] > '9')
                return SW8_E_INVALID;
        errno = 0;
        span_id = strtol(fields[3], &end, 10);
        if (errno || *end || span_id > INT32_MAX)
                return SW8_E_INVALID;
        for (size_t i = 1; i < N_FIELDS; i++)
                if (i != 3 && !base64_decode(fields[i]))
                        return SW8_E_INVALID;
        if (!fields[1][0] || !fields[2][0])
                return SW8_E_INVALID;
        *ret = (Sw8){.trace_id = fields[1],
                .segment_id = fields[2],
                .span_id = (int32_t)span_id,
                .service = fields[4],
                .instance = fields[5],
                .endpoint = fields[6],
                .address = fields[7],
                .texts = TAKE_PTR(texts)};
        return 0;
}
