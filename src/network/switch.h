/* switch.h - a network between guests of this host: a program that learns which
 * address is at which port, and connections to it over a Unix socket
 * (SOCK_SEQPACKET, a message a frame). */
#ifndef LODGE_NETWORK_SWITCH_H
#define LODGE_NETWORK_SWITCH_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

struct ethernet_switch;

/* Listen at path, which must not exist, or be a socket that nobody serves. */
int ethernet_switch_create(const char *path, struct loop *loop, const struct log *log,
                           struct ethernet_switch **ret_switch, struct error *err);
/* Removes the socket, too. NULL is ignored. */
void ethernet_switch_destroy(struct ethernet_switch *ethernet);

#endif
