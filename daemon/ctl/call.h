/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "control.pb-c.h"

/* One request to the daemon. */

enum {
        _CALL_E_SUCCESS,
        CALL_E_NOT_RUNNING, /* nobody listens there */
        CALL_E_DENIED,      /* we may not connect */
        CALL_E_TIMEOUT,
        CALL_E_BROKEN, /* no proper reply */
};

/* Is called some times a second while the reply is waited for, from now on; NULL: nothing is. Return:
 * false: the daemon is to answer with what it has. */
typedef bool (*CallTick)(void *userdata);
void call_set_tick(CallTick tick, void *userdata);

/*
 * *ret_reply is freed by reply_freep; it may hold an error of the
 * daemon. Return: 0, CALL_E_*, -errno.
 */
int daemon_call(const char *path, unsigned timeout_s, const Swprof__Control__Request *request,
        Swprof__Control__Reply **ret_reply);

static inline void reply_freep(Swprof__Control__Reply **reply)
{
        swprof__control__reply__free_unpacked(*reply, NULL);
}
