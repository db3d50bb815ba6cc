/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/*
 * The header `sw8` by which SkyWalking agents tell a called process whose call it is: eight fields
 * with '-' between, texts in base64. Pure.
 */
typedef struct Sw8 {
        const char *trace_id, *segment_id, *service, *instance, *endpoint, *address;
        int32_t span_id;
        char *texts; /* malloc'ed: those are in it */
} Sw8;

enum {
        _SW8_E_SUCCESS,
        SW8_E_INVALID,
};

/* Return: 0, and free ret->texts; SW8_E_INVALID: it is none; -ENOMEM. */
int sw8_parse(Sw8 *ret, const char *header);
