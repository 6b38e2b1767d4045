/* link.h - network devices of the host's kernel, by name: up, addresses, bridges
 * (netdevice(7)). All of it needs root. */
#ifndef LODGE_NETWORK_LINK_H
#define LODGE_NETWORK_LINK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "network/subnet.h"

bool link_exists(const char *name);
int link_up(const char *name, struct error *err);
int link_get_mac(const char *name, uint8_t mac[6], struct error *err);
int link_set_mac(const char *name, const uint8_t mac[6], struct error *err);

int link_set_mtu(const char *name, unsigned mtu, struct error *err);

/* Give it the host's addresses of a subnet, those of IPv6 and fe80::1 where the host has IPv6.
 * ret_ipv6: whether it has. Again is fine. */
int link_set_addresses(const char *name, const struct subnet *subnet, bool *ret_ipv6,
                       struct error *err);
/* Give it a guest's addresses of a subnet, and routes by the host. */
int link_set_guest_addresses(const char *name, const struct subnet *subnet, struct in_addr address,
                             bool ipv6, struct error *err);
/* Let programs of the host reach what is behind it from 127.0.0.1, too. */
int link_route_localhost(const char *name, struct error *err);

/* One that exists already is fine, to make and to join; and one that is gone, to delete. */
int link_make_bridge(const char *name, struct error *err);
int link_delete_bridge(const char *name, struct error *err);
int link_join_bridge(const char *name, const char *bridge, struct error *err);

/* Let the host forward packets. */
int link_enable_forwarding(bool ipv6, struct error *err);

#endif
