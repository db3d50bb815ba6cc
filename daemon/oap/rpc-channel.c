/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/string_util.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oap/certificate.h"
#include "oap/rpc-private.h"
#include "util/error.h"
#include "version.h"

/* Replies are lists of commands; this is far above any real one. */
#define RECEIVE_MAX_BYTES (4 * 1024 * 1024)
/* An OAP takes no larger message, unless it was told to. */
#define SEND_MAX_BYTES       (50 * 1024 * 1024)
#define RECONNECT_INITIAL_MS 1000
#define RECONNECT_MAX_MS     20000

/*
 * How the server's certificate is judged. gRPC's own verdict is "certificate verify failed" for any
 * cause; so it is told not to judge, and asks here at the end of each handshake, on a thread of
 * its own. Shared by the channel and gRPC's verifier, which outlives it.
 */
struct RpcTrust {
        grpc_tls_certificate_verifier_external verifier;
        atomic_uint n_refs;
        char *ca, *own, *host;

        pthread_mutex_t lock;
        char error[256]; /* under lock */
};

static RpcTrust *trust_unref(RpcTrust *t)
{
        if (!t || atomic_fetch_sub(&t->n_refs, 1) > 1)
                return NULL;
        pthread_mutex_destroy(&t->lock);
        free(t->ca);
        free(t->own);
        free(t->host);
        free(t);
        return NULL;
}
DEFINE_CLEANUP(RpcTrust *, trust_unref)

static int trust_verify(void *userdata, grpc_tls_custom_verification_check_request *request,
        grpc_tls_on_custom_verification_check_done_cb callback, void *callback_arg,
        grpc_status_code *ret_status, char **ret_error)
{
        RpcTrust *t = userdata;
        char error[sizeof(t->error)];
        bool valid = certificate_verify(t->ca, t->own, t->host, request->peer_info.peer_cert,
                request->peer_info.peer_cert_full_chain, error, sizeof(error));

        pthread_mutex_lock(&t->lock);
        memcpy(t->error, error, sizeof(t->error));
        pthread_mutex_unlock(&t->lock);
        *ret_status = valid ? GRPC_STATUS_OK : GRPC_STATUS_UNAUTHENTICATED;
        if (!valid)
                *ret_error = gpr_strdup(error);
        return 1; /* done */
}

static void trust_cancel(void *userdata, grpc_tls_custom_verification_check_request *request)
{
}

static void trust_destruct(void *userdata)
{
        trust_unref(userdata);
}

/* host:port or [address]:port without its port and brackets, malloc'ed. */
static char *host_of(const char *server)
{
        const char *port = strrchr(server, ':');
        size_t n = port ? (size_t)(port - server) : strlen(server);

        if (n >= 2 && server[0] == '[' && server[n - 1] == ']')
                return strndup(server + 1, n - 2);
        return strndup(server, n);
}

static RpcTrust *trust_new(const RpcTarget *target)
{
        _cleanup_(trust_unrefp) RpcTrust *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        atomic_init(&t->n_refs, 1);
        pthread_mutex_init(&t->lock, NULL);
        t->verifier = (grpc_tls_certificate_verifier_external){.user_data = t,
                .verify = trust_verify,
                .cancel = trust_cancel,
                .destruct = trust_destruct};
        t->host = target->server_name ? strdup(target->server_name) : host_of(target->server);
        if (!t->host || (target->ca && !(t->ca = strdup(target->ca))) ||
                (target->certificate && !(t->own = strdup(target->certificate))))
                return NULL;
        return TAKE_PTR(t);
}

static grpc_channel_credentials *tls_credentials(const RpcTarget *target, RpcTrust *trust)
{
        grpc_tls_credentials_options *options = grpc_tls_credentials_options_create();
        grpc_tls_identity_pairs *pairs = NULL;
        grpc_tls_certificate_provider *provider;
        grpc_tls_certificate_verifier *verifier;

        if (target->certificate) {
                pairs = grpc_tls_identity_pairs_create();
                grpc_tls_identity_pairs_add_pair(pairs, target->key, target->certificate);
        }
        if (target->ca || pairs) {
                provider = grpc_tls_certificate_provider_static_data_create(target->ca, pairs);
                grpc_tls_credentials_options_set_certificate_provider(options, provider);
                grpc_tls_certificate_provider_release(provider);
                if (target->ca)
                        grpc_tls_credentials_options_watch_root_certs(options);
                if (pairs)
                        grpc_tls_credentials_options_watch_identity_key_cert_pairs(options);
        }
        atomic_fetch_add(&trust->n_refs, 1);
        verifier = grpc_tls_certificate_verifier_external_create(&trust->verifier);
        grpc_tls_credentials_options_set_certificate_verifier(options, verifier);
        grpc_tls_certificate_verifier_release(verifier);
        grpc_tls_credentials_options_set_verify_server_cert(options, 0);
        grpc_tls_credentials_options_set_check_call_host(options, 0);
        return grpc_tls_credentials_create(options);
}

