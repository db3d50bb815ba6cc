/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "oap/certificate.h"
#include "util/cleanup.h"

/* Far more than a chain has. */
#define CHAIN_MAX 16

static void bio_freep(BIO **b)
{
        BIO_free(*b);
}

static void x509_freep(X509 **x)
{
        X509_free(*x);
}

static void key_freep(EVP_PKEY **k)
{
        EVP_PKEY_free(*k);
}

static void store_freep(X509_STORE **s)
{
        X509_STORE_free(*s);
}

static void context_freep(X509_STORE_CTX **c)
{
        X509_STORE_CTX_free(*c);
}

static void chain_freep(STACK_OF(X509) * *chain)
{
        sk_X509_pop_free(*chain, X509_free);
}

/* A key that asks for a passphrase is none: without this the terminal would be asked. */
static int no_passphrase(char *buffer, int size, int writing, void *userdata)
{
        return -1;
}

static X509 *read_first(const char *pem)
{
        _cleanup_(bio_freep) BIO *bio = BIO_new_mem_buf(pem, -1);

        return bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
}

bool certificate_is(const char *pem)
{
        _cleanup_(x509_freep) X509 *x = read_first(pem);

        ERR_clear_error();
        return x;
}

bool certificate_fits_key(const char *pem, const char *key)
{
        _cleanup_(x509_freep) X509 *x = read_first(pem);
        _cleanup_(bio_freep) BIO *bio = BIO_new_mem_buf(key, -1);
        _cleanup_(key_freep) EVP_PKEY *k = NULL;
        bool fits;

        if (bio)
                k = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
        fits = x && k && X509_check_private_key(x, k) == 1;
        ERR_clear_error();
        return fits;
}

static bool has_expired(const char *pem)
{
        _cleanup_(x509_freep) X509 *x = read_first(pem);

        return x && X509_cmp_current_time(X509_get0_notAfter(x)) < 0;
}

static X509_STORE *store_new(const char *ca)
{
        _cleanup_(store_freep) X509_STORE *store = X509_STORE_new();
        _cleanup_(bio_freep) BIO *bio = NULL;
        X509 *x;

        if (!store)
                return NULL;
        if (!ca) {
                if (X509_STORE_set_default_paths(store) != 1)
                        return NULL;
                return TAKE_PTR(store);
        }
        bio = BIO_new_mem_buf(ca, -1);
        if (!bio)
                return NULL;
        while ((x = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL))) {
                int r = X509_STORE_add_cert(store, x);

                X509_free(x);
                if (r != 1)
                        return NULL;
        }
        return TAKE_PTR(store);
}

static STACK_OF(X509) * read_chain(const char *pem)
{
        _cleanup_(chain_freep) STACK_OF(X509) *chain = sk_X509_new_null();
        _cleanup_(bio_freep) BIO *bio = BIO_new_mem_buf(pem, -1);
        X509 *x;

        if (!chain || !bio)
                return NULL;
        while (sk_X509_num(chain) < CHAIN_MAX &&
                (x = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)))
                if (sk_X509_push(chain, x) <= 0) {
                        X509_free(x);
                        return NULL;
                }
        return TAKE_PTR(chain);
}

static void date_of(const ASN1_TIME *time, char *ret, size_t size)
{
        struct tm tm;

        if (ASN1_TIME_to_tm(time, &tm) != 1 || strftime(ret, size, "%F %T UTC", &tm) == 0)
                snprintf(ret, size, "a date that cannot be read");
}

static void describe(const X509_STORE_CTX *context, const char *ca, const char *host,
        char *ret_error, size_t size)
{
        int error = X509_STORE_CTX_get_error(context);
        const X509 *x = X509_STORE_CTX_get_current_cert(context);
        const char *whose = X509_STORE_CTX_get_error_depth(context) == 0 ? "its certificate"
                                                                         : "an authority above it";
        char date[64];

        switch (error) {
        case X509_V_ERR_CERT_HAS_EXPIRED:
                date_of(X509_get0_notAfter(x), date, sizeof(date));
                snprintf(ret_error, size, "%s has expired, on %s", whose, date);
                return;
        case X509_V_ERR_CERT_NOT_YET_VALID:
                date_of(X509_get0_notBefore(x), date, sizeof(date));
                snprintf(ret_error, size, "%s is not valid before %s", whose, date);
                return;
        case X509_V_ERR_HOSTNAME_MISMATCH:
        case X509_V_ERR_IP_ADDRESS_MISMATCH:
                snprintf(ret_error, size,
                        "its certificate is for another name than %s (oap.server_name says which "
                        "to expect)",
                        host);
                return;
        default:
                snprintf(ret_error, size, "its certificate is not by an authority of %s: %s",
                        ca ? "oap.ca_file" : "the system (oap.ca_file names others)",
                        X509_verify_cert_error_string(error));
        }
}

bool certificate_verify(const char *ca, const char *own, const char *host, const char *leaf,
        const char *chain, char *ret_error, size_t size)
{
        _cleanup_(store_freep) X509_STORE *store = store_new(ca);
        _cleanup_(x509_freep) X509 *x = leaf ? read_first(leaf) : NULL;
        _cleanup_(chain_freep) STACK_OF(X509) *others = chain ? read_chain(chain) : NULL;
        _cleanup_(context_freep) X509_STORE_CTX *context = X509_STORE_CTX_new();
        X509_VERIFY_PARAM *param;
        bool valid;

        ret_error[0] = '\0';
        if (own && has_expired(own)) {
                snprintf(ret_error, size, "our own certificate, oap.certificate_file, has expired");
                return false;
        }
        if (!store || !x || !context || X509_STORE_CTX_init(context, store, x, others) != 1) {
                snprintf(ret_error, size, "its certificate cannot be read");
                ERR_clear_error();
                return false;
        }
        X509_STORE_CTX_set_default(context, "ssl_server");
        param = X509_STORE_CTX_get0_param(context);
        /* An intermediate authority in oap.ca_file is as good as a root. */
        X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        /* An address is compared with the addresses of the certificate, a name with its names. */
        valid = (X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1 ||
                        X509_VERIFY_PARAM_set1_host(param, host, 0) == 1) &&
                X509_verify_cert(context) == 1;
        if (!valid)
                describe(context, ca, host, ret_error, size);
        ERR_clear_error();
        return valid;
}
