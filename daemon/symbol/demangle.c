/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "symbol/binary.h"

/* Longer than any name that a person would want to read. */
#define MANGLED_MAX   4096
#define DEMANGLED_MAX 4096

/* What compilers append to the copies and parts of a function that they make. Anything may follow
 * behind a further dot or digit: ".constprop.0.isra.0", ".llvm.1234". */
static const char *const clone_suffixes[] = {
        ".cold",
        ".constprop",
        ".isra",
        ".part",
        ".lto_priv",
        ".llvm",
        ".localalias",
        ".ipa_ra",
        ".clone",
};

static size_t clone_suffix_find(const char *name, size_t n)
{
        /* A name does not begin with its suffix. */
        for (size_t i = 1; i < n; i++) {
                if (name[i] != '.')
                        continue;
                for (size_t k = 0; k < sizeof(clone_suffixes) / sizeof(*clone_suffixes); k++) {
                        size_t n_suffix = strlen(clone_suffixes[k]);
                        char next;

                        if (n - i < n_suffix || memcmp(name + i, clone_suffixes[k], n_suffix) != 0)
                                continue;
                        next = i + n_suffix < n ? name[i + n_suffix] : '\0';
                        if (next == '\0' || next == '.' || isdigit((unsigned char)next))
                                return i;
                }
        }
        return n;
}

/* "memcpy@@GLIBC_2.14" is memcpy. */
static size_t version_find(const char *name, size_t n)
{
        const char *at = memchr(name, '@', n);

        return !at || at == name ? n : (size_t)(at - name);
}

/* Mangled by the Itanium C++ ABI, or by Rust (legacy names are C++ names, v0 begins with _R). */
static bool name_is_mangled(const char *name)
{
        return strncmp(name, "_Z", 2) == 0 || strncmp(name, "_R", 2) == 0 ||
               strncmp(name, "___Z", 4) == 0;
}

typedef struct Output {
        jmp_buf full;
        size_t n;
        char text[DEMANGLED_MAX];
} Output;

static void output_append(const char *text, size_t n, void *userdata)
{
        Output *o = userdata;

        if (n >= sizeof(o->text) - o->n)
                longjmp(o->full, 1);
        /* Of nothing the demangler passes no address. */
        if (n == 0)
                return;
        memcpy(o->text + o->n, text, n);
        o->n += n;
}

/*
 * A mangled name refers back to its parts, so that a short one can stand for gigabytes. The
 * demangler's callback cannot stop it; it holds nothing but stack memory, so a jump out of it can.
 */
static bool output_demangle(Output *o, const char *name)
{
        o->n = 0;
        if (setjmp(o->full))
                return false;
        if (!rust_demangle_callback(name, DMGL_NO_OPTS, output_append, o)) {
                o->n = 0;
                if (!cplus_demangle_v3_callback(name, DMGL_NO_OPTS, output_append, o))
                        return false;
        }
        o->text[o->n] = '\0';
        return o->n > 0;
}

char *symbol_demangle(const char *name)
{
        _cleanup_(freep) char *plain = NULL;
        size_t n = strnlen(name, MANGLED_MAX), n_plain;
        const char *suffix = "", *shown;
        char *ret;
        Output o;

        if (n == MANGLED_MAX)
                return strndup(name, MANGLED_MAX);
        n_plain = version_find(name, n);
        if (n > 4 && strcmp(name + n - 4, "@plt") == 0)
                suffix = "@plt";
        n_plain = clone_suffix_find(name, n_plain);
        plain = strndup(name, n_plain);
        if (!plain)
                return NULL;
        shown = name_is_mangled(plain) && output_demangle(&o, plain) ? o.text : plain;
        n = strlen(shown);
        ret = malloc(n + strlen(suffix) + 1);
        if (!ret)
                return NULL;
        memcpy(ret, shown, n);
        strcpy(ret + n, suffix);
        return ret;
}
