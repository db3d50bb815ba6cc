/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "connection.h"
#include "record.h"
#include "swprof.h"
#include "watch-list.h"
#include "wire.h"

/*
 * The client. What every span looks at are atomics: `word`, the daemon's generation page, and
 * ClientState. All else is behind the mutex, which is held across a few system calls that do not
 * wait, and only by spans that are to be announced, and by the one thread that looks after the
 * connection.
 */

#define FILTER_WORDS 64

/*
 * Alone in a page that is zero in the child of a fork: there the mutex, which another thread of the
 * parent may have held, is free again (PTHREAD_MUTEX_INITIALIZER is all zero), and the first to
 * take it sees `is_owner` false.
 */
typedef struct ClientState {
        /* The word with which nobody is interested in anything. */
        _Alignas(64) _Atomic uint64_t quiet_word;
        _Atomic bool watching;         /* the list is not empty */
        _Atomic uint64_t seen_word;    /* there is nothing to read while the word is this */
        _Atomic uint64_t next_look_ns; /* but after this; of clock_coarse_ns() */
        _Atomic uint64_t
                filter[FILTER_WORDS]; /* one bit for each operation of the list, by its hash */
        _Alignas(64) pthread_mutex_t mutex;
        bool is_owner;
} ClientState;

struct swprof {
        ClientState *state;
        _Atomic uint64_t *word; /* always the same address; another page with each connection */
        char *service, *language;
        char *instance; /* NULL: made of pid and hostname */
        bool agent;
        struct sockaddr_un address;

        /* Under the mutex. */
        Connection connection;
        bool welcomed;
        WatchList *list; /* of this connection; NULL: none came yet */
        uint64_t hello_ns, next_try_ns, backoff_ns;
        RecordTable records;
        uint8_t packet[WIRE_RECEIVE_MAX];
};

/* What is as it was after the mutex is released: errno, and whether the thread can be cancelled. */
typedef struct ClientGuard {
        int error;
        int cancel_state;
} ClientGuard;

void client_lock(struct swprof *c, ClientGuard *ret);
void client_unlock(struct swprof *c, const ClientGuard *guard);

/* Looks after the connection when it is time to. Return: whether any operation is watched. */
bool client_look(struct swprof *c);

/* Return: false: the list does not have it. True: it may. */
bool client_may_watch(struct swprof *c, const char *operation);

/* Return: whether the list has it. With the mutex held, as those below. */
bool client_watches(struct swprof *c, const char *operation);

/* Tells of the record, if it is to be told of. Return: whether it is told now. */
bool client_announce(struct swprof *c, Record *record);

/*
 * Sends another event of a record that is told. If there is no room for it, the connection is given
 * up, because what the daemon believes would stay wrong. Return: whether it was sent.
 */
bool client_send(struct swprof *c, WireEventType type, const WireEvent *event);
