/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/*
 * What certificates are worth, in words for the operator: the only user of libcrypto's headers.
 * Texts are PEM, ending with NUL. Any thread.
 */

/* Whether there is a certificate in it. */
bool certificate_is(const char *pem);

/* Whether `key` is a private key, without a passphrase, of the first certificate of `pem`. */
bool certificate_fits_key(const char *pem, const char *key);

/*
 * Whether the server at `host` (a name or an address) is the one that `leaf` was made for, now, by
 * an authority of `ca` (NULL: those of the system); `chain` has what the server sent, NULL: nothing
 * but the leaf. Also false, with its own reason, if `own` (NULL: none), ours, has expired.
 *
 * False: *ret_error says why.
 */
bool certificate_verify(const char *ca, const char *own, const char *host, const char *leaf,
        const char *chain, char *ret_error, size_t size);
