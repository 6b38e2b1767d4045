/* subnet.h - the addresses of a private network: IPv4 as chosen, .1 (the first) is
 * the host's; IPv6 fd4c:6f64:IPV4::/64 follows from it. */
#ifndef LODGE_NETWORK_SUBNET_H
#define LODGE_NETWORK_SUBNET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct subnet {
    uint32_t network; /* host byte order */
    unsigned prefix;  /* 8 to 29 */
};

#define SUBNET_TEXT_MAX 20

/* "10.5.0.0/24"; bits beyond the prefix must be 0. */
int subnet_parse(const char *text, struct subnet *ret_subnet, struct error *err);
const char *subnet_format(const struct subnet *subnet, char text[SUBNET_TEXT_MAX]);

static inline uint32_t subnet_mask(const struct subnet *subnet)
{
    return ~0u << (32 - subnet->prefix);
}

/* The first address: the host's. */
static inline struct in_addr subnet_host(const struct subnet *subnet)
{
    return (struct in_addr){htonl(subnet->network + 1)};
}

/* May a guest have that address? */
bool subnet_has_guest(const struct subnet *subnet, struct in_addr address);
bool subnet_overlaps(const struct subnet *a, const struct subnet *b);

/* The host's address in it, PREFIX::1; the prefix is 64 bits. */
struct in6_addr subnet_host_ipv6(const struct subnet *subnet);

/* Does an address of the host lie in it? A negative errno when they cannot be listed. */
int subnet_is_used_by_host(const struct subnet *subnet, struct error *err);

#endif
