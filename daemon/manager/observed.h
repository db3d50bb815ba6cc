/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "manager/observer.h"

/* An observer's samples as a profile (profile.proto), a segment for each thread. malloc'ed. Return:
 * 0, -ENOMEM. */
int observed_encode(const Observer *o, uint8_t **ret, size_t *ret_size);
