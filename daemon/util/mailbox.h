/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/*
 * Bounded queue of fixed-size values between threads, with an eventfd that is readable while it
 * holds something. Many writers, one reader. Full-policy: push says so at once, and never blocks.
 */

typedef struct Mailbox Mailbox;

enum {
        _MAILBOX_E_SUCCESS,
        MAILBOX_E_FULL,
        MAILBOX_E_EMPTY,
};

/* Return: 0, -errno. */
int mailbox_new(Mailbox **ret, size_t item_size, size_t capacity);

/* Items still inside are dropped: whoever put owning pointers in must have popped them. Return:
 * NULL. */
Mailbox *mailbox_free(Mailbox *m);

/* Readable while not empty; the reader does not read() it. */
int mailbox_fd(const Mailbox *m);

/* Copies *item in. Return: 0, MAILBOX_E_FULL. */
int mailbox_push(Mailbox *m, const void *item);

/* Copies the oldest out. Return: 0, MAILBOX_E_EMPTY. */
int mailbox_pop(Mailbox *m, void *ret_item);
