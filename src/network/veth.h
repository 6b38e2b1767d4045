/* veth.h - a cable between the host and another network namespace (veth(4)), by
 * rtnetlink(7). Needs root. */
#ifndef LODGE_NETWORK_VETH_H
#define LODGE_NETWORK_VETH_H

#include <stdint.h>

#include "base/error.h"

/* Make the device name here, and peer with the address mac in the namespace. One of the same
 * name, which somebody left, is removed first. */
int veth_create(const char *name, const char *peer, const uint8_t mac[6], int namespace_fd,
                struct error *err);

#endif
