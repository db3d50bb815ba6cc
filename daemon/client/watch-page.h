/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/*
 * The generation page of one client: a page of memory that the daemon writes and the client can
 * only read, sealed so that the client can neither write, resize nor empty it. Its first 8 bytes
 * are the generation.
 */

/* The word of a connection that is closed. No list ever has this generation. */
#define WATCH_PAGE_CLOSED UINT64_MAX

typedef struct WatchPage {
        _Atomic uint64_t *word; /* NULL: not made yet */
} WatchPage;

/* Makes the page with that generation. *ret_fd is for the client; the page stays when it is closed.
 * Return: 0, -errno. */
int watch_page_init(WatchPage *ret, uint64_t generation, int *ret_fd);
/* The client sees it as closed from now on. */
void watch_page_deinit(WatchPage *p);

/* After the list of that generation was sent: a client that sees the word finds the list in its
 * socket. */
static inline void watch_page_set(WatchPage *p, uint64_t generation)
{
        atomic_store_explicit(p->word, generation, memory_order_release);
}
