/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/listener.h"
#include "client/peer.h"
#include "span.pb-c.h"

/*
 * Daemon and clients in one process, mostly: the loop is run until nothing is left to do, then it
 * is looked at.
 */

extern char socket_path[96];
extern Config config;
extern sd_event *event;
extern Listener *listener; /* on socket_path */
extern const ListenerOps ops;
extern int n_added, n_removed; /* calls of ops */

void fixture_setup(void);
void fixture_teardown(void);

void settle(void);

int client_connect(void);
void client_send(int fd, const Swprof__ClientPacket *m);
void client_hello(int fd, const char *service);
void client_start(int fd, const char *segment, pid_t tid, uint64_t mono_ns);

/* The next packet, NULL: none now; *ret_eof tells the end. */
Swprof__DaemonPacket *client_receive(int fd, int *ret_page, bool *ret_eof);
/* The generation of the list that comes next, its number of operations in *ret_n; 0: none. */
uint64_t client_list(int fd, size_t *ret_n);
/* Takes the welcome and the first list. Return: the page. */
int client_welcome(int fd);
/* Packets are skipped up to an error that holds `text`, then the end. */
void client_expect_error(int fd, const char *text);
/* The loop has to find that the client broke the protocol. Closes it. */
void expect_broken(int fd, const char *text);
/* A client that has said hello. */
int client_ready(void);
