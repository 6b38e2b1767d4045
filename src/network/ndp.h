/* ndp.h - tells a guest its IPv6 prefix and router (RFC 4861, Router
 * Advertisements): the guest makes its address of them by itself (RFC 4862). */
#ifndef LODGE_NETWORK_NDP_H
#define LODGE_NETWORK_NDP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ndp_router {
    uint8_t mac[6];
    struct in6_addr address; /* link-local */
    struct in6_addr prefix;  /* /64 */
};

#define NDP_ADVERTISEMENT_MAX 128
#define NDP_PERIOD_SECONDS    300 /* often enough for the lifetimes that are given */

/* Does the guest ask for routers? */
bool ndp_is_solicitation(const uint8_t *frame, size_t length);
/* The frame that tells all on the link; its length. */
size_t ndp_advertise(const struct ndp_router *router, uint8_t frame[NDP_ADVERTISEMENT_MAX]);

#endif
