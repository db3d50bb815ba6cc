/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * Chained hash table over intrusive links: the element carries a HashLink and its own key, the
 * caller compares. Hashes are seeded per process, so that peers' strings cannot be made to collide.
 */

typedef struct HashLink {
        struct HashLink *next;
        uint64_t hash;
} HashLink;

typedef struct HashTable {
        HashLink **buckets;
        size_t n_buckets; /* power of two, or 0 */
        size_t n;
} HashTable;

#define HASH_TABLE_INIT \
        {               \
                0       \
        }

uint64_t hash_bytes(const void *p, size_t n);
uint64_t hash_string(const char *s);
uint64_t hash_u64(uint64_t v);

/* Return: 0, -ENOMEM. */
int hash_table_add(HashTable *t, HashLink *l, uint64_t hash);
void hash_table_remove(HashTable *t, HashLink *l);

/* First link with that hash, then the next ones: for (l = hash_table_find(t, h); l; l =
 * hash_link_next(l)). */
HashLink *hash_table_find(const HashTable *t, uint64_t hash);
HashLink *hash_link_next(const HashLink *l);

/* Frees the buckets, not the elements. */
void hash_table_deinit(HashTable *t);
