/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "client/peer.h"

/*
 * Turns an event of a client that said hello into a call of core: its thread is looked up, its time
 * checked. What is ignored is counted. Return: 0, -errno.
 */
int peer_event(Peer *p, ClientPacketType type, const ClientEvent *event, Now now);
