/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/un.h>

/*
 * The socket. Nothing here waits or raises a signal. A program that becomes a daemon may close all
 * its descriptors, ours too, and use the number again: the socket is known by its inode, and
 * another file is left alone.
 */

typedef struct Connection {
        int fd; /* -1: none */
        dev_t device;
        ino_t inode;
} Connection;

/* Return: 0, -errno: not now. */
int connection_open(Connection *ret, const struct sockaddr_un *address);
/* Ends it, also where a child of a fork holds a copy of the socket. */
void connection_close(Connection *c);
/* Closes the copy of a child: the parent's connection goes on. */
void connection_leave(Connection *c);

/* Whether a packet that begins something may be sent: the rest of the room is for their ends. */
bool connection_has_room(const Connection *c);

enum {
        CONNECTION_DONE,
        CONNECTION_NOT_NOW, /* no room, or nothing there */
        CONNECTION_BROKEN,
};

/* Return: CONNECTION_… */
int connection_send(Connection *c, const void *packet, size_t size);

/*
 * *ret_fd is a descriptor that came with the packet, or -1. An empty packet is CONNECTION_BROKEN.
 * Return: CONNECTION_…
 */
int connection_receive(Connection *c, void *buffer, size_t size, size_t *ret_size, int *ret_fd);
