/* gateway.h - what a guest on a private network asks of its router, answered within
 * its own process, so that no server has to run: its address (DHCP, Router
 * Advertisements) and names (DNS: the other guests', and all others from the host's
 * name server). Everything else the host's kernel does. */
#ifndef LODGE_NETWORK_GATEWAY_H
#define LODGE_NETWORK_GATEWAY_H

#include "network/network.h"
#include "network/subnet.h"

struct gateway_config {
    uint8_t mac[NETWORK_MAC_SIZE]; /* of the host's end */
    struct subnet subnet;
    struct in_addr guest;   /* the address it is to have */
    const char *hostname;   /* or NULL */
    bool ipv6;
    /* The address of a guest by its name; false when there is none of that name. */
    bool (*find)(void *opaque, const char *name, struct in_addr *ret_address);
    void *opaque;
    const struct log *log;
};

struct gateway;

/* What config points to is copied, but for the log. */
int gateway_create(const struct gateway_config *config, struct loop *loop,
                   const struct network_guest *guest, struct gateway **ret_gateway,
                   struct error *err);
void gateway_destroy(struct gateway *gateway); /* NULL is ignored */

/* A frame from the guest. True: it was for the gateway, and is done with. */
bool gateway_take(struct gateway *gateway, const uint8_t *frame, size_t length);

#endif
