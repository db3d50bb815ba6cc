/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "util/error.h"
#include "util/hash.h"

/* The kernel gives each process 16 random bytes (getauxval(3), AT_RANDOM): the seed. */
static uint64_t seed(void)
{
        static uint64_t value;

        if (value == 0) {
                const void *random = (const void *)getauxval(AT_RANDOM);

                if (random)
                        memcpy(&value, random, sizeof(value));
                value |= 1;
        }
        return value;
}

static uint64_t mix(uint64_t v)
{
        v ^= v >> 32;
        v *= 0xd6e8feb86659fd93ULL;
        v ^= v >> 32;
        v *= 0xd6e8feb86659fd93ULL;
        return v ^ v >> 32;
}

uint64_t hash_bytes(const void *p, size_t n)
{
        const unsigned char *b = p;
        uint64_t h = seed() ^ n, w;

        for (; n >= 8; b += 8, n -= 8) {
                memcpy(&w, b, 8);
                h = mix(h ^ w);
        }
        w = 0;
        memcpy(&w, b, n);
        return mix(h ^ w);
}

uint64_t hash_string(const char *s)
{
        return hash_bytes(s, strlen(s));
}

uint64_t hash_u64(uint64_t v)
{
        return mix(v ^ seed());
}

static int table_grow(HashTable *t)
{
        size_t n = t->n_buckets ? t->n_buckets * 2 : 16;
        HashLink **buckets = calloc(n, sizeof(*buckets));

        if (!buckets)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < t->n_buckets; i++)
                for (HashLink *l = t->buckets[i], *next; l; l = next) {
                        HashLink **b = &buckets[l->hash & (n - 1)];

                        next = l->next;
                        l->next = *b;
                        *b = l;
                }
        free(t->buckets);
        t->buckets = buckets;
        t->n_buckets = n;
        return 0;
}

int hash_table_add(HashTable *t, HashLink *l, uint64_t hash)
{
        HashLink **b;
        int r;

        if (t->n >= t->n_buckets) {
                r = table_grow(t);
                if (r)
                        return error_trace(r);
        }
        l->hash = hash;
        b = &t->buckets[hash & (t->n_buckets - 1)];
        l->next = *b;
        *b = l;
        t->n++;
        return 0;
}

void hash_table_remove(HashTable *t, HashLink *l)
{
        HashLink **p = &t->buckets[l->hash & (t->n_buckets - 1)];

        while (*p != l)
                p = &(*p)->next;
        *p = l->next;
        l->next = NULL;
        t->n--;
}

HashLink *hash_table_find(const HashTable *t, uint64_t hash)
{
        HashLink *l;

        if (t->n_buckets == 0)
                return NULL;
        l = t->buckets[hash & (t->n_buckets - 1)];
        while (l && l->hash != hash)
                l = l->next;
        return l;
}

HashLink *hash_link_next(const HashLink *l)
{
        HashLink *n = l->next;

        while (n && n->hash != l->hash)
                n = n->next;
        return n;
}

void hash_table_deinit(HashTable *t)
{
        free(t->buckets);
        *t = (HashTable)HASH_TABLE_INIT;
}
