/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "span.pb-c.h"

/*
 * The daemon's end of the span protocol, for one client at a time, driven by the test: nothing
 * happens on its own. What the client sends is decoded by the generated code, not by the library's
 * own.
 */

typedef struct FakeDaemon {
        char path[64];
        int listener;
        int fd; /* of the client; -1: none */
        int page_fd;
        _Atomic uint64_t *word; /* of the client's page */
        uint64_t generation;
        char text[1 << 16]; /* of fake_take() */
        Swprof__ClientPacket *last;
} FakeDaemon;

void fake_daemon_init(FakeDaemon *d);
void fake_daemon_deinit(FakeDaemon *d);

/* The socket is there, or no longer is. */
void fake_listen(FakeDaemon *d);
void fake_unlisten(FakeDaemon *d);

/* Return: whether a client had connected. */
bool fake_accept(FakeDaemon *d);
/* Sends Welcome, then the list. The page is sealed as the daemon seals it. */
void fake_welcome(FakeDaemon *d);
/* Sends another list and bumps the page. The operations end with NULL. */
void fake_watch(FakeDaemon *d, const char *const *operations);
#define FAKE_WATCH(d, ...) fake_watch((d), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
/* Closes the connection; `orderly`: and says so in the page. */
void fake_hang_up(FakeDaemon *d, bool orderly);

/* Return: 0, -errno. */
int fake_send(FakeDaemon *d, const void *bytes, size_t size, int attach);
int fake_make_page(uint64_t generation, int seals);

/*
 * What the client has sent since, a line each: "hello SERVICE INSTANCE LANGUAGE", "start SEGMENT
 * OPERATION", "stop SEGMENT", … Valid until the next time. The last packet is in d->last.
 */
const char *fake_take(FakeDaemon *d);
