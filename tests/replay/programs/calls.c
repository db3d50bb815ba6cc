/* SPDX-License-Identifier: Apache-2.0 */

/* calls WHAT: calls what others have written; a debugger stops it in there. */

#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <setjmp.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone, noipa))

static volatile unsigned long sink;
static unsigned char bytes[4096], digest[64];

static void NOINLINE call_clock(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        sink += t.tv_nsec;
}

static void NOINLINE call_longjmp(void)
{
        jmp_buf back;

        if (setjmp(back) == 0)
                longjmp(back, 1);
        sink++;
}

static void NOINLINE call_setcontext(void)
{
        volatile int n = 0;
        ucontext_t here;

        getcontext(&here);
        if (n++ == 0)
                setcontext(&here);
        sink++;
}

static void NOINLINE call_digests(void)
{
        SHA1(bytes, sizeof(bytes), digest);
        SHA256(bytes, sizeof(bytes), digest);
        SHA512(bytes, sizeof(bytes), digest);
}

static void NOINLINE call_numbers(void)
{
        BIGNUM *a = BN_new(), *b = BN_new(), *m = BN_new(), *r = BN_new();
        BN_CTX *ctx = BN_CTX_new();

        memset(bytes, 0xa5, sizeof(bytes));
        BN_bin2bn(bytes, 128, a);
        BN_bin2bn(bytes, 127, b);
        BN_bin2bn(bytes, 128, m);
        BN_set_flags(b, BN_FLG_CONSTTIME);
        BN_mod_exp(r, a, b, m, ctx);
        sink += BN_num_bits(r);
}

static void NOINLINE call_cipher(void)
{
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        static unsigned char out[sizeof(bytes) + 16];
        int n = 0;

        EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, digest, digest);
        EVP_EncryptUpdate(ctx, out, &n, bytes, sizeof(bytes));
        EVP_EncryptInit_ex(ctx, EVP_chacha20_poly1305(), NULL, digest, digest);
        EVP_EncryptUpdate(ctx, out, &n, bytes, sizeof(bytes));
        sink += n;
}

int main(int argc, char **argv)
{
        const char *what = argc > 1 ? argv[1] : "";

        if (strcmp(what, "clock") == 0)
                call_clock();
        if (strcmp(what, "longjmp") == 0)
                call_longjmp();
        if (strcmp(what, "setcontext") == 0)
                call_setcontext();
        if (strcmp(what, "crypto") == 0) {
                call_digests();
                call_numbers();
                call_cipher();
        }
        return 1;
}
