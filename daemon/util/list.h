/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Intrusive doubly linked list. A ListLink is a member of the element; the list's head is a
 * ListLink, too. */

typedef struct ListLink {
        struct ListLink *prev, *next;
} ListLink;

#define LIST_INIT(head)          \
        {                        \
                &(head), &(head) \
        }

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void list_init(ListLink *l)
{
        l->prev = l->next = l;
}

static inline bool list_empty(const ListLink *head)
{
        return head->next == head;
}

/* Appends at the tail of the list. */
static inline void list_append(ListLink *head, ListLink *l)
{
        l->prev = head->prev;
        l->next = head;
        head->prev->next = l;
        head->prev = l;
}

/* Takes the element out; it may be taken out again, which does nothing. */
static inline void list_remove(ListLink *l)
{
        l->prev->next = l->next;
        l->next->prev = l->prev;
        list_init(l);
}

#define list_first(head, type, member) \
        (list_empty(head) ? NULL : container_of((head)->next, type, member))

/* The body may not remove elements other than by list_for_each_safe, which allows removing the
 * current one. */
#define list_for_each(e, head, member)                                                     \
        for (e = container_of((head)->next, __typeof__(*e), member); &e->member != (head); \
                e = container_of(e->member.next, __typeof__(*e), member))

#define list_for_each_safe(e, tmp, head, member)                        \
        for (e = container_of((head)->next, __typeof__(*e), member),    \
            tmp = container_of(e->member.next, __typeof__(*e), member); \
                &e->member != (head);                                   \
                e = tmp, tmp = container_of(e->member.next, __typeof__(*e), member))