static grpc_arg text_arg(const char *key, const char *value)
{
        return (grpc_arg){
                .type = GRPC_ARG_STRING, .key = (char *)key, .value.string = (char *)value};
}

static grpc_arg number_arg(const char *key, int value)
{
        return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static grpc_channel *grpc_channel_of(const RpcTarget *target, RpcTrust *trust)
{
        grpc_arg args[16];
        grpc_channel_args all = {.args = args};
        grpc_channel_credentials *credentials =
                trust ? tls_credentials(target, trust) : grpc_insecure_credentials_create();
        grpc_channel *channel;

        args[all.num_args++] =
                text_arg(GRPC_ARG_PRIMARY_USER_AGENT_STRING, "swprofd/" SWPROFD_VERSION);
        args[all.num_args++] = number_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RECEIVE_MAX_BYTES);
        args[all.num_args++] = number_arg(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, SEND_MAX_BYTES);
        args[all.num_args++] =
                number_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_INITIAL_MS);
        args[all.num_args++] = number_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS);
        /* An attempt looks at the name as it is now, not as it was up to half a minute ago. */
        args[all.num_args++] =
                number_arg(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, RECONNECT_INITIAL_MS);
        /* The session decides what may be sent twice. */
        args[all.num_args++] = number_arg(GRPC_ARG_ENABLE_RETRIES, 0);
        /* No pings: an OAP ends connections that get them more often than every 5 minutes or
         * without a call. gRPC's keepalive is off unless asked for; these measure bandwidth. */
        args[all.num_args++] = number_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0);
        /* A new channel is a new connection, not one of a server that hangs. */
        args[all.num_args++] = number_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
        if (target->server_name)
                args[all.num_args++] =
                        text_arg(GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, target->server_name);
        if (target->compress)
                args[all.num_args++] =
                        number_arg(GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM, GRPC_COMPRESS_GZIP);
        channel = grpc_channel_create(target->server, credentials, &all);
        grpc_channel_credentials_release(credentials);
        return channel;
}

int rpc_channel_new(RpcChannel **ret, const RpcTarget *target)
{
        _cleanup_(rpc_channel_unrefp) RpcChannel *ch = calloc(1, sizeof(*ch));

        if (!ch)
                return error_origin(-ENOMEM);
        ch->n_refs = 1;
        grpc_init();
        if (target->authentication) {
                ch->authentication = strdup(target->authentication);
                if (!ch->authentication)
                        return error_origin(-ENOMEM);
        }
        if (target->tls) {
                ch->trust = trust_new(target);
                if (!ch->trust)
                        return error_origin(-ENOMEM);
        }
        ch->channel = grpc_channel_of(target, ch->trust);
        *ret = TAKE_PTR(ch);
        return 0;
}

RpcChannel *rpc_channel_unref(RpcChannel *ch)
{
        if (!ch || --ch->n_refs > 0)
                return NULL;
        if (ch->channel)
                grpc_channel_destroy(ch->channel);
        grpc_shutdown();
        trust_unref(ch->trust);
        if (ch->authentication)
                explicit_bzero(ch->authentication, strlen(ch->authentication));
        free(ch->authentication);
        free(ch);
        return NULL;
}

bool rpc_channel_ready(RpcChannel *ch)
{
        return grpc_channel_check_connectivity_state(ch->channel, 1) == GRPC_CHANNEL_READY;
}

bool rpc_channel_distrusts(RpcChannel *ch, char *ret, size_t size)
{
        if (!ch->trust)
                return false;
        pthread_mutex_lock(&ch->trust->lock);
        snprintf(ret, size, "%s", ch->trust->error);
        pthread_mutex_unlock(&ch->trust->lock);
        return ret[0];
}
