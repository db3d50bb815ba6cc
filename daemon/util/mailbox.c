/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mailbox.h"

struct Mailbox {
        pthread_mutex_t lock;
        int fd;
        size_t item_size, capacity, head, n;
        unsigned char items[];
};

DEFINE_CLEANUP(Mailbox *, mailbox_free)

int mailbox_new(Mailbox **ret, size_t item_size, size_t capacity)
{
        _cleanup_(mailbox_freep) Mailbox *m = NULL;

        m = calloc(1, sizeof(*m) + item_size * capacity);
        if (!m)
                return error_origin(-ENOMEM);
        pthread_mutex_init(&m->lock, NULL);
        m->item_size = item_size;
        m->capacity = capacity;
        m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (m->fd < 0)
                return error_origin(-errno);
        *ret = TAKE_PTR(m);
        return 0;
}

Mailbox *mailbox_free(Mailbox *m)
{
        if (!m)
                return NULL;
        if (m->fd >= 0)
                close(m->fd);
        pthread_mutex_destroy(&m->lock);
        free(m);
        return NULL;
}

int mailbox_fd(const Mailbox *m)
{
        return m->fd;
}

int mailbox_push(Mailbox *m, const void *item)
{
        bool full;

        pthread_mutex_lock(&m->lock);
        full = m->n == m->capacity;
        if (!full) {
                memcpy(m->items + (m->head + m->n) % m->capacity * m->item_size, item,
                        m->item_size);
                /* The eventfd counts to 2^64: adding 1 to it cannot fail. */
                if (m->n++ == 0)
                        eventfd_write(m->fd, 1);
        }
        pthread_mutex_unlock(&m->lock);
        return full ? MAILBOX_E_FULL : 0;
}

int mailbox_pop(Mailbox *m, void *ret_item)
{
        bool empty;

        pthread_mutex_lock(&m->lock);
        empty = m->n == 0;
        if (!empty) {
                unsigned char *item = m->items + m->head * m->item_size;
                eventfd_t value;

                memcpy(ret_item, item, m->item_size);
                memset(item, 0, m->item_size);
                m->head = (m->head + 1) % m->capacity;
                if (--m->n == 0)
                        eventfd_read(m->fd, &value);
        }
        pthread_mutex_unlock(&m->lock);
        return empty ? MAILBOX_E_EMPTY : 0;
}
